//! The file's own `tests` and `sshTests`, evaluated as Tailscale does before it takes a file.

use super::check::{Finding, Kind};
use super::model::{Policy, SshTest, Test};
use super::read::split_ports;
use super::selection::{Entity, entity};
use super::traffic::{self, Protocol, TCP, UDP};
use super::truth::Truth;

/// How the file's own tests end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Expectations {
    /// Assertions that hold.
    pub passed: usize,
    /// Assertions that do not.
    pub failed: usize,
    /// Assertions that depend on what the file does not say.
    pub undecided: usize,
}

struct Judge<'p, 'd> {
    policy: &'p mut Policy<'d>,
    counts: Expectations,
    findings: Vec<Finding>,
}

/// Evaluates the file's own tests: how many hold, and what is wrong with the others.
pub fn evaluate(policy: &mut Policy<'_>) -> (Expectations, Vec<Finding>) {
    let tests = std::mem::take(&mut policy.tests);
    let ssh_tests = std::mem::take(&mut policy.ssh_tests);
    let mut judge = Judge {
        policy,
        counts: Expectations::default(),
        findings: Vec::new(),
    };
    for test in &tests {
        judge.test(test);
    }
    for test in &ssh_tests {
        judge.ssh_test(test);
    }
    let (counts, findings) = (judge.counts, judge.findings);
    policy.tests = tests;
    policy.ssh_tests = ssh_tests;
    (counts, findings)
}

impl<'d> Judge<'_, 'd> {
    /// Counts an assertion: `truth` is whether something is reached, `wanted` whether it should be.
    fn count(&mut self, truth: Truth, wanted: bool, failure: impl FnOnce(&Policy<'d>) -> Finding) {
        match (truth, wanted) {
            (Truth::Yes, true) | (Truth::No, false) => self.counts.passed += 1,
            (Truth::Perhaps, _) => self.counts.undecided += 1,
            (Truth::Yes, false) | (Truth::No, true) => {
                self.counts.failed += 1;
                let finding = failure(self.policy);
                self.findings.push(finding);
            }
        }
    }

    fn malformed(&mut self, kind: Kind, path: &str, at: usize, what: String) {
        self.counts.failed += 1;
        let finding = Finding::new(kind, self.policy.document, path, at, what);
        self.findings.push(finding);
    }

    fn test(&mut self, test: &Test<'d>) {
        let source = entity(test.src, &mut self.policy.names);
        let protocols: Vec<u8> = match test.proto.map(traffic::protocol) {
            None | Some(Some(Protocol::Unnamed)) => vec![TCP, UDP],
            Some(Some(Protocol::Number(number))) => vec![number],
            Some(Some(Protocol::Any) | None) => {
                let what = format!(
                    "its `proto` `{}` is not known",
                    test.proto.unwrap_or_default()
                );
                self.malformed(Kind::TestFails, &test.path, test.at, what);
                return;
            }
        };
        let assertions = test
            .accept
            .iter()
            .map(|entry| (entry, true))
            .chain(test.deny.iter().map(|entry| (entry, false)));
        for ((text, at), wanted) in assertions {
            let (host, port) = split_ports(text);
            let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else {
                let what = format!("`{}` does not end in `:` and one port", text.escape_debug());
                self.malformed(Kind::TestFails, &test.path, *at, what);
                continue;
            };
            let destination = entity(host, &mut self.policy.names);
            let truth = protocols
                .iter()
                .map(|protocol| self.policy.reaches(&source, &destination, *protocol, port))
                .max()
                .unwrap_or(Truth::No);
            self.count(truth, wanted, |policy| {
                let is = if wanted {
                    "is not reached"
                } else {
                    "is reached"
                };
                let wants = if wanted { "accept" } else { "deny" };
                let what = format!(
                    "the test wants `{wants}`, but {text} {is} from {}",
                    test.src
                );
                Finding::new(Kind::TestFails, policy.document, &test.path, *at, what).between(
                    test.src,
                    host,
                    Some(port.to_string()),
                )
            });
        }
    }

    fn ssh_test(&mut self, test: &SshTest<'d>) {
        let source = entity(test.src, &mut self.policy.names);
        for host in &test.dst {
            let destination = entity(host, &mut self.policy.names);
            for (users, wanted) in [
                (&test.accept, "accept"),
                (&test.check, "check"),
                (&test.deny, "deny"),
            ] {
                for user in users {
                    self.login(test, (&source, &destination), host, user, wanted);
                }
            }
        }
    }

    fn login(
        &mut self,
        test: &SshTest<'d>,
        (source, destination): (&Entity<'d>, &Entity<'d>),
        host: &str,
        user: &str,
        wanted: &str,
    ) {
        let answer = self.policy.ssh_answer(source, destination, user);
        let not = |truth: Truth| match truth {
            Truth::Yes => Truth::No,
            Truth::Perhaps => Truth::Perhaps,
            Truth::No => Truth::Yes,
        };
        let truth = match wanted {
            "accept" => answer.accept.min(not(answer.check)),
            "check" => answer.check,
            _ => not(answer.accept.max(answer.check)),
        };
        self.count(truth, true, |policy| {
            let got = match (answer.check, answer.accept) {
                (Truth::Yes, _) => "check",
                (_, Truth::Yes) => "accept",
                _ => "deny",
            };
            let what = format!(
                "the test wants `{wanted}`, but the SSH rules say `{got}` to {} as {user} on {host}",
                test.src
            );
            Finding::new(Kind::SshTestFails, policy.document, &test.path, test.at, what)
                .between(test.src, host, Some("ssh".to_owned()))
        });
    }
}
