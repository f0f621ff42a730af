//! Whether a policy file isolates customers, for every ordered pair of them.
//!
//! Rules only ever add, so two customers are apart when no rule has one as source and another as destination. That is
//! decided rule by rule: a million pairs cost as much as the file is long.

use bit_set::BitSet;

use super::claims;
use super::expectations;
use super::hujson::Document;
use super::model::{BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, Rule, SshRule, TEAM_TAG};
pub use super::report::{Finding, Kind, Report};
use super::selection::{Selection, TagId};
use super::traffic::TCP;
use super::truth::Truth;

/// Checks a policy file of a tailnet whose brain has this port.
pub fn check(document: &Document, brain_port: u16) -> Report {
    check_policy(Policy::read(document), brain_port)
}

/// As [`check`], of a file that was read already.
pub fn check_policy(mut policy: Policy<'_>, brain_port: u16) -> Report {
    let document = policy.document;
    let (tests, mut violations) = expectations::evaluate(&mut policy);
    violations.extend(claims::examine(&policy));
    let mut notes = Vec::new();
    violations.extend(policy.problems.iter().map(|problem| {
        let refused = problem.what.contains("Tailscale refuses");
        let kind = if refused {
            Kind::Invalid
        } else {
            Kind::NotUnderstood
        };
        Finding::new(
            kind,
            document,
            &problem.path,
            problem.at,
            problem.what.clone(),
        )
    }));
    let walls = Walls::new(&mut policy, brain_port);
    walls.rules(&mut violations, &mut notes);
    walls.ways(&mut violations);
    walls.surroundings(&mut violations, &mut notes);
    if tests.undecided > 0 {
        let what = format!(
            "{} assertions of the file's own tests depend on what the file does not say",
            tests.undecided
        );
        notes.push(Finding::new(Kind::Undecided, document, "tests", 0, what));
    }
    violations.sort_by_key(|finding| (finding.kind, finding.at));
    notes.sort_by_key(|finding| (finding.kind, finding.at));
    let count = walls.customers as u64;
    Report {
        customers: walls.customers,
        pairs: count * count.saturating_sub(1),
        rules: walls.policy.rules.len() + walls.policy.ssh.len(),
        tests,
        violations,
        names_addresses: walls.policy.rules.iter().any(Rule::is_unsettled),
        notes,
    }
}

/// What the check looks at: the customers, and two made-up ones where there are fewer than two, so that a rule that would
/// connect the next customers is found today.
struct Walls<'p, 'd> {
    policy: &'p Policy<'d>,
    brain_port: u16,
    customers: usize,
    all: Vec<TagId>,
    set: BitSet,
    brain: TagId,
    team: TagId,
    operator: TagId,
}

impl<'p, 'd> Walls<'p, 'd> {
    fn new(policy: &'p mut Policy<'d>, brain_port: u16) -> Self {
        let customers = policy.customers.len();
        let mut all = policy.customers.clone();
        for name in ["next", "one-more"]
            .iter()
            .take(2usize.saturating_sub(customers))
        {
            all.push(policy.names.tag(&format!("{CUSTOMER_PREFIX}{name}")));
        }
        Self {
            brain_port,
            customers,
            set: all.iter().copied().collect(),
            all,
            brain: policy.names.tag(BRAIN_TAG),
            team: policy.names.tag(TEAM_TAG),
            operator: policy.names.tag(OPERATOR_TAG),
            policy,
        }
    }

    /// The customers that a selection holds or may hold: the first two, with how surely; and how many.
    fn held(&self, selection: &Selection<'d>) -> Held {
        let every = selection.every_tag();
        let mut named = selection.named_tags().clone();
        named.intersect_with(&self.set);
        if every == Truth::Yes {
            named = self.set.clone();
        }
        let mut first: Vec<(TagId, Truth)> =
            named.iter().take(2).map(|tag| (tag, Truth::Yes)).collect();
        if every == Truth::Perhaps {
            let others = self.all.iter().filter(|tag| !named.contains(**tag));
            first.extend(others.take(2).map(|tag| (*tag, Truth::Perhaps)));
            named = self.set.clone();
        }
        Held { first, all: named }
    }

    fn rules(&self, violations: &mut Vec<Finding>, notes: &mut Vec<Finding>) {
        let document = self.policy.document;
        if !self.policy.has_rules {
            let what = "there is neither `grants` nor `acls`: Tailscale then lets everything through; an empty list lets nothing through".to_owned();
            violations.push(
                Finding::new(Kind::CustomersConnected, document, "the file", 0, what).between(
                    self.policy.names.tag_name(self.all[0]),
                    self.policy.names.tag_name(self.all[1]),
                    Some("tcp:22".to_owned()),
                ),
            );
        }
        let mut reached = BitSet::new();
        for rule in &self.policy.rules {
            let sources = self.held(&rule.src);
            if rule.opens() {
                self.private_networks_as_sources(rule, violations);
            }
            let opens = !sources.first.is_empty() && rule.opens();
            for target in rule.targets.iter().filter(|_| opens) {
                let port = match target.traffic.first() {
                    Some(traffic) => traffic.example(),
                    None if rule.app => "app".to_owned(),
                    None => continue,
                };
                reached.union_with(target.dst.named_tags());
                self.target(rule, &sources, &target.dst, &port, violations, notes);
                let brain_only = target
                    .traffic
                    .iter()
                    .all(|traffic| traffic.is_just(self.brain_port));
                if target.dst.tag(self.brain) == Truth::Yes && !brain_only {
                    let source = self.policy.names.tag_name(sources.first[0].0);
                    let what = format!(
                        "{source} reaches more of {BRAIN_TAG} than tcp:{}",
                        self.brain_port
                    );
                    notes.push(
                        Finding::new(Kind::ReachesMore, document, &rule.path, rule.at, what)
                            .between(source, BRAIN_TAG, Some(port.clone())),
                    );
                }
            }
            self.routers(rule, violations);
        }
        self.two_hops(&reached, notes);
        for rule in &self.policy.ssh {
            self.ssh(rule, violations, notes);
        }
    }

    /// Traffic that leads through a customer's host.
    fn routers(&self, rule: &Rule<'d>, violations: &mut Vec<Finding>) {
        let Some(via) = &rule.via else { return };
        let (sources, routers) = (self.held(&rule.src), self.held(via));
        let place = (rule.path.as_str(), rule.at);
        if let Some(pair) = pair(&sources, &routers) {
            let what = "its traffic leads through another customer's host".to_owned();
            violations.push(self.connected(place, &sources, &routers, pair, "via", what));
        } else if let Some((router, _)) = routers.first.first() {
            let router = self.policy.names.tag_name(*router);
            let what = format!(
                "a host with {router} is a router for this rule, and sees the traffic of others"
            );
            violations.push(
                Finding::new(
                    Kind::RoutesClaimable,
                    self.policy.document,
                    &rule.path,
                    rule.at,
                    what,
                )
                .between("others", router, Some("via".to_owned())),
            );
        }
    }

    /// A customer's host may have an address in a private network as well, from which it comes through a subnet router.
    fn private_networks_as_sources(&self, rule: &Rule<'d>, violations: &mut Vec<Finding>) {
        if rule.src.is_everything() || !rule.src.private_networks() {
            return;
        }
        for target in &rule.targets {
            let (Some(traffic), Some((to, _))) = (
                target.traffic.first(),
                self.held(&target.dst).first.first().copied(),
            ) else {
                continue;
            };
            let to = self.policy.names.tag_name(to);
            let what = format!(
                "private networks, from which another customer's host may come through a subnet router, reach {to}"
            );
            violations.push(
                Finding::new(
                    Kind::CustomersConnected,
                    self.policy.document,
                    &rule.path,
                    rule.at,
                    what,
                )
                .between("a private network", to, Some(traffic.example())),
            );
        }
    }

    /// Devices that customers reach and that reach customers: who takes one over gets from one to another.
    fn two_hops(&self, reached: &BitSet, notes: &mut Vec<Finding>) {
        let mut told = BitSet::new();
        for rule in &self.policy.rules {
            for target in &rule.targets {
                let to = self.held(&target.dst);
                let (Some((customer, _)), false) = (to.first.first(), target.traffic.is_empty())
                else {
                    continue;
                };
                for tag in rule.src.named_tags() {
                    let passed = reached.contains(tag)
                        && !self.set.contains(tag)
                        && ![self.team, self.operator].contains(&tag)
                        && told.insert(tag);
                    if passed {
                        let names = &self.policy.names;
                        let (tag, customer) = (names.tag_name(tag), names.tag_name(*customer));
                        let what = format!(
                            "customers reach {tag}, and {tag} reaches {customer}: who takes over a device with it gets from one customer to another"
                        );
                        notes.push(
                            Finding::new(
                                Kind::TwoHops,
                                self.policy.document,
                                &rule.path,
                                rule.at,
                                what,
                            )
                            .between(tag, customer, None),
                        );
                    }
                }
            }
        }
    }

    fn ssh(&self, rule: &SshRule<'d>, violations: &mut Vec<Finding>, notes: &mut Vec<Finding>) {
        let (sources, destinations) = (self.held(&rule.src), self.held(&rule.dst));
        let place = (rule.path.as_str(), rule.at);
        if let Some(pair) = pair(&sources, &destinations) {
            let what = "an SSH rule lets a customer into another customer's host".to_owned();
            violations.push(self.connected(place, &sources, &destinations, pair, "ssh", what));
        }
        self.exposed(place, &sources, &rule.dst, "ssh", violations);
        let Some((source, _)) = sources.first.first() else {
            return;
        };
        let names = &self.policy.names;
        let source = names.tag_name(*source);
        let finding = |kind, to: &str| {
            let what = format!("an SSH rule lets {source} into {to}");
            Finding::new(kind, self.policy.document, &rule.path, rule.at, what).between(
                source,
                to,
                Some("ssh".to_owned()),
            )
        };
        if rule.dst.tag(self.brain) > Truth::No {
            violations.push(finding(Kind::BrainExposed, BRAIN_TAG));
        }
        for tag in self.others(&rule.dst) {
            notes.push(finding(Kind::ReachesMore, names.tag_name(tag)));
        }
    }

    /// Named tags that are not of the design.
    fn others<'s>(&'s self, selection: &'s Selection<'d>) -> impl Iterator<Item = TagId> + 's {
        selection.named_tags().iter().filter(|tag| {
            !self.set.contains(*tag) && ![self.brain, self.team, self.operator].contains(tag)
        })
    }

    fn target(
        &self,
        rule: &Rule<'d>,
        sources: &Held,
        dst: &Selection<'d>,
        port: &str,
        violations: &mut Vec<Finding>,
        notes: &mut Vec<Finding>,
    ) {
        let place = (rule.path.as_str(), rule.at);
        let destinations = self.held(dst);
        if let Some(pair) = pair(sources, &destinations) {
            let mut finding =
                self.connected(place, sources, &destinations, pair, port, String::new());
            // One rule is one violation: whom else it exposes stands beside.
            let mut beside: Vec<&str> = [(self.team, TEAM_TAG), (self.operator, OPERATOR_TAG)]
                .into_iter()
                .filter(|(tag, _)| dst.tag(*tag) > Truth::No)
                .map(|(_, name)| name)
                .collect();
            if dst.every_address() > Truth::No || dst.people().is_some() {
                beside.push("people's own devices");
            }
            if !beside.is_empty() {
                finding
                    .what
                    .push_str(&format!("; it opens {} too", beside.join(", ")));
            }
            violations.push(finding);
            return;
        }
        self.exposed(place, sources, dst, port, violations);
        let source = self.policy.names.tag_name(sources.first[0].0);
        let note = |kind, to: &str, what: String| {
            Finding::new(kind, self.policy.document, &rule.path, rule.at, what).between(
                source,
                to,
                Some(port.to_owned()),
            )
        };
        if dst.private_networks() {
            let what = format!(
                "{source} reaches private networks, in which another customer's host may answer through a subnet router"
            );
            violations.push(note(Kind::CustomersConnected, "a private network", what));
        } else if dst.outside() {
            let what = format!("{source} reaches addresses outside the tailnet");
            notes.push(note(Kind::ReachesMore, "outside", what));
        }
        for tag in self.others(dst) {
            let to = self.policy.names.tag_name(tag);
            notes.push(note(
                Kind::ReachesMore,
                to,
                format!("{source} reaches {to}"),
            ));
        }
        for service in dst.services() {
            let what = format!("{source} reaches the service {service}");
            notes.push(note(Kind::ReachesMore, service, what));
        }
    }

    fn exposed(
        &self,
        (path, at): (&str, usize),
        sources: &Held,
        dst: &Selection<'d>,
        port: &str,
        violations: &mut Vec<Finding>,
    ) {
        let Some((source, truth)) = sources.first.first() else {
            return;
        };
        for tag in [self.team, self.operator] {
            let reached = dst.tag(tag).min(*truth);
            if reached == Truth::No {
                continue;
            }
            let names = &self.policy.names;
            let (source, to) = (names.tag_name(*source), names.tag_name(tag));
            let what = format!("{source} {} {to}", reaches(reached));
            violations.push(
                Finding::new(Kind::TeamExposed, self.policy.document, path, at, what).between(
                    source,
                    to,
                    Some(port.to_owned()),
                ),
            );
        }
        if let Some(people) = dst.people() {
            let source = self.policy.names.tag_name(*source);
            let what = format!(
                "{source} {} people's own devices ({people})",
                reaches(*truth)
            );
            violations.push(
                Finding::new(Kind::TeamExposed, self.policy.document, path, at, what).between(
                    source,
                    people,
                    Some(port.to_owned()),
                ),
            );
        }
    }

    fn connected(
        &self,
        (path, at): (&str, usize),
        sources: &Held,
        destinations: &Held,
        (source, destination, truth): (TagId, TagId, Truth),
        port: &str,
        what: String,
    ) -> Finding {
        let names = &self.policy.names;
        let (source, destination) = (names.tag_name(source), names.tag_name(destination));
        let mut both = sources.all.clone();
        both.intersect_with(&destinations.all);
        let pairs =
            (sources.all.count() as u64) * (destinations.all.count() as u64) - both.count() as u64;
        let made_up = self.customers < 2;
        let mut text = format!("{source} {} {destination} by {port}", reaches(truth));
        if pairs > 1 && !made_up {
            text.push_str(&format!(
                "; {pairs} pairs of customers are connected by this rule"
            ));
        }
        if made_up {
            text.push_str(" as soon as there are such customers");
        }
        if !what.is_empty() {
            text = format!("{what}: {text}");
        }
        let mut finding = Finding::new(
            Kind::CustomersConnected,
            self.policy.document,
            path,
            at,
            text,
        )
        .between(source, destination, Some(port.to_owned()));
        finding.pairs = (!made_up).then_some(pairs);
        finding
    }

    /// What must be reached: the brain by every customer, every customer by the team.
    fn ways(&self, violations: &mut Vec<Finding>) {
        let policy = self.policy;
        let everything = !policy.has_rules;
        let brain = policy.customers_reaching(self.brain, TCP, self.brain_port);
        let network = policy.customers_reached(self.team, TCP, 22);
        let ssh = policy.customers_with_ssh(self.team);
        for customer in &policy.customers {
            let name = policy.names.tag_name(*customer);
            let at = policy
                .tag_owners
                .iter()
                .find(|owner| owner.tag == *customer)
                .map(|owner| owner.at)
                .or_else(|| policy.used_tags.get(customer).copied())
                .unwrap_or(0);
            let finding = |kind, what| Finding::new(kind, policy.document, name, at, what);
            if !brain.contains(*customer) && !everything {
                let what = format!(
                    "no rule lets {name} reach {BRAIN_TAG} by tcp:{}",
                    self.brain_port
                );
                violations.push(finding(Kind::BrainUnreachable, what).between(
                    name,
                    BRAIN_TAG,
                    Some(format!("tcp:{}", self.brain_port)),
                ));
            }
            let missing = match (
                network.contains(*customer) || everything,
                ssh.contains(*customer),
            ) {
                (true, true) => continue,
                (false, true) => "no rule lets it reach the host by tcp:22",
                (true, false) => "no SSH rule lets it in",
                (false, false) => {
                    "no rule lets it reach the host by tcp:22, and no SSH rule lets it in"
                }
            };
            let what = format!("{TEAM_TAG} does not get into {name}: {missing}");
            violations.push(finding(Kind::SshUnreachable, what).between(
                TEAM_TAG,
                name,
                Some("tcp:22".to_owned()),
            ));
        }
    }

    /// Routes that a customer's host may announce by itself, and ways in from the internet.
    fn surroundings(&self, violations: &mut Vec<Finding>, notes: &mut Vec<Finding>) {
        let document = self.policy.document;
        for approver in &self.policy.approvers {
            if let Some((tag, _)) = self.held(&approver.who).first.first() {
                let tag = self.policy.names.tag_name(*tag);
                let what = format!(
                    "a host with {tag} may announce routes without being approved, and draw others' traffic to itself"
                );
                violations.push(Finding::new(
                    Kind::RoutesClaimable,
                    document,
                    &approver.path,
                    approver.at,
                    what,
                ));
            }
        }
        for attribute in &self.policy.attributes {
            if let Some((tag, _)) = self.held(&attribute.connectors).first.first() {
                let tag = self.policy.names.tag_name(*tag);
                let what = format!(
                    "a host with {tag} is an app connector, through which others' traffic leads"
                );
                violations.push(Finding::new(
                    Kind::RoutesClaimable,
                    document,
                    &attribute.path,
                    attribute.at,
                    what,
                ));
            }
            let funnel = attribute.attr.iter().any(|attr| attr.starts_with("funnel"));
            if funnel && let Some((tag, _)) = self.held(&attribute.target).first.first() {
                let tag = self.policy.names.tag_name(*tag);
                let what = format!("a host with {tag} may open itself to the internet by Funnel");
                notes.push(Finding::new(
                    Kind::Funnel,
                    document,
                    &attribute.path,
                    attribute.at,
                    what,
                ));
            }
        }
    }
}

/// Customers that a selection holds.
struct Held {
    /// Two of them, with how surely.
    first: Vec<(TagId, Truth)>,
    /// All of them.
    all: BitSet,
}

/// A source and another customer as destination, the surest there is.
fn pair(sources: &Held, destinations: &Held) -> Option<(TagId, TagId, Truth)> {
    sources
        .first
        .iter()
        .flat_map(|(source, from)| {
            destinations
                .first
                .iter()
                .filter(move |(destination, _)| source != destination)
                .map(move |(destination, to)| (*source, *destination, (*from).min(*to)))
        })
        .max_by_key(|(_, _, truth)| *truth)
}

fn reaches(truth: Truth) -> &'static str {
    if truth == Truth::Yes {
        "reaches"
    } else {
        "may reach"
    }
}
