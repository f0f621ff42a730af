//! What a policy file says, read from its text. What is not understood is kept as a problem, and taken for the worst.

use std::collections::HashMap;

use super::hujson::Document;
use super::index::Index;
use super::selection::{Names, Selection, TagId};
use super::traffic::Traffic;

/// The tag of the brain.
pub const BRAIN_TAG: &str = "tag:m8trx-brain";
/// The tag of the team's machines.
pub const TEAM_TAG: &str = "tag:m8trx-team";
/// The tag of the OAuth client that mints the customers' keys.
pub const OPERATOR_TAG: &str = "tag:m8trx-operator";
/// What every customer's tag begins with.
pub const CUSTOMER_PREFIX: &str = "tag:m8trx-cust-";
/// The brain's port where nothing says where the brain is.
pub const DEFAULT_BRAIN_PORT: u16 = 8080;

/// A policy file, read.
#[derive(Debug)]
pub struct Policy<'d> {
    /// Its text.
    pub document: &'d Document,
    /// Its names.
    pub names: Names<'d>,
    /// The tags of customers that it names, in the order of their names.
    pub customers: Vec<TagId>,
    /// Grants and ACLs.
    pub rules: Vec<Rule<'d>>,
    /// SSH rules.
    pub ssh: Vec<SshRule<'d>>,
    /// Who may give a device which tag.
    pub tag_owners: Vec<TagOwner<'d>>,
    /// Who may announce routes without being asked.
    pub approvers: Vec<Approver<'d>>,
    /// Who may be reached from the internet through Funnel, and other attributes of devices.
    pub attributes: Vec<Attribute<'d>>,
    /// `tests`
    pub tests: Vec<Test<'d>>,
    /// `sshTests`
    pub ssh_tests: Vec<SshTest<'d>>,
    /// Whether it has `grants` or `acls` at all. Without either, Tailscale lets everything through.
    pub has_rules: bool,
    /// What was not understood or what Tailscale refuses.
    pub problems: Vec<Problem>,
    /// Every tag where it is first used.
    pub used_tags: HashMap<TagId, usize>,
    pub(super) rule_index: Index,
    pub(super) ssh_index: Index,
}

/// A grant, or an element of `acls`.
#[derive(Debug)]
pub struct Rule<'d> {
    /// `grants[3]`
    pub path: String,
    /// Where it begins.
    pub at: usize,
    /// Who.
    pub src: Selection<'d>,
    /// Reaches whom, by what.
    pub targets: Vec<Target<'d>>,
    /// Whether it only holds for devices in a certain posture, or through certain routers.
    pub conditional: bool,
    /// The routers that it leads through.
    pub via: Option<Selection<'d>>,
    /// Whether it grants application capabilities.
    pub app: bool,
}

/// Destinations of a rule, and the traffic let through to them.
#[derive(Debug)]
pub struct Target<'d> {
    /// Whom.
    pub dst: Selection<'d>,
    /// By what.
    pub traffic: Vec<Traffic>,
}

/// An element of `ssh`.
#[derive(Debug)]
pub struct SshRule<'d> {
    /// `ssh[0]`
    pub path: String,
    /// Where it begins.
    pub at: usize,
    /// Whether the person is asked to sign in again.
    pub check: bool,
    /// Who.
    pub src: Selection<'d>,
    /// Reaches whom.
    pub dst: Selection<'d>,
    /// As which users of the machine.
    pub users: Vec<&'d str>,
    /// Whether it only holds for devices in a certain posture.
    pub conditional: bool,
}

/// A member of `tagOwners`.
#[derive(Debug)]
pub struct TagOwner<'d> {
    /// The tag.
    pub tag: TagId,
    /// Where it stands.
    pub at: usize,
    /// Who may give it to a device, each with its place.
    pub owners: Vec<(&'d str, usize)>,
}

/// A list of `autoApprovers`.
#[derive(Debug)]
pub struct Approver<'d> {
    /// `autoApprovers.exitNode`
    pub path: String,
    /// Where it stands.
    pub at: usize,
    /// Who.
    pub who: Selection<'d>,
}

/// An element of `nodeAttrs`.
#[derive(Debug)]
pub struct Attribute<'d> {
    /// `nodeAttrs[0]`
    pub path: String,
    /// Where it stands.
    pub at: usize,
    /// Which devices.
    pub target: Selection<'d>,
    /// Which attributes.
    pub attr: Vec<&'d str>,
    /// The app connectors it names.
    pub connectors: Selection<'d>,
}

/// An element of `tests`.
#[derive(Debug)]
pub struct Test<'d> {
    /// `tests[0]`
    pub path: String,
    /// Where it stands.
    pub at: usize,
    /// From where.
    pub src: &'d str,
    /// By which protocol; TCP or UDP where it names none.
    pub proto: Option<&'d str>,
    /// What must be reached, each with its place.
    pub accept: Vec<(&'d str, usize)>,
    /// What must not.
    pub deny: Vec<(&'d str, usize)>,
}

/// An element of `sshTests`.
#[derive(Debug)]
pub struct SshTest<'d> {
    /// `sshTests[0]`
    pub path: String,
    /// Where it stands.
    pub at: usize,
    /// From where.
    pub src: &'d str,
    /// To where.
    pub dst: Vec<&'d str>,
    /// As which users without being asked.
    pub accept: Vec<&'d str>,
    /// As which users after signing in again.
    pub check: Vec<&'d str>,
    /// As which users never.
    pub deny: Vec<&'d str>,
}

/// Something that was not understood, or that Tailscale refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `grants[3].ip`
    pub path: String,
    /// Where.
    pub at: usize,
    /// What.
    pub what: String,
}
