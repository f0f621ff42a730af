//! XML answers of the query protocols.

/// XML under construction: elements and text, escaped.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// An element that holds text.
    pub fn text(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.open(name);
        self.escape(&value.to_string());
        self.close(name)
    }

    /// An element that holds text, left out when there is none.
    pub fn optional(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// An element that holds elements.
    pub fn element(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.open(name);
        fill(self);
        self.close(name)
    }

    /// A list: `name` holding one `item` for each thing.
    pub fn list<T>(
        &mut self,
        name: &str,
        item: &str,
        things: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.open(name);
        for thing in things {
            self.open(item);
            fill(self, thing);
            self.close(item);
        }
        self.close(name)
    }

    /// The finished text.
    pub fn into_string(self) -> String {
        self.0
    }

    fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    fn close(&mut self, name: &str) -> &mut Self {
        self.0.push_str("</");
        // An opening tag may carry a namespace; the closing one may not.
        self.0.push_str(name.split(' ').next().unwrap_or(name));
        self.0.push('>');
        self
    }

    fn escape(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                // A bare carriage return would be read back as a line feed.
                '\r' => self.0.push_str("&#13;"),
                // Not allowed in XML in any form; AWS does not let them into names and tags either.
                control if control.is_control() && !matches!(control, '\n' | '\t') => {
                    self.0.push('\u{fffd}');
                }
                other => self.0.push(other),
            }
        }
    }
}
