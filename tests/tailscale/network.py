"""A tailnet of its own on this machine: Tailscale's client and daemon, and headscale as the control server.

Each node has a network namespace, joined to the others by a bridge in one more; addresses are of 198.18.0.0/15, the range for
tests of private networks. Every namespace hangs on a process, every file lies in a folder that only this tier's own mount
namespace sees: nothing is left once the tier's first process is gone.
"""
import concurrent.futures
import ctypes
import http.client
import json
import os
import pathlib
import signal
import socket
import sqlite3
import ssl
import subprocess
import time

from services import Authority

CLONE_NEWNET = 0x40000000
CONTROL, CONTROL_NAME = "198.18.0.1", "controlplane.tailscale.com"
FOLDER = pathlib.Path("/run/m8trx-tailscale")
# Tailscale's own form; headscale's keys begin otherwise, and the bootstrap rightly refuses those.
KEY_FORM = "tskey-auth-k{}CNTRL-{}"
CONFIG = """
server_url: https://controlplane.tailscale.com
listen_addr: 198.18.0.1:443
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
tls_cert_path: {folder}/server.pem
tls_key_path: {folder}/server.key
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server: {{enabled: true, region_id: 999, region_code: test, region_name: test, stun_listen_addr: "198.18.0.1:3478",
           private_key_path: {folder}/derp.key, automatically_add_embedded_derp_region: true, ipv4: 198.18.0.1, verify_clients: false}}
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
node: {{ephemeral: {{inactivity_timeout: 30m}}}}
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite, write_ahead_log: true}}}}
log: {{level: info, format: text}}
policy: {{mode: database}}
dns: {dns}
unix_socket: {folder}/headscale.sock
unix_socket_permission: "0700"
logtail: {{enabled: false}}
taildrop: {{enabled: false}}
"""
NO_DNS = '{magic_dns: false, base_domain: tailnet.test, override_local_dns: false, nameservers: {global: []}}'


def run(*command, **keywords):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **keywords)
    if done.returncode:
        raise RuntimeError(f"{' '.join(str(word) for word in command[:6])}: exit code {done.returncode}: {done.stdout[-800:]}{done.stderr[-800:]}")
    return done.stdout


def wait_for(condition, timeout, pause=0.1):
    """What `condition` returns once it is true, or its last answer."""
    end = time.time() + timeout
    while not (found := condition()) and time.time() < end:
        time.sleep(pause)
    return found


class Space:
    """A network namespace (and a mount namespace) that lives as long as a process; and a thread inside it."""

    def __init__(self, prepare="true"):
        self.process = subprocess.Popen(["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc",
                                         f"ip link set lo up; {prepare}; echo ready; exec sleep infinity"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("a namespace could not be made")
        self.pid = self.process.pid
        self._thread = None

    def run(self, *command, **keywords):
        return run("nsenter", "-t", self.pid, "-m", "-n", *command, **keywords)

    def inside(self, function):
        """Runs a function in a thread of this network namespace: sockets keep the namespace they were made in."""
        if self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1, initializer=enter, initargs=(self.pid,))
        return self._thread.submit(function).result(30)

    def close(self):
        if self._thread:
            self._thread.shutdown()
        self.process.kill()
        self.process.wait()


def enter(pid):
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:  # this thread alone
            raise OSError(ctypes.get_errno(), "setns")


class Network:
    """The bridge and the control server."""

    def __init__(self, tools, name):
        self.tools, self.folder = pathlib.Path(tools), FOLDER / name
        self.folder.mkdir(mode=0o700, parents=True)
        self.authority = Authority(self.folder)
        bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
        (self.folder / "bundle.pem").write_text(bundle + self.authority.certificate)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{CONTROL} {CONTROL_NAME}\n")
        self.switch = Space(f"ip link add br0 type bridge; ip address add {CONTROL}/15 dev br0; ip link set br0 up")
        self.nodes, self.ports, self.server = [], 0, None
        self.start_control()
        self.headscale("users", "create", "admin")
        self.api_key = self.headscale("apikeys", "create").strip().splitlines()[-1]

    def start_control(self, dns=NO_DNS):
        (self.folder / "config.yaml").write_text(CONFIG.format(folder=self.folder, dns=dns))
        self.server = subprocess.Popen(
            ["nsenter", "-t", str(self.switch.pid), "-n", self.tools / "headscale", "serve", "-c", self.folder / "config.yaml"],
            stdin=subprocess.DEVNULL, stdout=open(self.folder / "headscale.log", "ab"), stderr=subprocess.STDOUT)
        if not wait_for(lambda: self.answers() or self.server.poll() is not None, 60) or self.server.poll() is not None:
            raise RuntimeError("headscale does not start: " + self.control_log()[-3000:])

    def stop_control(self):
        self.server.send_signal(signal.SIGTERM)
        try:
            self.server.wait(5)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()

    def control_log(self):
        return (self.folder / "headscale.log").read_text(errors="replace")

    def answers(self):
        try:
            return self.request("GET", "/health", key=None)[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None, key=True):
        """One call of headscale's API."""
        connection = http.client.HTTPSConnection(CONTROL_NAME, 443, context=ssl.create_default_context(cafile=self.folder / "ca.pem"), timeout=20)

        def connect():
            plain = socket.create_connection((CONTROL, 443), timeout=5)
            plain.settimeout(20)
            return plain
        connection._create_connection = lambda *_: self.switch.inside(connect)
        headers = {"Authorization": f"Bearer {self.api_key}"} if key else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def headscale(self, *arguments):
        return run(self.tools / "headscale", "-c", self.folder / "config.yaml", *arguments)

    def set_policy(self, text):
        """Loads a policy file; None, or why the server refuses it."""
        status, answer = self.request("PUT", "/api/v1/policy", {"policy": text})
        return None if status == 200 else json.loads(answer).get("message", answer)

    def database(self, statement, values=()):
        connection = sqlite3.connect(self.folder / "db.sqlite", timeout=20)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def make_key(self, tags=(), reusable=False, ephemeral=True, expiry="1h", user=None):
        """An auth key of Tailscale's form, and its row."""
        words = ["preauthkeys", "create", "-e", expiry, "-o", "json"]
        words += ["--tags", ",".join(tags)] if tags else ["--user", user or "1"]
        words += ["--reusable"] if reusable else []
        words += ["--ephemeral"] if ephemeral else []
        made = json.loads(self.headscale(*words))
        key = KEY_FORM.format(os.urandom(6).hex(), os.urandom(12).hex())
        # headscale still takes keys of its older, plain form.
        self.database("UPDATE pre_auth_keys SET key = ?, prefix = '', hash = NULL WHERE id = ?", (key, made["id"]))
        return key

    def control_nodes(self):
        """The nodes that the control server knows, by their host name."""
        return {node["givenName"]: node for node in json.loads(self.request("GET", "/api/v1/node")[1])["nodes"]}

    def remove_node(self, node_id):
        status, answer = self.request("DELETE", f"/api/v1/node/{node_id}")
        if status != 200:
            raise RuntimeError(answer)

    def attach(self, pid):
        """A cable from a namespace to the bridge (cloud-init would ask for an address on any other name than veth0); returns the bridge's end and the address."""
        self.ports += 1
        port, address = f"port{self.ports}", f"198.18.1.{self.ports}"
        self.switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", "veth0", "netns", pid)
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        run("nsenter", "-t", pid, "-n", "sh", "-euc", f"ip address add {address}/15 dev veth0; ip link set veth0 up; ip route add default via {CONTROL}")
        return port, address

    def close(self):
        for node in self.nodes:
            node.close()
        if self.server:
            self.stop_control()
        self.switch.close()


class Node:
    """A device of the tailnet: the real daemon in a namespace, on this machine's files."""

    def __init__(self, network, name):
        self.network, self.name, self.folder = network, name, network.folder / name
        self.folder.mkdir(mode=0o700)
        # The daemon may want to write to /etc; here it cannot.
        self.space = Space(f"mount --bind {network.folder}/hosts /etc/hosts; mount --bind /etc /etc; mount -o remount,bind,ro /etc; "
                           f"mount --bind {network.folder}/hosts /etc/hosts")
        self.port, self.address = network.attach(self.space.pid)
        self.socket, self.ip, self.daemon = self.folder / "socket", None, None
        network.nodes.append(self)
        self.start()

    def start(self):
        self.daemon = subprocess.Popen(
            ["nsenter", "-t", str(self.space.pid), "-m", "-n", self.network.tools / "tailscaled", f"--statedir={self.folder}",
             f"--state={self.folder}/state", f"--socket={self.socket}", "--port=41641", "--tun=tailscale0"],
            env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(self.network.folder / "bundle.pem"), "TS_NO_LOGS_NO_SUPPORT": "true"},
            stdin=subprocess.DEVNULL, stdout=open(self.folder / "log", "ab"), stderr=subprocess.STDOUT)
        wait_for(self.socket.exists, 20)

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait(20)

    def tailscale(self, *arguments, timeout=90):
        """Exit code and output of the client."""
        return self.run(self.network.tools / "tailscale", f"--socket={self.socket}", *[str(word) for word in arguments], timeout=timeout)

    def run(self, *command, timeout=30):
        """Exit code and output of a command in this device's network."""
        done = subprocess.run(["nsenter", "-t", str(self.space.pid), "-m", "-n", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout)
        return done.returncode, done.stdout

    def status(self):
        code, text = self.tailscale("status", "--json")
        return json.loads(text) if text.startswith("{") else {"BackendState": text}

    def join(self, tags=(), ssh=False, routes=(), user=None, **key):
        """Joins with a key of its own; raises when that fails."""
        made = self.network.make_key(tags, user=user, **key)
        (self.folder / "key").write_text(made)
        words = ["up", f"--auth-key=file:{self.folder}/key", f"--hostname={self.name.replace('_', '-')}", "--accept-dns=false", "--timeout=60s"]
        words += [f"--advertise-tags={','.join(tags)}"] if tags else []
        words += ["--ssh"] if ssh else []
        words += [f"--advertise-routes={','.join(routes)}"] if routes else []
        code, text = self.tailscale(*words)
        if code:
            raise RuntimeError(f"{self.name} does not join: {text}{self.status().get('Health')}\n{self.network.control_log()[-1500:]}")
        self.ip = self.tailscale("ip", "-4")[1].strip()

    def netmap(self):
        code, text = self.tailscale("debug", "netmap")
        return json.loads(text)

    def close(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
        self.space.close()
