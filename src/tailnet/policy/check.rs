//! Whether a policy file isolates customers, for every ordered pair of them.
//!
//! Rules only ever add, so two customers are apart when no rule has one as source and another as destination. That is
//! decided rule by rule: a million pairs cost as much as the file is long.

use bit_set::BitSet;

use super::claims;
use super::expectations;
use super::hujson::Document;
use super::model::{BRAIN_PORT, BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, Rule, TEAM_TAG};
pub use super::report::{Finding, Kind, Report};
use super::selection::{Selection, TagId};
use super::traffic::{TCP, Traffic};
use super::truth::Truth;

/// Checks a policy file.
pub fn check(document: &Document) -> Report {
    let mut policy = Policy::read(document);
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
    let walls = Walls::new(&mut policy);
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
        notes,
    }
}

/// What the check looks at: the customers, and two made-up ones where there are fewer than two, so that a rule that would
/// connect the next customers is found today.
struct Walls<'p, 'd> {
    policy: &'p Policy<'d>,
    customers: usize,
    all: Vec<TagId>,
    set: BitSet,
    brain: TagId,
    team: TagId,
    operator: TagId,
}

impl<'p, 'd> Walls<'p, 'd> {
    fn new(policy: &'p mut Policy<'d>) -> Self {
        let customers = policy.customers.len();
        let mut all = policy.customers.clone();
        for name in ["next", "one-more"]
            .iter()
            .take(2usize.saturating_sub(customers))
        {
            all.push(policy.names.tag(&format!("{CUSTOMER_PREFIX}{name}")));
        }
        Self {
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
        for rule in &self.policy.rules {
            let sources = self.held(&rule.src);
            if sources.first.is_empty() || !rule.opens() {
                continue;
            }
            for target in &rule.targets {
                let port = match target.traffic.first() {
                    Some(traffic) => traffic.example(),
                    None if rule.app => "app".to_owned(),
                    None => continue,
                };
                self.target(rule, &sources, &target.dst, &port, violations, notes);
                let brain_only = target.traffic.iter().all(Traffic::is_brain_port);
                if target.dst.tag(self.brain) == Truth::Yes && !brain_only {
                    let source = self.policy.names.tag_name(sources.first[0].0);
                    let what =
                        format!("{source} reaches more of {BRAIN_TAG} than tcp:{BRAIN_PORT}");
                    notes.push(
                        Finding::new(Kind::ReachesMore, document, &rule.path, rule.at, what)
                            .between(source, BRAIN_TAG, Some(port.clone())),
                    );
                }
            }
            if let Some(via) = &rule.via {
                let routers = self.held(via);
                if let Some(pair) = pair(&sources, &routers) {
                    let what = "its traffic leads through another customer's host".to_owned();
                    violations.push(self.connected(
                        (&rule.path, rule.at),
                        &sources,
                        &routers,
                        pair,
                        "via",
                        what,
                    ));
                }
            }
        }
        for rule in &self.policy.ssh {
            let (sources, destinations) = (self.held(&rule.src), self.held(&rule.dst));
            let place = (rule.path.as_str(), rule.at);
            if let Some(pair) = pair(&sources, &destinations) {
                let what = "an SSH rule lets a customer into another customer's host".to_owned();
                violations.push(self.connected(place, &sources, &destinations, pair, "ssh", what));
            }
            self.exposed(place, &sources, &rule.dst, "ssh", violations);
        }
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
            violations.push(self.connected(
                place,
                sources,
                &destinations,
                pair,
                port,
                String::new(),
            ));
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
        let others = dst.named_tags().iter().filter(|tag| {
            !self.set.contains(*tag) && ![self.brain, self.team, self.operator].contains(tag)
        });
        for tag in others {
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
        let brain = policy.customers_reaching(self.brain, TCP, BRAIN_PORT);
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
                let what = format!("no rule lets {name} reach {BRAIN_TAG} by tcp:{BRAIN_PORT}");
                violations.push(finding(Kind::BrainUnreachable, what).between(
                    name,
                    BRAIN_TAG,
                    Some(format!("tcp:{BRAIN_PORT}")),
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
