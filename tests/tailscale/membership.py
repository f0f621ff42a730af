"""A host stays a member of the tailnet, whatever happens to its network, its node, its key, its daemon and the control server."""
import re
import time

from host import Host, tag_of
from network import wait_for

CUSTOMER = "cust_b4_smoke"
TAG = tag_of(CUSTOMER)
# A heartbeat every ten seconds instead of every five minutes: so much sooner one fails.
HURRY = """mkdir -p /etc/systemd/system/m8trx-brain-heartbeat.timer.d
printf '[Timer]\\nOnUnitActiveSec=\\nOnUnitActiveSec=10s\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' \\
  >/etc/systemd/system/m8trx-brain-heartbeat.timer.d/hurry.conf
systemctl daemon-reload
systemctl restart m8trx-brain-heartbeat.timer"""
JOURNAL = "journalctl -b -u m8trx-tailscale-join -u m8trx-brain-heartbeat --no-pager -o short-iso | tail -n 60"
FEW_MINUTES = 200


class Story:
    """One host, and what happened to it so far."""

    def __init__(self, checks, network, host):
        self.checks, self.network, self.host = checks, network, host

    def check(self, name, good, detail=""):
        return self.checks.check(f"stays a member: {name}", good, detail if detail or good else self.host.shell(JOURNAL))

    def joins(self):
        """How often the unit joined since the host's boot."""
        return self.host.shell("journalctl -b -u m8trx-tailscale-join --no-pager -o cat").count("joining again")

    def reports_again(self, name, timeout=FEW_MINUTES):
        start = time.time()
        self.check(f"{name}: it reports again", self.host.reports(timeout))
        print(f"# {name}: reports again after {time.time() - start:.0f} s", flush=True)
        self.check(f"{name}: and is online by its own client", wait_for(lambda: self.host.status() == "Running true", 30), self.host.status())

    def no_join(self, name, action):
        """Something after which no join is needed."""
        nodes, joins = set(self.host.nodes()), self.joins()
        action()
        self.reports_again(name)
        self.check(f"{name}: without a join, as the same node", set(self.host.nodes()) == nodes and self.joins() == joins)

    def outage(self):
        """An ordinary one: longer than it takes until the client calls itself offline."""
        self.host.cable("down")
        time.sleep(40)
        self.host.cable("up")

    def control_away(self):
        """The brain is away as well, so that heartbeats fail and the unit looks."""
        self.host.world.server.close()
        self.network.stop_control()
        looked = wait_for(lambda: "Running" in self.host.shell("systemctl show -p ActiveState --value m8trx-tailscale-join; tailscale status --json")
                          and "activating" in self.host.shell("systemctl is-active m8trx-tailscale-join"), 90, 1)
        self.check("control server away: the unit looks", looked)
        time.sleep(70)
        self.network.start_control()
        self.host.world.open_brain()

    def daemon_stopped(self):
        self.host.shell("systemctl stop tailscaled")
        seen = wait_for(lambda: "activating" in self.host.shell("systemctl is-active m8trx-tailscale-join"), 90, 1)
        self.check("daemon stopped: the unit looks", seen)
        self.host.shell("systemctl start tailscaled")

    def removed_while_away(self, key, away):
        """The network away, the node removed meanwhile, the network back. A control server that starts again ends the connection
        that the host believes in; otherwise that takes two minutes."""
        host = self.host
        host.world.put(f"/m8trx/{CUSTOMER}/tailscale-auth-key", key)
        nodes = host.nodes()
        host.cable("down")
        time.sleep(5)
        for node in nodes:
            self.network.remove_node(node)
        if away:
            time.sleep(away)
        else:
            self.network.stop_control()
            self.network.start_control()
        host.cable("up")
        return nodes

    def removal(self):
        before = self.joins()
        gone = self.removed_while_away(self.network.make_key([TAG], reusable=True), 150)
        self.reports_again("removed while away")
        nodes = self.host.nodes()
        self.check("removed while away: one new node, one join", len(nodes) == 1 and not set(nodes) & set(gone) and self.joins() == before + 1, nodes)

    def spent_then_rotated(self):
        """The key that SSM holds is a one-off key that somebody has used; then it is rotated."""
        spent = self.network.make_key([TAG])
        self.network.database("UPDATE pre_auth_keys SET used = 1 WHERE key = ?", (spent,))
        self.removed_while_away(spent, 0)
        said = wait_for(lambda: re.search(r"FAILED: tailscale up failed: .*authkey already used", self.host.shell(JOURNAL)), FEW_MINUTES, 1)
        self.check("spent one-off key: the journal says so", said)
        self.check("spent one-off key: no node of this host meanwhile", not self.host.nodes(), self.host.nodes())
        self.host.world.put(f"/m8trx/{CUSTOMER}/tailscale-auth-key", self.network.make_key([TAG]))
        self.reports_again("key rotated")
        self.check("key rotated: one node", len(self.host.nodes()) == 1, self.host.nodes())

    def two_at_once(self):
        """The unit, and the bootstrap run again by hand, with a one-off key."""
        self.host.shell("tailscale logout")
        self.host.world.put(f"/m8trx/{CUSTOMER}/tailscale-auth-key", self.network.make_key([TAG]))
        said = self.host.shell("systemctl start m8trx-tailscale-join & /var/lib/cloud/instance/scripts/part-001 >/dev/null 2>&1; echo bootstrap $?; wait; "
                               "systemctl is-failed m8trx-tailscale-join")
        self.check("two joins at once with a one-off key: both end well", "bootstrap 0" in said and "failed" not in said, said + self.host.log()[-1500:])
        self.check("two joins at once: one node", len(self.host.nodes()) == 1 and self.host.status() == "Running true", self.host.nodes())

    def stopped_host(self):
        """The host is stopped, its node removed, the host started: our unit joins at boot."""
        nodes = self.host.nodes()
        self.host.world.put(f"/m8trx/{CUSTOMER}/tailscale-auth-key", self.network.make_key([TAG], reusable=True))
        self.host.machine.stop()
        for node in nodes:
            self.network.remove_node(node)
        self.host.machine.boot()
        self.reports_again("stopped, removed and started")


def stays_a_member(checks, world, user_data):
    """The whole story of one host."""
    network = world.network
    with Host(world, CUSTOMER, user_data, network.make_key([TAG], reusable=True)) as host:
        host.boot()
        story = Story(checks, network, host)
        host.shell(HURRY)
        for part in (story.removal, story.spent_then_rotated, story.two_at_once):
            part()
        for name, action in (("outage", story.outage), ("control server away", story.control_away), ("daemon stopped", story.daemon_stopped)):
            story.no_join(name, action)
        story.stopped_host()
        left = host.destroy()
        checks.check("stays a member: nothing is left of the host", not left, left)
