//! What is done to which command, and what the world must look like when the same command was run again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Ended, M8TRX, Surroundings, files_below};
use crate::proxy::{Call, Fault, Proxy};
use crate::world::World;

/// A command that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Onboard,
    RotateBrainKey,
    RotateBrainKeyAtOnce,
    RotateTailscaleKey,
    MintKey,
    Offboard,
}

use Subject::{
    MintKey, Offboard, Onboard, RotateBrainKey, RotateBrainKeyAtOnce, RotateTailscaleKey,
};

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Onboard => "onboard",
            RotateBrainKey => "rotate-brain-key",
            RotateBrainKeyAtOnce => "rotate-brain-key --revoke-at-once",
            RotateTailscaleKey => "rotate-tailscale-key",
            MintKey => "mint-key --store",
            Offboard => "offboard",
        }
    }

    pub fn arguments(self, customer: &str) -> Vec<&str> {
        match self {
            Onboard => vec!["onboard", customer, "--yes"],
            RotateBrainKey => vec!["rotate-brain-key", customer, "--yes"],
            RotateBrainKeyAtOnce => vec!["rotate-brain-key", customer, "--revoke-at-once", "--yes"],
            RotateTailscaleKey => vec!["rotate-tailscale-key", customer, "--yes"],
            MintKey => vec!["mint-key", customer, "--store", "--yes"],
            Offboard => vec!["offboard", customer, "--yes", "--confirm", customer],
        }
    }

    /// Brings a customer to where the command begins.
    pub fn prepare(self, world: &World, customer: &str) {
        if matches!(self, Onboard) {
            return;
        }
        // Everything an onboarding leaves, without a host: nothing is waited for.
        world.fleet.settle(customer, 1, None);
        world.terminate_hosts(customer);
        for key in world.brain_keys(customer) {
            world.revoke_brain_key(&key.id);
        }
        let ended = plain(world, &["tailnet", "apply", customer, "--yes"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        if self == MintKey {
            return;
        }
        let ended = plain(world, &MintKey.arguments(customer));
        assert_eq!(ended.code, 0, "{ended:?}");
    }
}

/// Runs a command with nothing in its way.
pub fn plain(world: &World, arguments: &[&str]) -> Ended {
    let proxy = Proxy::before(world.servers, |_, _| None);
    world.surroundings(&proxy).m8trx(arguments)
}

/// What was found wrong with a case.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    pub wrong: Vec<String>,
    /// Valid keys that no parameter holds and that nobody was told of.
    pub orphans: Vec<String>,
    pub leaks: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.orphans.is_empty() && self.leaks.is_empty()
    }
}

static CUSTOMERS: AtomicUsize = AtomicUsize::new(0);

/// A customer nobody else has.
pub fn customer() -> String {
    format!("cust_t{}", CUSTOMERS.fetch_add(1, Ordering::SeqCst))
}

/// The calls of an undisturbed run that change something.
pub fn changes(world: &World, subject: Subject) -> Vec<Call> {
    let customer = customer();
    subject.prepare(world, &customer);
    let proxy = Proxy::before(world.servers, |_, _| None);
    let ended = world
        .surroundings(&proxy)
        .m8trx(&subject.arguments(&customer));
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut calls = proxy.calls();
    calls.retain(|call| call.changes);
    calls
}

/// Starts a command whose process the proxy may kill, and waits for its end.
pub fn run(surroundings: &Surroundings, proxy: &Proxy, arguments: &[&str]) -> Ended {
    let child = surroundings
        .command(M8TRX)
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    proxy.watch(child.id());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same command with one fault at its n-th change, and then again without.
pub fn faulted(world: &World, subject: Subject, number: usize, fault: Fault) -> Verdict {
    let customer = customer();
    subject.prepare(world, &customer);
    let proxy = Proxy::before(world.servers, move |_, change| {
        (change == Some(number)).then_some(fault)
    });
    let surroundings = world.surroundings(&proxy);
    let first = run(&surroundings, &proxy, &subject.arguments(&customer));
    let mut verdict = Verdict::default();
    let struck = proxy.calls().iter().any(|call| call.fault.is_some());
    if !struck {
        verdict.wrong.push("no call was struck".to_owned());
    }
    let killed = matches!(fault, Fault::KillBefore | Fault::KillAfter);
    if killed != (first.code == -1) {
        verdict
            .wrong
            .push(format!("ended with {}: {}", first.code, first.stderr));
    }
    if first.stderr.contains("somebody else") {
        verdict
            .wrong
            .push(format!("blames somebody else: {}", first.stderr));
    }
    check_words(&first, &mut verdict);
    let mut told = first.stdout.clone() + &first.stderr;
    if first.code != 0 {
        let second = run(&surroundings, &proxy, &subject.arguments(&customer));
        if second.code != 0 {
            verdict.wrong.push(format!(
                "the same command again ended with {}: {}",
                second.code, second.stderr
            ));
        }
        told.push_str(&second.stdout);
        told.push_str(&second.stderr);
    }
    judge(world, subject, &customer, &told, &mut verdict);
    leaks(world, &proxy, &surroundings, &told, &mut verdict);
    end(world, subject, &customer, &mut verdict);
    verdict
}

/// Words that say nothing.
fn check_words(ended: &Ended, verdict: &mut Verdict) {
    for nothing in ["Unknown: no message", "panicked at"] {
        if ended.stderr.contains(nothing) {
            verdict.wrong.push(format!("says: {}", ended.stderr));
        }
    }
}

/// What must hold of a customer after its command came to its end.
pub fn judge(world: &World, subject: Subject, customer: &str, told: &str, verdict: &mut Verdict) {
    let brain_key = world.stored(&format!("/m8trx/{customer}/brain-key"));
    let auth_key = world.stored(&format!("/m8trx/{customer}/tailscale-auth-key"));
    let keys = world.brain_keys(customer);
    let hosts = world.hosts(customer);
    if subject == Offboard {
        if brain_key.is_some() || auth_key.is_some() || !hosts.is_empty() {
            verdict.wrong.push("something is left".to_owned());
        }
        for key in keys {
            verdict
                .orphans
                .push(format!("brain key {} ({})", key.id, key.label));
        }
        for id in world.auth_keys(customer) {
            verdict.orphans.push(format!("auth key {id}"));
        }
        return;
    }
    let expected = usize::from(subject == Onboard);
    if hosts.len() != expected {
        verdict.wrong.push(format!("hosts: {hosts:?}"));
    }
    let Some(brain_key) = brain_key else {
        verdict.wrong.push("no brain key is stored".to_owned());
        return;
    };
    if !world.brain_takes(&brain_key.value) {
        verdict
            .wrong
            .push("the brain refuses the stored key".to_owned());
    }
    let tag = |name: &str| {
        let found = brain_key.tags.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    for left in ["BrainKeyRotation", "BrainKeyIdNew", "BrainKeyIdOld"] {
        if let Some(value) = tag(left) {
            verdict
                .wrong
                .push(format!("the tag {left}={value} is left"));
        }
    }
    for key in keys {
        if brain_key.value.starts_with(&key.prefix) {
            if tag("BrainKeyId").as_deref() != Some(&key.id) {
                verdict.wrong.push(format!(
                    "the stored key is {}, and its tag says {:?}",
                    key.id,
                    tag("BrainKeyId")
                ));
            }
        } else if !told.contains(&key.id) {
            verdict
                .orphans
                .push(format!("brain key {} ({})", key.id, key.label));
        }
    }
    let Some(auth_key) = auth_key else {
        verdict.wrong.push("no auth key is stored".to_owned());
        return;
    };
    let good = world.auth_keys(customer);
    let stored = |id: &String| auth_key.value.starts_with(&format!("tskey-auth-{id}-"));
    if !good.iter().any(stored) {
        verdict.wrong.push("the stored auth key is dead".to_owned());
    }
    for id in good.iter().filter(|id| !stored(id)) {
        if !told.contains(id.as_str()) {
            verdict.orphans.push(format!("auth key {id}"));
        }
    }
}

/// An offboarding afterwards leaves nothing valid.
pub fn end(world: &World, subject: Subject, customer: &str, verdict: &mut Verdict) {
    if subject == Offboard {
        return;
    }
    let ended = plain(world, &Offboard.arguments(customer));
    if ended.code != 0 {
        verdict.wrong.push(format!(
            "offboard afterwards ended with {}: {}",
            ended.code, ended.stderr
        ));
        return;
    }
    let mut after = Verdict::default();
    judge(world, Offboard, customer, "", &mut after);
    verdict
        .wrong
        .extend(after.wrong.into_iter().map(|w| format!("offboarded: {w}")));
    verdict.wrong.extend(
        after
            .orphans
            .into_iter()
            .map(|orphan| format!("valid after offboard, exit 0: {orphan}")),
    );
}

/// No key that was handed out stands in an output or in a file of the home.
pub fn leaks(
    world: &World,
    proxy: &Proxy,
    surroundings: &Surroundings,
    told: &str,
    verdict: &mut Verdict,
) {
    let secrets: Vec<String> = proxy.secrets().into_iter().chain(world.secrets()).collect();
    let mut look = |place: String, text: &[u8]| {
        for secret in &secrets {
            let found = text
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            if found {
                verdict.leaks.push(place.clone());
            }
        }
    };
    look("the output".to_owned(), told.as_bytes());
    for file in files_below(surroundings.home.path()) {
        let text = std::fs::read(&file).unwrap_or_default();
        look(file.display().to_string(), &text);
    }
}

/// Numbers that a seed reproduces.
#[derive(Clone)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Everybody has a bad day: throttled, lost, ill and slow, in an order that the seed says.
pub fn hostile(world: &World, subject: Subject, seed: u64) -> Verdict {
    let customer = customer();
    subject.prepare(world, &customer);
    let numbers = std::sync::Mutex::new(Seeded::new(seed));
    let proxy = Proxy::before(world.servers, move |_, change| {
        let mut numbers = numbers.lock().unwrap();
        let lost = [Fault::Lost, Fault::Failed, Fault::Cut, Fault::Page];
        match numbers.below(100) {
            0..20 => Some(Fault::Throttled),
            20..25 => Some(Fault::Unavailable),
            25..29 => Some(Fault::Portal),
            29..35 if change.is_some() => Some(lost[numbers.below(4) as usize]),
            35..40 => Some(Fault::Late(Duration::from_millis(numbers.below(400)))),
            _ => None,
        }
    });
    let surroundings = world.surroundings(&proxy);
    let mut verdict = Verdict::default();
    let first = run(&surroundings, &proxy, &subject.arguments(&customer));
    check_words(&first, &mut verdict);
    let mut told = first.stdout.clone() + &first.stderr;
    leaks(world, &proxy, &surroundings, &told, &mut verdict);
    if first.code != 0 {
        // Again, on a better day.
        let second = plain(world, &subject.arguments(&customer));
        told.push_str(&second.stdout);
        told.push_str(&second.stderr);
        if second.code != 0 {
            verdict.wrong.push(format!(
                "first: {}\nagain: {}: {}",
                first.stderr, second.code, second.stderr
            ));
        }
    }
    judge(world, subject, &customer, &told, &mut verdict);
    end(world, subject, &customer, &mut verdict);
    verdict
}

/// Two operators at once, each with stalls of its own.
pub fn race(world: &World, first: Subject, second: Subject, seed: u64) -> Verdict {
    let customer = customer();
    first.prepare(world, &customer);
    let mut verdict = Verdict::default();
    let told: Vec<Ended> = std::thread::scope(|scope| {
        let operators: Vec<_> = [first, second]
            .into_iter()
            .enumerate()
            .map(|(who, subject)| {
                let customer = &customer;
                scope.spawn(move || {
                    let seeded = Seeded::new(seed * 2 + who as u64 + 1);
                    let numbers = std::sync::Mutex::new(seeded);
                    let proxy = Proxy::before(world.servers, move |_, change| {
                        let mut numbers = numbers.lock().unwrap();
                        let stalls = change.is_some() && numbers.below(3) == 0;
                        let pause = Duration::from_millis(300 * (1 + numbers.below(4)));
                        stalls.then_some(Fault::Late(pause))
                    });
                    let surroundings = world.surroundings(&proxy);
                    surroundings.m8trx(&subject.arguments(customer))
                })
            })
            .collect();
        operators
            .into_iter()
            .map(|operator| operator.join().unwrap())
            .collect()
    });
    if told.iter().all(|ended| ended.code != 0) {
        verdict.wrong.push(format!("nobody won: {told:?}"));
    }
    for ended in &told {
        check_words(ended, &mut verdict);
        if ![0, 3].contains(&ended.code) {
            verdict
                .wrong
                .push(format!("ended with {}: {}", ended.code, ended.stderr));
        }
    }
    let told: String = told.iter().map(|e| e.stdout.clone() + &e.stderr).collect();
    judge(world, first, &customer, &told, &mut verdict);
    end(world, first, &customer, &mut verdict);
    verdict
}
