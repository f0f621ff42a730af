"""What `m8trx tailnet policy` prints is loaded with its own tests, and packets prove that it isolates."""
from cast import CUSTOMERS
from probe import QUESTIONS
from network import wait_for

ALL = set(QUESTIONS)


def wanted(source, destination):
    """The questions that shall pass between two devices, by their names."""
    if source == "team" and destination in [*CUSTOMERS, "cust_new", "brain"]:
        return ALL
    if source.startswith("cust_") and destination == "brain":
        return {("tcp", 8080), ("icmp", 0)}  # whoever may reach any port of a host may ping it
    return set()


def shown(found):
    return "\n".join(sorted(f"{source.name} -> {destination.name} {kind}:{port}" for source, destination, kind, port in found)) or "nothing"


def hold(checks, cast, name, text):
    """Loads a policy, and compares every pair of devices, both ways, with what is wanted."""
    refused, held = cast.load(text)
    if not checks.check(f"{name}: the control server takes it, its own tests included", refused is None, refused):
        return
    pairs = cast.pairs()
    passed, allowed = cast.packets(held, pairs, QUESTIONS)
    right = {(source, destination, *question) for source, destination in pairs for question in wanted(source.name, destination.name)}
    between = {question for question in passed if question[0].name.startswith("cust_") and question[1].name.startswith("cust_")}
    checks.check(f"{name}: no packet passes between customers, either way", not between, shown(between))
    checks.check(f"{name}: {len(pairs)} pairs, {len(pairs) * len(QUESTIONS)} questions by tcp, udp and ICMP: packets pass where they shall and nowhere else",
                 passed == right, f"too much: {shown(passed - right)}\nmissing: {shown(right - passed)}")
    checks.check(f"{name}: and the devices' own filters say the same", allowed == right, f"too much: {shown(allowed - right)}\nmissing: {shown(right - allowed)}")


def ssh(cast, source, destination, user="root"):
    """Whether Tailscale SSH gives a shell; what was said."""
    nodes = cast.nodes
    code, said = nodes[source].run("ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3",
                                   "-o", "LogLevel=ERROR", f"{user}@{nodes[destination].ip}", "id -u")
    return code == 0 and said.strip() == "0", said


def tailscale_ssh(checks, cast, name):
    for customer in CUSTOMERS:
        opened, said = ssh(cast, "team", customer)
        checks.check(f"{name}: Tailscale SSH as root from the team to {customer}", opened, said)
    for source, destination in [(a, b) for a in CUSTOMERS for b in CUSTOMERS if a != b] + [(CUSTOMERS[0], "brain"), ("brain", CUSTOMERS[0]),
                                                                                           ("laptop", CUSTOMERS[0]), ("operator", CUSTOMERS[0])]:
        opened, said = ssh(cast, source, destination)
        checks.check(f"{name}: no Tailscale SSH from {source} to {destination}", not opened, said)


def hidden(checks, cast):
    code, said = cast.nodes[CUSTOMERS[0]].tailscale("ping", "--c=1", "--timeout=2s", cast.nodes[CUSTOMERS[1]].ip)
    checks.check("policy of three: tailscale ping does not know another customer's host", code != 0 and "no matching peer" in said, said)


def run(checks, cast):
    """The policy of three customers; then the one fault that would end all isolation, seen by the same packets."""
    hold(checks, cast, "policy of three", cast.policy)
    tailscale_ssh(checks, cast, "policy of three")
    hidden(checks, cast)
    # The control: were these packets blind, they would not see this either.
    broken = cast.policy.replace('"src": ["tag:m8trx-team"],\n      "dst": [\n        "tag:m8trx-brain"',
                                 '"src": ["tag:m8trx-team", "autogroup:tagged"],\n      "dst": [\n        "tag:m8trx-brain"', 1)
    broken = broken[:broken.index('  "tests"')] + "}"
    refused, held = cast.load(broken)
    pairs = [(a, b) for a, b in cast.pairs() if a.name in CUSTOMERS and b.name in CUSTOMERS]
    passed = refused is None and wait_for(lambda: cast.packets(held, pairs, QUESTIONS)[0], 5)
    checks.check("autogroup:tagged among the team's sources: packets pass between all customers, both ways, by every protocol",
                 passed and len(passed) == len(pairs) * len(QUESTIONS), refused or shown(passed or set()))
