//! Wildcards and policy variables.

/// A text with `*` (anything) and `?` (one character).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cloud) struct Pattern(Vec<Token>);

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Token {
    Literal(char),
    One,
    Many,
}

impl Pattern {
    /// A pattern without variables.
    pub fn plain(text: &str) -> Self {
        Self(text.chars().map(Token::of).collect())
    }

    /// A pattern whose `${key}` and `${key, 'default'}` are replaced by their values, in which wildcards are plain
    /// characters. None when a variable has no value.
    pub fn with_variables<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((variable, after)) = after.split_once('}') else {
                break;
            };
            tokens.extend(before.chars().map(Token::of));
            rest = after;
            let literal = match variable {
                "*" | "?" | "$" => variable,
                _ => {
                    let (key, default) = match variable.split_once(',') {
                        Some((key, default)) => (
                            key.trim(),
                            default
                                .trim()
                                .strip_prefix('\'')
                                .and_then(|d| d.strip_suffix('\'')),
                        ),
                        None => (variable.trim(), None),
                    };
                    value(key).or(default)?
                }
            };
            tokens.extend(literal.chars().map(Token::Literal));
        }
        tokens.extend(rest.chars().map(Token::of));
        Some(Self(tokens))
    }

    /// The pattern as text, wildcards taken as plain characters.
    pub fn text(&self) -> String {
        let characters = self.0.iter().map(|token| match token {
            Token::Literal(character) => *character,
            Token::One => '?',
            Token::Many => '*',
        });
        characters.collect()
    }

    /// Whether the whole text matches. Takes time in proportion to both lengths at worst.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut token, mut position) = (0, 0);
        // Where to go on when what followed the last `*` did not match: the `*` takes one character more.
        let mut retry: Option<(usize, usize)> = None;
        while position < text.len() {
            match self.0.get(token) {
                Some(Token::Many) => {
                    retry = Some((token, position));
                    token += 1;
                    continue;
                }
                Some(Token::One) => {}
                Some(Token::Literal(character)) if *character == text[position] => {}
                _ => {
                    let Some((star, taken)) = retry else {
                        return false;
                    };
                    retry = Some((star, taken + 1));
                    token = star + 1;
                    position = taken + 1;
                    continue;
                }
            }
            token += 1;
            position += 1;
        }
        self.0[token..].iter().all(|token| *token == Token::Many)
    }
}

impl Token {
    fn of(character: char) -> Self {
        match character {
            '*' => Self::Many,
            '?' => Self::One,
            other => Self::Literal(other),
        }
    }
}
