"""Policies to judge: ours of three customers with one or two more rules each, over what the control server supports."""
import copy
import json
import random
import re

USER = "op@example.com"  # for the server its one user
A, B, C = "tag:m8trx-cust-acme", "tag:m8trx-cust-b4-smoke", "tag:m8trx-cust-other"
BRAIN, TEAM, OPERATOR = "tag:m8trx-brain", "tag:m8trx-team", "tag:m8trx-operator"

# Why `check` may say more than packets show here. A policy is stricter on purpose when it has one of these; each reason is
# from Tailscale's documentation or from its own service's filters.
PRIVATE = "a private network may have another customer's host behind a subnet router, and a rule opens it to whoever accepts routes"
ADDRESS = "a single address may be any device's: the file does not say whose"
SSH_ALONE = "an SSH rule opens nothing until some other rule opens port 22; the two are edited apart"
CLAIM = "who may claim a customer's tag is that customer, as soon as they do"
ROUTER = "a router or exit node of a customer sees what others send through it"
NOBODY = "a group, user or tag without a device here may have one tomorrow"
SELF = "autogroup:self is each user's own devices; tagged ones are none, but a customer's host that loses its tag is"
IPV6 = "the same range in IPv6, which these packets do not use"


def parsed(text):
    """Our own printed file as data: its comments stand on lines of their own."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    data = json.loads(re.sub(r",(\s*[\]}])", r"\1", text))
    return {key: data[key] for key in ("tagOwners", "grants", "ssh")}


class Builder:
    """Our policy of three customers, to which cases add."""

    def __init__(self, base, addresses):
        self.base, self.ip = base, addresses

    def build(self, grants=(), acls=(), ssh=(), **more):
        data = copy.deepcopy(self.base)
        data["grants"] += [{"src": src, "dst": dst, "ip": ip} for src, dst, ip in grants]
        if acls:
            data["acls"] = [{"action": "accept", "src": src, "dst": dst, **extra} for src, dst, extra in acls]
        data["ssh"] += [{"action": "accept", "src": src, "dst": dst, "users": users} for src, dst, users in ssh]
        for key, value in more.items():
            if isinstance(value, dict) and key in data:
                data[key] |= value
            elif isinstance(value, list) and key in data:
                data[key] += value
            else:
                data[key] = value
        return json.dumps(data, indent=2)

    def systematic(self):
        """(name, text, why check may be stricter)."""
        ip, cases = self.ip, []

        def case(name, why=None, **rules):
            cases.append((name, self.build(**rules), why))
        case("ours")
        # Ports and protocols, from one customer to another.
        for ports in ("tcp:22", "tcp:8080", "tcp:80-443", "udp:53", "udp:9000", "icmp:*", "tcp:*", "udp:*", "*", "443", "1-65535", "tcp:79"):
            case(f"customer to customer, {ports}", grants=[([A], [B], [ports])])
        case("two ports", grants=[([A], [B], ["tcp:80", "udp:53"])])
        # Sources before a customer.
        for source, why in (("*", None), ("autogroup:tagged", None), ("autogroup:member", None), (USER, None), ("group:people", None), ("tag:ci", NOBODY),
                            (TEAM, None), (BRAIN, None), (OPERATOR, None), ("100.64.0.0/10", None), (ip["cust_acme"], ADDRESS), (f"{ip['cust_acme']}/32", ADDRESS),
                            (f"{ip['cust_acme']}/29", ADDRESS), ("someone", ADDRESS), ("range", None), ("10.0.0.0/8", PRIVATE), ("fd7a:115c:a1e0::/48", IPV6)):
            case(f"from {source} to a customer", why, grants=[([source], [B], ["tcp:80"])], groups={"group:people": [USER]},
                 hosts={"someone": ip["cust_acme"], "range": "100.64.0.0/10"}, tagOwners={"tag:ci": [OPERATOR]})
        # Destinations of a customer.
        for target, why in (("*", None), ("autogroup:tagged", None), ("autogroup:member", None), (USER, None), ("group:people", None), ("tag:ci", NOBODY),
                            (TEAM, None), (OPERATOR, None), (C, None), ("100.64.0.0/10", None), (ip["cust_b4_smoke"], ADDRESS),
                            (f"{ip['cust_b4_smoke']}/32", ADDRESS), (f"{ip['cust_b4_smoke']}/30", ADDRESS), ("someone", ADDRESS), ("range", None),
                            ("10.0.0.0/8", PRIVATE), ("192.168.1.0/24", PRIVATE), ("autogroup:internet", ROUTER), ("fd7a:115c:a1e0::/48", IPV6)):
            case(f"from a customer to {target}", why, grants=[([A], [target], ["tcp:443"])], groups={"group:people": [USER]},
                 hosts={"someone": ip["cust_b4_smoke"], "range": "100.64.0.0/10"}, tagOwners={"tag:ci": [OPERATOR]})
        case("from a customer to the brain, every port", grants=[([A], [BRAIN], ["*"])])
        case("from a customer to itself", SELF, grants=[(["autogroup:member"], ["autogroup:self"], ["*"])])
        case("every customer to every customer", grants=[([A, B, C], [A, B, C], ["tcp:9000"])])
        case("team and a customer in one rule", grants=[([TEAM, A], [B, C], ["*"])])
        # The older form.
        case("acls: customer to customer", acls=[([A], [f"{B}:22"], {})])
        case("acls: a protocol", acls=[([A], [f"{B}:53"], {"proto": "udp"})])
        case("acls: everything", acls=[(["*"], ["*:*"], {})])
        case("acls: ports", acls=[([B], [f"{C}:80,443,9000-9001"], {})])
        case("acls: icmp", acls=[([B], [f"{C}:*"], {"proto": "icmp"})])
        case("acls: team only", acls=[([TEAM], [f"{A}:*"], {})])
        case("acls: empty", acls=[])
        # SSH.
        case("ssh: customer to customer, nothing else", SSH_ALONE, ssh=[([A], [B], ["root"])])
        case("ssh: customer to customer, and port 22", ssh=[([A], [B], ["root"])], grants=[([A], [B], ["tcp:22"])])
        case("ssh: tagged to tagged", SSH_ALONE, ssh=[(["autogroup:tagged"], [B], ["root"])])
        case("ssh: brain to customer", SSH_ALONE, ssh=[([BRAIN], [A], ["root"])])
        # Owners: no packets, but whoever claims a tag is that customer.
        case("owner: any member", CLAIM, tagOwners={B: ["autogroup:member"]})
        case("owner: another customer", CLAIM, tagOwners={B: [A]})
        case("owner: a group", CLAIM, tagOwners={B: ["group:people"]}, groups={"group:people": [USER]})
        case("owner: through a chain", CLAIM, tagOwners={"tag:ci": [USER], B: ["tag:ci"]})
        # Routers.
        case("routes that a customer may announce", ROUTER, autoApprovers={"routes": {"10.0.0.0/8": [C]}})
        case("a customer as exit node", ROUTER, autoApprovers={"exitNode": [C]})
        case("via another customer", ROUTER, grants=[([TEAM], [B], ["tcp:22"])],
             **{"autoApprovers": {"routes": {"10.1.0.0/16": [A]}}})
        return cases

    def random(self, seed, count):
        """The same for each seed: one to three rules of the pools below."""
        chance, ip = random.Random(seed), self.ip
        sources = [A, B, C, TEAM, BRAIN, OPERATOR, "*", "autogroup:tagged", "autogroup:member", USER, "group:people", "100.64.0.0/10", ip["cust_other"], "tag:ci"]
        targets = [A, B, C, TEAM, BRAIN, OPERATOR, "autogroup:tagged", USER, "group:people", ip["cust_acme"], "100.64.0.0/10", "10.0.0.0/8", "*", "tag:ci"]
        ports = ["tcp:22", "tcp:80", "tcp:443", "tcp:8080", "tcp:9000", "udp:53", "udp:8080", "udp:9000", "icmp:*", "*", "tcp:*", "udp:*", "400-500", "8000-9500"]
        for number in range(count):
            grants, ssh = [], []
            for _ in range(chance.choice([1, 1, 2, 3])):
                grants.append((chance.sample(sources, chance.choice([1, 1, 2])), chance.sample(targets, chance.choice([1, 1, 2])),
                               chance.sample(ports, chance.choice([1, 1, 2]))))
            if chance.random() < 0.2:
                ssh.append(([chance.choice([A, B, TEAM])], [chance.choice([B, C])], ["root"]))
            words = json.dumps([grants, ssh])
            why = next((reason for word, reason in (("10.0.0.0/8", PRIVATE), (ip["cust_acme"], ADDRESS), (ip["cust_other"], ADDRESS), ("tag:ci", NOBODY))
                        if f'"{word}"' in words), SSH_ALONE if ssh else None)
            yield (f"random {number}", self.build(grants=grants, ssh=ssh, groups={"group:people": [USER]}, tagOwners={"tag:ci": [OPERATOR]}), why)
