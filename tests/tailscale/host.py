"""A faithful host (real systemd, cloud-init, apt and AWS CLI) that joins the tailnet by Tailscale's own client."""
import os
import pathlib
import re
import subprocess
import tempfile
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

from machine import Machine
from network import CONTROL, CONTROL_NAME, run, wait_for
from services import REGION, Aws, Brain, Handler, Metadata, Mirror, Server

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "m8trx"
BRAIN_KEY, BRAIN_PORT = "brainkey-3f9c1b7e52", 8080
NAMES = {"127.0.0.2": f"ssm.{REGION}.amazonaws.com awscli.amazonaws.com", "127.0.0.3": "tailscale.com pkgs.tailscale.com"}
# Packages and the client stay; everything that the user-data and a membership left goes.
FORGET = """rm -rf var/lib/cloud/* var/log/* var/lib/tailscale etc/m8trx usr/local/bin/m8trx-* usr/local/sbin/m8trx-* etc/systemd/system/m8trx-* \
 etc/systemd/system/*.wants/m8trx-* etc/hosts etc/resolv.conf etc/machine-id run tmp"""


def tag_of(customer):
    return "tag:m8trx-cust-" + customer.removeprefix("cust_").replace("_", "-")


class Everybody:
    """Stands in for the tailnet that services.Brain asks: whoever gets through to this brain is in the tailnet."""
    nodes = True


class Download:
    """What Tailscale's own sites serve to a host: an install script, and the client."""

    def __init__(self, tools):
        class Request(Handler):
            def do_GET(self):
                if self.headers.get("Host") == "tailscale.com" and self.path == "/install.sh":
                    return self.answer(200, (HERE / "install-real.sh").read_bytes())
                file = tools / os.path.basename(self.path)
                self.answer(200, file.read_bytes()) if file.is_file() else self.answer(404)
        self.handler = Request


class World:
    """What all hosts share: parameters in moto, the package mirror, and the brain on a node of the tailnet. `other`: a world in
    another tailnet, whose parameters and packages this one has."""

    def __init__(self, network, brain_node, rootfs, binary, other=None):
        self.network, self.rootfs, self.brain_node, self.binary = network, rootfs, brain_node, binary
        self.moto = None
        if other:
            self.port, self.ssm, self.mirror, self.layer = other.port, other.ssm, other.mirror, other.layer
        else:
            self._start_aws()
        self.brain = Brain(Everybody, {BRAIN_KEY}, self.mirror)
        self.open_brain()
        self.put("/m8trx/brain-url", f"http://m8trx-brain:{BRAIN_PORT}")

    def _start_aws(self):
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        self.port = self.moto.get_host_and_port()[1]
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/moto-api/reset", method="POST"))
        self.ssm = boto3.client("ssm", endpoint_url=f"http://127.0.0.1:{self.port}", region_name=REGION,
                                aws_access_key_id="operator", aws_secret_access_key="operator")
        self.mirror, self.layer = Mirror(CACHE / "archive"), None

    def open_brain(self):
        self.server = Server(self.brain_node.space.pid, ("0.0.0.0", BRAIN_PORT), self.brain)

    def put(self, name, value):
        kind = "String" if name == "/m8trx/brain-url" else "SecureString"
        self.ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)

    def keep_packages(self, host):
        """From now on hosts start with the packages that this stopped host has installed."""
        layer = self.network.folder / "layer"
        run("cp", "-a", host.machine.upper, layer)
        subprocess.run(["sh", "-c", FORGET], cwd=layer, check=True)
        self.layer = layer

    def close(self):
        self.server.close()
        if self.moto:
            self.moto.stop()


class Host:
    """One instance of a customer, not yet booted."""
    count = 0

    def __init__(self, world, customer, user_data, auth_key, control=CONTROL):
        Host.count += 1
        self.world, self.customer, self.instance_id = world, customer, f"i-{Host.count:017x}"
        self.directory = tempfile.TemporaryDirectory(dir=world.network.folder)
        tun = pathlib.Path(self.directory.name, "tun")
        os.mknod(tun, 0o20666, os.makedev(10, 200))  # binding the machine's own would change its mode
        tun.chmod(0o666)
        self.machine = machine = Machine(world.rootfs, f"ts{Host.count}", world.layer, [
            "--capability=CAP_NET_ADMIN,CAP_NET_RAW", f"--bind={tun}:/dev/net/tun"])
        self.port, self.address = world.network.attach(machine.holder.pid)
        world.put(f"/m8trx/{customer}/brain-key", BRAIN_KEY)
        world.put(f"/m8trx/{customer}/tailscale-auth-key", auth_key)
        metadata = Metadata(self.instance_id, customer, user_data)
        self.aws = Aws(world.port, metadata, customer, None)
        holder, context = machine.holder.pid, world.network.authority.context
        self.servers = [Server(holder, ("169.254.169.254", 80), metadata), Server(holder, ("127.0.0.2", 443), self.aws, context),
                        Server(holder, ("127.0.0.3", 443), Download(world.network.tools), context),
                        Server(holder, ("127.0.0.5", 3142), world.mirror)]
        self.hosts(control)
        machine.write("/usr/local/share/ca-certificates/m8trx-test.crt", world.network.authority.certificate)
        bundle = machine.root / "etc/ssl/certs/ca-certificates.crt"
        if world.network.authority.certificate not in bundle.read_text():
            bundle.write_text(bundle.read_text() + world.network.authority.certificate)

    def hosts(self, control):
        """Which address the control server's name has on this host."""
        lines = {"127.0.0.1": "localhost", **NAMES, control: CONTROL_NAME, self.world.brain_node.ip: "m8trx-brain"}
        self.machine.write("/etc/hosts", "".join(f"{ip} {names}\n" for ip, names in lines.items()))

    def boot(self, timeout=400):
        """Boots, and waits for the end of cloud-init; what stands in the bootstrap's log."""
        self.machine.boot()
        self.machine.cloud_init_finished(timeout)
        return self.log()

    def log(self):
        path = self.machine.root / "var/log/m8trx-bootstrap.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def shell(self, script):
        return self.machine.shell(script)[1]

    def status(self):
        """State and Self.Online, by the host's own client."""
        text = self.shell("tailscale status --json --peers=false")
        found = re.search(r'"BackendState": "(\w+)"', text), re.search(r'"Online": (\w+)', text)
        return " ".join(match[1] for match in found if match)

    def cable(self, state):
        """The network of this host, up or down."""
        self.world.network.switch.run("ip", "link", "set", self.port, state)

    def nodes(self):
        """This host's nodes as the control server lists them, by node id."""
        return {node["id"]: node for node in self.world.network.control_nodes().values() if self.instance_id in node["name"]}

    def beats(self):
        return [beat for beat in self.world.brain.beats if beat["event"]["payload"].get("instance_id") == self.instance_id]

    def reports(self, timeout):
        """Whether one more heartbeat of this host arrives."""
        seen = len(self.beats())
        return wait_for(lambda: len(self.beats()) > seen, timeout, 0.2)

    def destroy(self):
        self.machine.destroy()
        for server in self.servers:
            server.close()
        self.directory.cleanup()
        return self.machine.leftovers()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.machine.holder.poll() is None:
            self.destroy()
