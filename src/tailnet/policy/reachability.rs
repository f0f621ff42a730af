//! Who reaches whom under a policy: for one pair, and for all customers at once.

use bit_set::BitSet;

use super::model::{Policy, Rule, SshRule};
use super::selection::{Entity, Selection, TagId};
use super::truth::Truth;

/// What the SSH rules say about one login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SshAnswer {
    /// Whether it is let in at once.
    pub accept: Truth,
    /// Whether it is let in after signing in again; that goes before `accept`.
    pub check: Truth,
}

impl Rule<'_> {
    fn holds_if(&self, truth: Truth) -> Truth {
        if self.conditional {
            truth.min(Truth::Perhaps)
        } else {
            truth
        }
    }

    /// Whether it names a single address of which it is not known whose it is.
    pub fn is_unsettled(&self) -> bool {
        self.src.is_unsettled() || self.targets.iter().any(|target| target.dst.is_unsettled())
    }

    /// Whether it opens anything at all.
    pub fn opens(&self) -> bool {
        self.app || self.targets.iter().any(|target| !target.traffic.is_empty())
    }
}

impl<'d> Policy<'d> {
    /// Whether a port of a destination is reached from a source.
    pub fn reaches(
        &self,
        source: &Entity<'d>,
        destination: &Entity<'d>,
        protocol: u8,
        port: u16,
    ) -> Truth {
        if !self.has_rules {
            return Truth::Yes;
        }
        let mut reached = Truth::No;
        for number in self.rule_index.about(source, destination) {
            let rule = &self.rules[number];
            let from = rule.src.holds(source, None, &self.names);
            if from <= reached {
                continue;
            }
            for target in &rule.targets {
                let by = target
                    .traffic
                    .iter()
                    .map(|traffic| traffic.holds(protocol, port))
                    .max()
                    .unwrap_or(Truth::No);
                if by == Truth::No {
                    continue;
                }
                let to = target.dst.holds(destination, Some(source), &self.names);
                reached = reached.max(rule.holds_if(from.min(to).min(by)));
            }
            if reached == Truth::Yes {
                break;
            }
        }
        reached
    }

    /// What the SSH rules say to a login; whether port 22 is reached is another question.
    pub fn ssh_answer(
        &self,
        source: &Entity<'d>,
        destination: &Entity<'d>,
        user: &str,
    ) -> SshAnswer {
        let mut answer = SshAnswer {
            accept: Truth::No,
            check: Truth::No,
        };
        for number in self.ssh_index.about(source, destination) {
            let rule = &self.ssh[number];
            let from = rule.src.holds(source, None, &self.names);
            if from == Truth::No {
                continue;
            }
            let to = rule.dst.holds(destination, Some(source), &self.names);
            let mut truth = from.min(to).min(rule.lets_in(source, user));
            if rule.conditional {
                truth = truth.min(Truth::Perhaps);
            }
            let place = if rule.check {
                &mut answer.check
            } else {
                &mut answer.accept
            };
            *place = truth.max(*place);
        }
        answer
    }

    /// The customers from which a port of `tag` is proven to be reached.
    pub fn customers_reaching(&self, tag: TagId, protocol: u8, port: u16) -> BitSet {
        let mut found = BitSet::new();
        for rule in self.rules.iter().filter(|rule| !rule.conditional) {
            let reached = rule.targets.iter().any(|target| {
                target.dst.tag(tag) == Truth::Yes
                    && target
                        .traffic
                        .iter()
                        .any(|traffic| traffic.holds(protocol, port) == Truth::Yes)
            });
            if reached {
                self.add_proven(&mut found, &rule.src);
            }
        }
        found
    }

    /// The customers of which a port is proven to be reached from `tag`.
    pub fn customers_reached(&self, tag: TagId, protocol: u8, port: u16) -> BitSet {
        let mut found = BitSet::new();
        for rule in self.rules.iter().filter(|rule| !rule.conditional) {
            if rule.src.tag(tag) != Truth::Yes {
                continue;
            }
            for target in &rule.targets {
                let open = target
                    .traffic
                    .iter()
                    .any(|traffic| traffic.holds(protocol, port) == Truth::Yes);
                if open {
                    self.add_proven(&mut found, &target.dst);
                }
            }
        }
        found
    }

    /// The customers into which an SSH rule is proven to let `tag`.
    pub fn customers_with_ssh(&self, tag: TagId) -> BitSet {
        let mut found = BitSet::new();
        for rule in &self.ssh {
            let lets_in = !rule.conditional && !rule.check && !rule.users.is_empty();
            if lets_in && rule.src.tag(tag) == Truth::Yes {
                self.add_proven(&mut found, &rule.dst);
            }
        }
        found
    }

    fn add_proven(&self, found: &mut BitSet, selection: &Selection<'d>) {
        if selection.every_tag() == Truth::Yes {
            found.extend(self.customers.iter().copied());
        } else {
            found.union_with(selection.named_tags());
        }
    }
}

impl SshRule<'_> {
    /// Whether it lets somebody in as a user of the machine.
    fn lets_in(&self, source: &Entity<'_>, user: &str) -> Truth {
        if self.users.is_empty() {
            // The name is then the one that the person has on the other machine.
            return Truth::Perhaps;
        }
        let fits = |entry: &&str| {
            if *entry == "autogroup:nonroot" {
                return Truth::of(user != "root");
            }
            if let Some(domain) = entry.strip_prefix("localpart:*") {
                return match source {
                    Entity::User(login) => {
                        Truth::of(login.strip_suffix(domain).is_some_and(|part| part == user))
                    }
                    Entity::Tag(_) => Truth::No,
                    _ => Truth::Perhaps,
                };
            }
            Truth::of(*entry == user || *entry == "*")
        };
        self.users.iter().map(fits).max().unwrap_or(Truth::No)
    }
}
