"""The devices that the policy is about: customers' hosts, the brain, the team, the operator's computer and a user's laptop."""
import concurrent.futures
import itertools
import json
import re
import subprocess

from network import Network, Node, wait_for
from probe import ask, echo, expected, filters

CUSTOMERS = ["cust_acme", "cust_b4_smoke", "cust_other"]
# headscale does not know admins as a tag's owner; it has one user.
ADMINS, ADMIN = '"autogroup:admin"', '"admin@"'
MARKER = "100.127.{}.{}"


def tag_of(customer):
    return "tag:m8trx-cust-" + customer.removeprefix("cust_").replace("_", "-")


def m8trx(binary, *arguments, **keywords):
    return subprocess.run([binary, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, **keywords)


class Cast:
    def __init__(self, tools, name, binary):
        self.network, self.binary, self.loads = Network(tools, name), binary, 0
        self.policy = m8trx(binary, "tailnet", "policy", *CUSTOMERS, check=True).stdout
        # Its tests fail while a tag has no node.
        refused = self.network.set_policy(self.for_server(without_tests(self.policy)))
        if refused:
            raise RuntimeError(refused)
        self.nodes = {}

    def for_server(self, text):
        return text.replace(ADMINS, ADMIN)

    def add(self, name, tag, **options):
        """A device with a tag, or without one a user's own."""
        node = Node(self.network, name)
        node.join([tag] if tag else [], **options)
        echo(node)
        self.nodes[name] = node
        return node

    def assemble(self):
        """All devices, two at a time."""
        wanted = [(customer, tag_of(customer), {"ssh": True}) for customer in CUSTOMERS]
        wanted += [("brain", "tag:m8trx-brain", {"ssh": True}), ("team", "tag:m8trx-team", {}), ("operator", "tag:m8trx-operator", {}),
                   ("laptop", None, {})]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for made in [pool.submit(self.add, name, tag, **options) for name, tag, options in wanted]:
                made.result()

    def load(self, text):
        """Loads a policy and waits until every device holds it; why the server refuses it, or None, and the filters then."""
        self.loads += 1
        marker = MARKER.format(self.loads // 250 + 1, self.loads % 250 + 1)
        # A rule of our own that opens nothing: its source is nobody. Where it shows up, the policy is in force.
        rule = f'{{"src": ["{marker}"], "dst": ["*"], "ip": ["tcp:1"]}},'
        marked = re.sub(r'("grants"\s*:\s*\[)', lambda found: found[1] + rule, self.for_server(text), count=1)
        refused = self.network.set_policy(marked)
        if refused:
            return refused, None
        held = {}

        def everywhere():
            held.update(filters([node for node in self.nodes.values() if marker not in json.dumps(held.get(node, ""))]))
            return all(marker in json.dumps(found) for found in held.values())
        if not wait_for(everywhere, 30, 0.05):
            raise RuntimeError(f"a policy is not in force after 30 s: {self.network.control_log()[-1500:]}")
        return None, held

    def pairs(self):
        return list(itertools.permutations(self.nodes.values(), 2))

    def packets(self, held, pairs, questions):
        """What gets through, by packets, and what the receivers' filters let through."""
        allowed = {question for question in expected(held, pairs) if question[2:] in questions}
        every = [(source, destination, kind, port) for source, destination in pairs for kind, port in questions]
        passed = ask(every, 1.2 if not allowed else 6, allowed)
        missing = allowed - passed
        if missing:  # the first packet between two devices can take long
            passed |= ask(list(missing), 10, missing)
        return passed, allowed

    def close(self):
        self.network.close()


def without_tests(text):
    """The same file without its own tests."""
    return re.sub(r'"(tests|sshTests)": *\[\n.*?\n  \]', r'"\1": []', text, flags=re.S)
