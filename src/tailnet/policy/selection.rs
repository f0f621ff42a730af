//! Whom a list of selectors means: `tag:x`, `group:y`, `*`, addresses, and the rest of what `src` and `dst` may hold.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use bit_set::BitSet;

use super::address::{self, AddressRange};
use super::truth::Truth;

/// A tag of the file, by its number among all of them.
pub type TagId = usize;

/// The file's names: what stands behind hosts, groups and IP sets, and the numbers of its tags.
#[derive(Debug, Default)]
pub struct Names<'d> {
    /// `hosts`
    pub hosts: HashMap<&'d str, &'d str>,
    /// `groups`
    pub groups: HashMap<&'d str, Vec<&'d str>>,
    /// `ipsets`
    pub ipsets: HashMap<&'d str, Vec<&'d str>>,
    /// Whose single addresses of the tailnet are: tags, or a user. Empty where the devices are not known.
    pub addresses: HashMap<IpAddr, Vec<String>>,
    numbers: HashMap<String, TagId>,
    tags: Vec<String>,
}

impl Names<'_> {
    /// Names of a file in a tailnet where this is known of its addresses.
    pub fn with_addresses(addresses: HashMap<IpAddr, Vec<String>>) -> Self {
        Self {
            addresses,
            ..Self::default()
        }
    }

    /// The number of a tag, given when it is first met.
    pub fn tag(&mut self, name: &str) -> TagId {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.tags.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.tags.len() - 1);
        self.tags.len() - 1
    }

    /// The number of a tag that was met.
    pub fn known_tag(&self, name: &str) -> Option<TagId> {
        self.numbers.get(name).copied()
    }

    /// The name of a tag.
    pub fn tag_name(&self, tag: TagId) -> &str {
        &self.tags[tag]
    }

    /// All tags that were met.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }
}

/// One thing that may be a source or a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entity<'d> {
    /// A device with this tag and no other.
    Tag(TagId),
    /// A user's own device.
    User(&'d str),
    /// The device of some member of a group.
    Group(&'d str),
    /// An address.
    Address(IpAddr),
    /// A service.
    Service(&'d str),
    /// What is no destination of a test: a network. Tailscale finds nothing reached there.
    Nothing,
    /// A selector that stands for itself.
    Other(&'d str),
}

/// What a list of selectors holds.
#[derive(Debug, Clone, Default)]
pub struct Selection<'d> {
    everything: bool,
    every_tagged: bool,
    tags: BitSet,
    users: HashSet<&'d str>,
    groups: HashSet<&'d str>,
    domains: Vec<&'d str>,
    members: bool,
    roles: bool,
    own: bool,
    internet: bool,
    ranges: Vec<AddressRange>,
    /// Of these, something may have been taken out again.
    loose_ranges: Vec<AddressRange>,
    services: HashSet<&'d str>,
    /// Single addresses whose device is known, and those that no device ever has.
    settled: Vec<AddressRange>,
    /// Whether it names a single address of the tailnet whose device is not known.
    unsettled: bool,
    /// What in it means people's own devices, as the file says it.
    people: Vec<String>,
    /// What was not understood; it may be anything.
    unknown: Vec<&'d str>,
    literal: HashSet<&'d str>,
}

/// Autogroups of users by their role. Never of tagged devices: a tag takes the place of the user.
const ROLES: [&str; 6] = [
    "autogroup:admin",
    "autogroup:auditor",
    "autogroup:billing-admin",
    "autogroup:it-admin",
    "autogroup:network-admin",
    "autogroup:owner",
];

impl<'d> Selection<'d> {
    /// Reads selectors.
    pub fn read(selectors: impl IntoIterator<Item = &'d str>, names: &mut Names<'d>) -> Self {
        let mut selection = Self::default();
        for selector in selectors {
            selection.add(selector, names);
        }
        selection
    }

    /// Whether something in it was not understood.
    pub fn is_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether it says `*`.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether it holds all users, or all tagged devices.
    pub fn is_broad(&self) -> bool {
        self.members || self.every_tag() > Truth::No
    }

    /// Whether it says `autogroup:tagged`.
    pub fn names_every_tagged(&self) -> bool {
        self.every_tagged
    }

    /// Whether it names a single address of the tailnet, and it is not known whose that is.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// What in it means people's own devices: users, groups, roles.
    pub fn people(&self) -> Option<&str> {
        self.people.first().map(String::as_str)
    }

    /// Whether it says just this.
    pub fn says(&self, selector: &str) -> bool {
        self.literal.contains(selector)
    }

    /// Everything it says, as it is written, in an order of its own.
    pub fn said(&self) -> impl Iterator<Item = &'d str> {
        self.literal.iter().copied()
    }

    /// Adds a selector.
    pub fn add(&mut self, selector: &'d str, names: &mut Names<'d>) {
        self.add_within(selector, names, &mut Vec::new());
    }

    fn add_within(&mut self, selector: &'d str, names: &mut Names<'d>, around: &mut Vec<&'d str>) {
        let cyclic = around.contains(&selector) || around.len() > 16;
        self.literal.insert(selector);
        let of_people = selector.starts_with("autogroup:member")
            || ROLES.contains(&selector)
            || selector.starts_with("group:")
            || selector.starts_with("user:*@");
        if of_people && around.is_empty() {
            self.people.push(selector.to_owned());
        }
        match selector {
            "*" | "autogroup:danger-all" => self.everything = true,
            "autogroup:tagged" => self.every_tagged = true,
            "autogroup:member" | "autogroup:members" => self.members = true,
            "autogroup:self" => self.own = true,
            "autogroup:internet" => self.internet = true,
            // People to whom devices were shared: users of other tailnets.
            "autogroup:shared" => {}
            role if ROLES.contains(&role) => self.roles = true,
            _ if selector.starts_with("tag:") => {
                self.tags.insert(names.tag(selector));
            }
            _ if selector.starts_with("group:") && !cyclic => {
                self.groups.insert(selector);
                around.push(selector);
                for member in names.groups.get(selector).cloned().unwrap_or_default() {
                    self.add_within(member, names, around);
                }
                around.pop();
            }
            _ if selector.starts_with("ipset:") && !cyclic => {
                self.add_ipset(selector, names, around);
            }
            _ if selector.starts_with("svc:") => {
                self.services.insert(selector);
            }
            _ if selector.starts_with("user:*@") => self.domains.push(&selector["user:*".len()..]),
            _ => {
                let address = names.hosts.get(selector).copied().unwrap_or(selector);
                if let Some(range) = AddressRange::parse(address) {
                    self.add_range(range, names);
                } else if selector.contains('@') && !selector.contains(':') {
                    if around.is_empty() {
                        self.people.push(selector.to_owned());
                    }
                    self.users.insert(selector);
                } else {
                    self.unknown.push(selector);
                }
            }
        }
    }

    fn add_range(&mut self, range: AddressRange, names: &mut Names<'d>) {
        if range.is_never_a_device() {
            self.settled.push(range);
            return;
        }
        let single = range
            .single()
            .filter(|address| address::is_of_tailnet(*address));
        if let Some(address) = single {
            if let Some(owners) = names.addresses.get(&address).cloned() {
                for owner in owners {
                    if owner.starts_with("tag:") {
                        let tag = names.tag(&owner);
                        self.tags.insert(tag);
                    } else {
                        self.people.push(format!("{address}, a device of {owner}"));
                    }
                }
                self.settled.push(range);
                return;
            }
            self.unsettled = true;
        }
        self.ranges.push(range);
    }

    fn add_ipset(&mut self, name: &'d str, names: &mut Names<'d>, around: &mut Vec<&'d str>) {
        let Some(entries) = names.ipsets.get(name).cloned() else {
            self.unknown.push(name);
            return;
        };
        around.push(name);
        let mut inner = Self::default();
        let mut taken_out = false;
        for entry in entries {
            match entry.split_once(' ') {
                Some(("add", rest)) => inner.add_within(rest.trim(), names, around),
                // What is taken out is not known to be reached, and not known to be closed: another rule may hold it.
                Some(("remove", _)) => taken_out = true,
                _ => inner.add_within(entry, names, around),
            }
        }
        around.pop();
        if taken_out {
            self.loose_ranges.append(&mut inner.ranges);
        }
        self.ranges.append(&mut inner.ranges);
        self.loose_ranges.append(&mut inner.loose_ranges);
        self.settled.append(&mut inner.settled);
        self.people.append(&mut inner.people);
        self.unknown.append(&mut inner.unknown);
        self.unsettled |= inner.unsettled;
        self.everything |= inner.everything;
        self.every_tagged |= inner.every_tagged;
        self.members |= inner.members;
        self.roles |= inner.roles;
        self.own |= inner.own;
        self.internet |= inner.internet;
        self.tags.union_with(&inner.tags);
        self.users.extend(inner.users);
        self.groups.extend(inner.groups);
        self.domains.append(&mut inner.domains);
        self.services.extend(inner.services);
    }

    /// Whether it holds every tagged device, whatever its tag.
    pub fn every_tag(&self) -> Truth {
        let every =
            self.everything || self.every_tagged || self.ranges.iter().any(|r| r.covers_tailnet());
        if every {
            return Truth::Yes;
        }
        Truth::perhaps(
            !self.unknown.is_empty()
                || self.ranges.iter().any(|r| r.meets_tailnet())
                || self.loose_ranges.iter().any(|r| r.meets_tailnet()),
        )
    }

    /// Whether it holds every device by its address, people's own among them.
    pub fn every_address(&self) -> Truth {
        if self.everything {
            return Truth::Yes;
        }
        self.every_tag_by_address()
    }

    /// The tags it names.
    pub fn named_tags(&self) -> &BitSet {
        &self.tags
    }

    /// Whether it holds a device with this tag.
    pub fn tag(&self, tag: TagId) -> Truth {
        self.every_tag().max(Truth::of(self.tags.contains(tag)))
    }

    /// Whether it holds networks behind subnet routers, in which a customer's host may answer too.
    pub fn private_networks(&self) -> bool {
        self.ranges
            .iter()
            .chain(&self.loose_ranges)
            .any(|r| r.meets_private() && !r.is_within_tailnet())
    }

    /// Whether it holds what is reached through an exit node or a subnet router.
    pub fn outside(&self) -> bool {
        self.internet || !self.ranges.is_empty() || !self.loose_ranges.is_empty()
    }

    /// The services it names.
    pub fn services(&self) -> impl Iterator<Item = &'d str> {
        self.services.iter().copied()
    }

    /// Whether it holds an entity. `source` is what `autogroup:self` refers to.
    pub fn holds(
        &self,
        entity: &Entity<'d>,
        source: Option<&Entity<'d>>,
        names: &Names<'d>,
    ) -> Truth {
        if self.everything {
            return Truth::Yes;
        }
        let unknown = Truth::perhaps(!self.unknown.is_empty());
        let in_ranges = |address| {
            let mut exact = self.ranges.iter().chain(&self.settled);
            let truth = Truth::of(exact.any(|r| r.contains(address)));
            truth.max(Truth::perhaps(
                self.loose_ranges.iter().any(|r| r.contains(address)),
            ))
        };
        let somewhere = Truth::perhaps(self.every_tag_by_address() > Truth::No);
        unknown.max(match entity {
            Entity::Tag(tag) => self.tag(*tag),
            Entity::User(user) => {
                let domain = user.find('@').map(|at| &user[at..]);
                let named = self.users.contains(user)
                    || domain.is_some_and(|domain| self.domains.contains(&domain))
                    || (self.own && source == Some(entity));
                let in_other_group = self.groups.iter().any(|g| !names.groups.contains_key(g));
                Truth::of(named)
                    .max(self.every_tag_by_address())
                    // Whether somebody is a member of the tailnet, the file cannot know.
                    .max(Truth::perhaps(self.members || self.roles || in_other_group))
            }
            Entity::Group(group) => {
                let members = names
                    .groups
                    .get(group)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let every = !members.is_empty()
                    && members.iter().all(|member| {
                        self.holds(&Entity::User(member), source, names) == Truth::Yes
                    });
                let some = members
                    .iter()
                    .any(|member| self.holds(&Entity::User(member), source, names) > Truth::No);
                let own = self.own && source == Some(entity);
                Truth::of(self.groups.contains(group) || every || own).max(Truth::perhaps(
                    some || self.members
                        || self.roles
                        || somewhere > Truth::No
                        || (!names.groups.contains_key(group)
                            && (!self.groups.is_empty() || !self.users.is_empty())),
                ))
            }
            Entity::Address(address) => {
                let device = address::is_of_tailnet(*address)
                    && (self.every_tagged
                        || !self.tags.is_empty()
                        || self.members
                        || self.roles
                        || self.own
                        || !self.users.is_empty()
                        || !self.groups.is_empty()
                        || !self.domains.is_empty()
                        || !self.services.is_empty());
                in_ranges(*address)
                    .max(Truth::perhaps(device))
                    .max(Truth::of(self.internet && address::is_public(*address)))
            }
            Entity::Service(service) => Truth::of(self.services.contains(service)).max(somewhere),
            Entity::Nothing => Truth::No,
            Entity::Other(text) => Truth::perhaps(*text == "autogroup:internet")
                .max(Truth::of(
                    self.literal.contains(text) && *text != "autogroup:internet",
                ))
                .max(Truth::Perhaps),
        })
    }

    fn every_tag_by_address(&self) -> Truth {
        if self.ranges.iter().any(|r| r.covers_tailnet()) {
            return Truth::Yes;
        }
        let meets = self.ranges.iter().chain(&self.loose_ranges);
        Truth::perhaps(meets.into_iter().any(|r| r.meets_tailnet()))
    }
}

/// What a selector of a test stands for.
pub fn entity<'d>(selector: &'d str, names: &mut Names<'d>) -> Entity<'d> {
    if selector.starts_with("tag:") {
        return Entity::Tag(names.tag(selector));
    }
    if selector.starts_with("group:") {
        return Entity::Group(selector);
    }
    if selector.starts_with("svc:") {
        return Entity::Service(selector);
    }
    let address = names.hosts.get(selector).copied().unwrap_or(selector);
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = address.parse() {
        return Entity::Address(address);
    }
    if address.contains('/') && AddressRange::parse(address).is_some() {
        return Entity::Nothing;
    }
    if selector.contains('@') && !selector.contains(':') {
        return Entity::User(selector);
    }
    Entity::Other(selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_selectors_hold() {
        let mut names = Names::default();
        names.hosts.insert("printer", "100.101.1.1");
        names.hosts.insert("office", "10.1.0.0/16");
        names.groups.insert("group:eng", vec!["a@x.com", "b@x.com"]);
        names
            .groups
            .insert("group:loop", vec!["group:loop", "tag:in-group"]);
        names.ipsets.insert("ipset:all", vec!["add 100.64.0.0/10"]);
        names
            .ipsets
            .insert("ipset:most", vec!["100.64.0.0/10", "remove 100.64.0.1"]);
        names
            .ipsets
            .insert("ipset:nested", vec!["add ipset:all", "add ipset:nested"]);
        let tag = names.tag("tag:x");
        let in_group = names.tag("tag:in-group");
        let mut truth = |selector: &'static str, entity: Entity<'static>| {
            Selection::read([selector], &mut names).holds(&entity, None, &names)
        };
        use Truth::{No, Perhaps, Yes};
        for (selector, expected) in [
            ("*", Yes),
            ("autogroup:danger-all", Yes),
            ("autogroup:tagged", Yes),
            ("tag:x", Yes),
            ("tag:y", No),
            ("autogroup:member", No),
            ("autogroup:admin", No),
            ("autogroup:self", No),
            ("autogroup:internet", No),
            ("autogroup:shared", No),
            ("autogroup:new", Perhaps),
            ("group:eng", No),
            ("group:synced@x.com", No),
            ("user:*@x.com", No),
            ("a@x.com", No),
            ("svc:web", No),
            ("0.0.0.0/0", Yes),
            ("100.64.0.0/10", Yes),
            ("100.100.1.1", Perhaps),
            ("printer", Perhaps),
            ("office", No),
            ("ipset:all", Yes),
            ("ipset:nested", Perhaps.max(Yes)),
            ("ipset:most", Perhaps),
            ("ipset:missing", Perhaps),
            ("nobody", Perhaps),
        ] {
            assert_eq!(truth(selector, Entity::Tag(tag)), expected, "{selector}");
        }
        assert_eq!(truth("group:loop", Entity::Tag(in_group)), Yes);
        for (selector, expected) in [
            ("a@x.com", Yes),
            ("b@x.com", No),
            ("group:eng", Yes),
            ("group:synced@x.com", Perhaps),
            ("autogroup:member", Perhaps),
            ("autogroup:admin", Perhaps),
            ("user:*@x.com", Yes),
            ("user:*@y.com", No),
            ("tag:x", No),
            ("autogroup:tagged", No),
        ] {
            assert_eq!(
                truth(selector, Entity::User("a@x.com")),
                expected,
                "{selector}"
            );
        }
        assert_eq!(truth("a@x.com", Entity::Group("group:eng")), Perhaps);
        assert_eq!(truth("group:eng", Entity::Group("group:eng")), Yes);
        let printer = Entity::Address("100.101.1.1".parse().unwrap());
        assert_eq!(truth("printer", printer.clone()), Yes);
        assert_eq!(truth("tag:x", printer.clone()), Perhaps);
        assert_eq!(truth("office", printer), No);
    }
}
