//! Customers put into a policy file and taken out of it. Only what is theirs changes; every other byte stays.

use std::collections::{BTreeMap, BTreeSet};

use super::edit::{self, Edits};
use super::generate::{self, INDENT};
use super::hujson::{Document, Node, Position, SyntaxError, Value};
use super::model::{BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, TEAM_TAG};
use super::ours;
use super::removal::remove_tag;
use super::selection::TagId;
use super::traffic::TCP;
use crate::customer::CustomerId;

/// A file into which customers cannot be put, or out of which they cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// It is not HuJSON.
    #[error("the policy file cannot be read: {0}")]
    Syntax(#[from] SyntaxError),
    /// A section has another form than Tailscale gives it.
    #[error("{at}: `{section}` is not {expected}")]
    Shape {
        /// `grants`
        section: &'static str,
        /// Where it stands.
        at: Position,
        /// What it should be.
        expected: &'static str,
    },
    /// A tag stands where it is not known what taking it out would mean.
    #[error("{tag} is still mentioned at {at}, where it cannot be taken out")]
    StillMentioned {
        /// The tag.
        tag: String,
        /// Where.
        at: Position,
    },
}

/// Puts one customer into a policy file: tag owner, rules and tests together. What is there already is kept, so that doing it
/// again changes nothing.
pub fn add_customer(
    text: &str,
    customer: &CustomerId,
    brain_port: u16,
) -> Result<String, MergeError> {
    add_customers(text, [customer], brain_port)
}

/// Takes one customer out of a policy file: tag owner, rules and tests together.
pub fn remove_customer(text: &str, customer: &CustomerId) -> Result<String, MergeError> {
    remove_tag(text, &customer.tailscale_tag())
}

/// Puts customers into a policy file.
pub fn add_customers<'c>(
    text: &str,
    customers: impl IntoIterator<Item = &'c CustomerId>,
    brain_port: u16,
) -> Result<String, MergeError> {
    add_customers_marked(text, customers, brain_port, None)
}

/// Puts customers into a policy file, with a remark at each tag owner that is new.
pub fn add_customers_marked<'c>(
    text: &str,
    customers: impl IntoIterator<Item = &'c CustomerId>,
    brain_port: u16,
    mark: Option<&str>,
) -> Result<String, MergeError> {
    let tags = generate::tags(customers);
    if text.trim().is_empty() && mark.is_none() {
        return Ok(generate::policy(&tags, brain_port));
    }
    if tags.is_empty() {
        return Ok(text.to_owned());
    }
    let text = if text.trim().is_empty() { "{}" } else { text };
    // Each step reads what the one before it wrote.
    let text = owners(text, &tags, mark)?;
    let text = brain_grant(&text, &tags, brain_port)?;
    let text = team_grant(&text, &tags)?;
    let text = ssh_rule(&text, &tags)?;
    let text = tests(&text, &tags, brain_port)?;
    let text = ssh_tests(&text, &tags)?;
    let all = owned_customers(&Document::parse(text.as_str())?);
    let text = ring(&text, &all)?;
    moved_brain(&text, &tags, brain_port)
}

/// Whether the tag owner of a customer has this remark.
pub fn is_marked(text: &str, customer: &CustomerId, mark: &str) -> Result<bool, MergeError> {
    Ok(remark_at(text, customer)?.is_some_and(|found| remark(mark) == remark(&found)))
}

/// The remark at the tag owner of a customer, whoever wrote it.
pub fn remark_at(text: &str, customer: &CustomerId) -> Result<Option<String>, MergeError> {
    let document = Document::parse(text)?;
    let tag = customer.tailscale_tag();
    let members = document.root.get("tagOwners").and_then(Node::as_object);
    let member = members
        .unwrap_or_default()
        .iter()
        .find(|member| member.name == tag);
    Ok(member.and_then(|member| {
        let behind = document.text[member.span.end..].trim_start();
        let (found, _) = behind.strip_prefix("/* ")?.split_once(" */")?;
        Some(found.to_owned())
    }))
}

/// A mark as a comment.
fn remark(mark: &str) -> String {
    format!("/* {} */", mark.replace("*/", ""))
}

/// The customers' tags that have an owner in the file.
pub fn owned_customers(document: &Document) -> BTreeSet<String> {
    document
        .root
        .get("tagOwners")
        .and_then(Node::as_object)
        .unwrap_or_default()
        .iter()
        .filter(|member| member.name.starts_with(CUSTOMER_PREFIX))
        .map(|member| member.name.clone())
        .collect()
}

/// Which of the tags a set of numbers does not hold.
fn missing(
    tags: &BTreeSet<String>,
    policy: &Policy<'_>,
    held: &bit_set::BitSet,
) -> BTreeSet<String> {
    let holds = |tag: &String| {
        policy
            .names
            .known_tag(tag)
            .is_some_and(|number: TagId| held.contains(number))
    };
    tags.iter().filter(|tag| !holds(tag)).cloned().collect()
}

/// A section of the file that is a list or an object, or nothing.
fn section<'d>(
    document: &'d Document,
    name: &'static str,
    object: bool,
) -> Result<Option<&'d Node>, MergeError> {
    let Some(node) = document.root.get(name) else {
        return Ok(None);
    };
    let fits = matches!(
        (&node.value, object),
        (Value::Object(_), true) | (Value::Array(_), false)
    );
    if fits {
        return Ok(Some(node));
    }
    Err(MergeError::Shape {
        section: name,
        at: document.position(node.span.start),
        expected: if object { "an object" } else { "a list" },
    })
}

/// Puts items into a section at indexes; makes the section where there is none.
fn put(
    document: &Document,
    name: &'static str,
    object: bool,
    inserts: BTreeMap<usize, Vec<String>>,
    edits: &mut Edits,
) -> Result<(), MergeError> {
    if let Some(node) = section(document, name, object)? {
        edit::insert(document, node, &inserts, edits);
        return Ok(());
    }
    let (open, close) = if object { ('{', '}') } else { ('[', ']') };
    let unit = unit(document);
    let lines: String = inserts
        .into_values()
        .flatten()
        .map(|item| format!("{unit}{unit}{item},\n"))
        .collect();
    let text = format!("\"{name}\": {open}\n{lines}{unit}{close}");
    let count = document.root.as_object().unwrap_or_default().len();
    edit::insert(
        document,
        &document.root,
        &BTreeMap::from([(count, vec![text])]),
        edits,
    );
    Ok(())
}

/// By what the file indents: the white space before its first member.
fn unit(document: &Document) -> &str {
    let members = document.root.as_object().unwrap_or_default();
    let indent = members
        .first()
        .map(|member| edit::indent_of(&document.text, member.span.start));
    indent.filter(|indent| !indent.is_empty()).unwrap_or("  ")
}

/// Text made with two spaces a level, with `unit` instead.
fn indented(text: &str, unit: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start_matches(' ');
        out.push_str(&unit.repeat((line.len() - rest.len()) / 2));
        out.push_str(rest);
    }
    out
}

/// Where each of some tags belongs among names that are partly customers' tags, in their order.
fn places<'n>(
    names: impl Iterator<Item = Option<&'n str>>,
    tags: &BTreeSet<String>,
    item: impl Fn(&str) -> String,
) -> BTreeMap<usize, Vec<String>> {
    let names: Vec<Option<&str>> = names
        .map(|name| name.filter(|name| name.starts_with(CUSTOMER_PREFIX)))
        .collect();
    let end = names
        .iter()
        .rposition(Option::is_some)
        .map_or(names.len(), |last| last + 1);
    let mut inserts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for tag in tags {
        let place = names
            .iter()
            .position(|name| name.is_some_and(|name| name > tag.as_str()))
            .unwrap_or(end);
        inserts.entry(place).or_default().push(item(tag));
    }
    inserts
}

/// Every tag has an owner, and customers' tags the right one.
fn owners(text: &str, tags: &BTreeSet<String>, mark: Option<&str>) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut edits = Edits::default();
    let members = section(&document, "tagOwners", true)?
        .and_then(Node::as_object)
        .unwrap_or_default();
    let member = |tag: &str| members.iter().find(|member| member.name == tag);
    let base = generate::base_owners()
        .into_iter()
        .filter(|(tag, _)| member(tag).is_none())
        .map(|(tag, owners)| format!("\"{tag}\": {}", generate::inline(owners)));
    let before = members
        .iter()
        .position(|member| member.name.starts_with(CUSTOMER_PREFIX))
        .unwrap_or(members.len());
    let mut inserts = BTreeMap::from([(before, base.collect::<Vec<_>>())]);
    let new: BTreeSet<String> = tags
        .iter()
        .filter(|tag| member(tag).is_none())
        .cloned()
        .collect();
    let names = members.iter().map(|member| Some(member.name.as_str()));
    let owned = generate::inline([OPERATOR_TAG]);
    let behind = mark.map_or(String::new(), |mark| format!(" {}", remark(mark)));
    for (place, items) in places(names, &new, |tag| format!("\"{tag}\": {owned}{behind}")) {
        inserts.entry(place).or_default().extend(items);
    }
    inserts.retain(|_, items| !items.is_empty());
    for tag in tags {
        let Some(member) = member(tag) else { continue };
        if member.value.as_array().is_none() {
            edits.replace(member.value.span.clone(), owned.clone());
        } else if !member.value.strings().any(|owner| owner == OPERATOR_TAG) {
            // Other owners stay; whether they may is the check's to say.
            let first = BTreeMap::from([(0, vec![format!("\"{OPERATOR_TAG}\"")])]);
            edit::insert(&document, &member.value, &first, &mut edits);
        }
    }
    // Files that earlier versions made let the operator's client pose as the brain.
    if let Some(brain) = member(BRAIN_TAG)
        && ours::is_list_of(&brain.value, &["autogroup:admin", OPERATOR_TAG])
    {
        edit::remove(&document, &brain.value, &[1].into(), &mut edits);
    }
    if !inserts.is_empty() {
        put(&document, "tagOwners", true, inserts, &mut edits)?;
    }
    Ok(edits.apply(text))
}

/// A rule of ours: extended by customers where there is one, else put at the end of its section.
fn rule(
    document: &Document,
    name: &'static str,
    tags: &BTreeSet<String>,
    is_ours: impl Fn(&Node) -> bool,
    (list, suffix): (&str, &str),
    (comment, fresh): (&str, String),
) -> Result<String, MergeError> {
    let mut edits = Edits::default();
    let elements = section(document, name, false)?
        .and_then(Node::as_array)
        .unwrap_or_default();
    let list = elements
        .iter()
        .find(|element| is_ours(element))
        .and_then(|element| element.get(list));
    if let Some(list) = list {
        let names = list.as_array().unwrap_or_default().iter().map(|node| {
            node.as_str()
                .map(|text| text.strip_suffix(suffix).unwrap_or(text))
        });
        let inserts = places(names, tags, |tag| format!("\"{tag}{suffix}\""));
        edit::insert(document, list, &inserts, &mut edits);
    } else {
        let item = if comment.is_empty() {
            fresh
        } else {
            format!("// {comment}\n{INDENT}{fresh}")
        };
        let item = indented(&item, unit(document));
        let end = BTreeMap::from([(elements.len(), vec![item])]);
        put(document, name, false, end, &mut edits)?;
    }
    Ok(edits.apply(&document.text))
}

fn brain_grant(text: &str, tags: &BTreeSet<String>, port: u16) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut policy = Policy::read(&document);
    let brain = policy.names.tag(BRAIN_TAG);
    let reached = policy.customers_reaching(brain, TCP, port);
    let new = missing(tags, &policy, &reached);
    if new.is_empty() {
        return Ok(document.text);
    }
    let fresh = generate::brain_grant(&new, port, INDENT);
    let comment = generate::BRAIN_COMMENT;
    rule(
        &document,
        "grants",
        &new,
        |element| ours::is_brain_grant(element, port),
        ("src", ""),
        (comment, fresh),
    )
}

fn team_grant(text: &str, tags: &BTreeSet<String>) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut policy = Policy::read(&document);
    let team = policy.names.tag(TEAM_TAG);
    let reached = policy.customers_reached(team, TCP, 22);
    let new = missing(tags, &policy, &reached);
    if new.is_empty() {
        return Ok(document.text);
    }
    let fresh = generate::team_grant(&new, INDENT);
    let comment = "The team reaches everything.";
    rule(
        &document,
        "grants",
        &new,
        ours::is_team_grant,
        ("dst", ""),
        (comment, fresh),
    )
}

fn ssh_rule(text: &str, tags: &BTreeSet<String>) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut policy = Policy::read(&document);
    let team = policy.names.tag(TEAM_TAG);
    let reached = policy.customers_with_ssh(team);
    let new = missing(tags, &policy, &reached);
    if new.is_empty() {
        return Ok(document.text);
    }
    let fresh = generate::ssh_rule(&new, INDENT);
    rule(
        &document,
        "ssh",
        &new,
        ours::is_ssh_rule,
        ("dst", ""),
        ("", fresh),
    )
}

fn tests(text: &str, tags: &BTreeSet<String>, port: u16) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let elements = elements(&document, "tests")?;
    let tested = ours::listed(elements, ours::is_team_test, "accept");
    let new: BTreeSet<String> = tags
        .iter()
        .filter(|tag| !tested.contains(&format!("{tag}:22")))
        .cloned()
        .collect();
    let text = if new.is_empty() {
        document.text
    } else {
        let fresh = generate::team_test(&new, INDENT);
        rule(
            &document,
            "tests",
            &new,
            ours::is_team_test,
            ("accept", ":22"),
            ("", fresh),
        )?
    };
    each(&text, "tests", tags, |tag, all| {
        generate::customer_test(tag, all, port)
    })
}

fn ssh_tests(text: &str, tags: &BTreeSet<String>) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let elements = elements(&document, "sshTests")?;
    let tested = ours::listed(elements, ours::is_team_ssh_test, "dst");
    let new: BTreeSet<String> = tags
        .iter()
        .filter(|tag| !tested.contains(*tag))
        .cloned()
        .collect();
    let text = if new.is_empty() {
        document.text
    } else {
        let fresh = generate::team_ssh_test(&new, INDENT);
        rule(
            &document,
            "sshTests",
            &new,
            ours::is_team_ssh_test,
            ("dst", ""),
            ("", fresh),
        )?
    };
    each(&text, "sshTests", tags, generate::customer_ssh_test)
}

fn elements<'d>(document: &'d Document, name: &'static str) -> Result<&'d [Node], MergeError> {
    Ok(section(document, name, false)?
        .and_then(Node::as_array)
        .unwrap_or_default())
}

pub(super) fn source(test: &Node) -> Option<&str> {
    test.get("src").and_then(Node::as_str)
}

/// One test for each customer that has none.
fn each(
    text: &str,
    name: &'static str,
    tags: &BTreeSet<String>,
    test: impl Fn(&str, &BTreeSet<String>) -> String,
) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let all = owned_customers(&document);
    let elements = elements(&document, name)?;
    let tested: BTreeSet<&str> = elements.iter().filter_map(source).collect();
    let new: BTreeSet<String> = tags
        .iter()
        .filter(|tag| !tested.contains(tag.as_str()))
        .cloned()
        .collect();
    let inserts = places(elements.iter().map(source), &new, |tag| test(tag, &all));
    let mut edits = Edits::default();
    if !inserts.is_empty() {
        put(&document, name, false, inserts, &mut edits)?;
    }
    Ok(edits.apply(text))
}

/// The tests of customers, as far as they are in the form in which they were made, each name the next customer.
pub(super) fn ring(text: &str, all: &BTreeSet<String>) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut edits = Edits::default();
    let mut rename = |name, list: &str, made: fn(&str, &BTreeSet<String>) -> Vec<String>| {
        for test in elements(&document, name)? {
            let Some(tag) = source(test).filter(|tag| all.contains(*tag)) else {
                continue;
            };
            let Some(list) = test.get(list).filter(|_| ours::is_customer_test(test)) else {
                continue;
            };
            let made = made(tag, all);
            if !ours::is_list_of(list, &made) {
                edits.replace(list.span.clone(), generate::inline(&made));
            }
        }
        Ok::<(), MergeError>(())
    };
    rename("tests", "deny", generate::denied)?;
    rename("sshTests", "dst", generate::others)?;
    Ok(edits.apply(text))
}

/// The tests of these customers, as far as they are in the form in which they were made, accept the port that the brain has
/// now. A rule for another one stays: hosts may still be on their way from there.
fn moved_brain(text: &str, tags: &BTreeSet<String>, port: u16) -> Result<String, MergeError> {
    let document = Document::parse(text)?;
    let mut edits = Edits::default();
    let accepted = [generate::accepted(port)];
    for test in elements(&document, "tests")? {
        let ours =
            source(test).is_some_and(|tag| tags.contains(tag)) && ours::is_customer_test(test);
        if let Some(list) = test.get("accept").filter(|_| ours)
            && !ours::is_list_of(list, &accepted)
        {
            edits.replace(list.span.clone(), generate::inline(&accepted));
        }
    }
    Ok(edits.apply(text))
}
