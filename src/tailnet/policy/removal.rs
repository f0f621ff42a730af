//! A customer taken out of a policy file, wherever it is named.

use std::collections::BTreeSet;

use super::edit::{self, Edits};
use super::generate;
use super::hujson::{Document, Member, Node, Value};
use super::merge::{MergeError, owned_customers, ring, source};
use super::read::split_ports;

/// Sections that are lists of rules or tests: an element that loses its last source or destination goes as a whole.
const LISTS: [&str; 6] = ["grants", "acls", "ssh", "nodeAttrs", "tests", "sshTests"];
/// The lists without which such an element has no meaning.
const NEEDED: [&str; 6] = ["src", "dst", "users", "ports", "target", "via"];

/// Takes a customer's tag out of a policy file.
pub fn remove_tag(text: &str, tag: &str) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut left = owned_customers(&document);
    left.remove(tag);
    let document = Document::parse(ring(text, &left)?)?;
    let mut edits = Edits::default();
    for member in document.root.as_object().unwrap_or_default() {
        let listed = LISTS
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&member.name));
        if let (Value::Array(elements), true) = (&member.value.value, listed) {
            let gone = elements.iter().enumerate();
            let gone: BTreeSet<usize> = gone
                .filter(|(_, element)| goes_whole(element, tag))
                .map(|(index, _)| index)
                .collect();
            for (index, element) in elements.iter().enumerate() {
                if !gone.contains(&index) {
                    take_out(&document, element, tag, &mut edits);
                }
            }
            if !gone.is_empty() {
                edit::remove(&document, &member.value, &gone, &mut edits);
                for index in gone {
                    comment_of_ours(&document, elements[index].span.start, &mut edits);
                }
            }
        } else {
            take_out(&document, &member.value, tag, &mut edits);
        }
    }
    let text = edits.apply(&document.text);
    let document = Document::parse(text)?;
    if let Some(at) = mention(&document.root, tag) {
        return Err(MergeError::StillMentioned {
            tag: tag.to_owned(),
            at: document.position(at),
        });
    }
    Ok(document.text)
}

/// Takes out the comment that this program writes above a rule which goes.
fn comment_of_ours(document: &Document, rule: usize, edits: &mut Edits) {
    let text = &document.text;
    let line = text[..rule].rfind('\n').map_or(0, |newline| newline + 1);
    let above = text[..line.saturating_sub(1)]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    if text[above..line].trim() == format!("// {}", generate::BRAIN_COMMENT) {
        edits.replace(above..line, "");
    }
}

fn names(text: &str, tag: &str) -> bool {
    text == tag || split_ports(text).0 == tag
}

/// Whether an element loses all of a list without which it has no meaning.
fn goes_whole(element: &Node, tag: &str) -> bool {
    if source(element) == Some(tag) {
        return true;
    }
    let emptied = |member: &Member| {
        let elements = member.value.as_array().unwrap_or_default();
        !elements.is_empty()
            && elements
                .iter()
                .all(|node| node.as_str().is_some_and(|text| names(text, tag)))
    };
    let members = element.as_object().unwrap_or_default();
    let needed = members.iter().any(|member| {
        NEEDED
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&member.name))
            && emptied(member)
    });
    // A test that asserts nothing any more.
    let mut assertions = members
        .iter()
        .filter(|m| ["accept", "allow", "deny", "check"].contains(&m.name.as_str()))
        .peekable();
    needed || (assertions.peek().is_some() && assertions.all(emptied))
}

/// Takes a tag out of every list beneath a value, and the members that have its name.
fn take_out(document: &Document, node: &Node, tag: &str, edits: &mut Edits) {
    match &node.value {
        Value::Array(elements) => {
            let gone: BTreeSet<usize> = elements
                .iter()
                .enumerate()
                .filter(|(_, element)| element.as_str().is_some_and(|text| names(text, tag)))
                .map(|(index, _)| index)
                .collect();
            if !gone.is_empty() {
                edit::remove(document, node, &gone, edits);
            }
            for element in elements {
                take_out(document, element, tag, edits);
            }
        }
        Value::Object(members) => {
            let gone: BTreeSet<usize> = members
                .iter()
                .enumerate()
                .filter(|(_, member)| member.name == tag)
                .map(|(index, _)| index)
                .collect();
            if !gone.is_empty() {
                edit::remove(document, node, &gone, edits);
            }
            for (index, member) in members.iter().enumerate() {
                if !gone.contains(&index) {
                    take_out(document, &member.value, tag, edits);
                }
            }
        }
        _ => {}
    }
}

/// Where a tag is mentioned.
fn mention(node: &Node, tag: &str) -> Option<usize> {
    match &node.value {
        Value::String(text) => names(text, tag).then_some(node.span.start),
        Value::Array(elements) => elements.iter().find_map(|element| mention(element, tag)),
        Value::Object(members) => members.iter().find_map(|member| {
            (member.name == tag)
                .then_some(member.span.start)
                .or_else(|| mention(&member.value, tag))
        }),
        _ => None,
    }
}
