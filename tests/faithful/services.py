"""What a faithful host finds on its network: metadata, AWS over TLS in front of moto, Tailscale, the brain, a package mirror.

All of it listens inside the host's own network namespace, which has nothing but a loopback device. A socket keeps the
namespace it was made in, so the servers' threads run here, outside, where the package archive can be reached.
"""
import ctypes
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

REGION = "us-east-1"
GUEST = pathlib.Path(__file__).resolve().parent / "guest"
HOSTS = {
    "127.0.0.2": [f"ssm.{REGION}.amazonaws.com", "awscli.amazonaws.com"],
    "127.0.0.3": ["tailscale.com", "pkgs.tailscale.com", "controlplane.tailscale.com"],
    "127.0.0.4": ["m8trx-brain", "m8trx-brain-moved"],
}
CLONE_NEWNET = 0x40000000
ACCESS_KEY = "ASIAM8TRXFAITHFUL000"


def listener(namespace_pid, address):
    """A listening socket made inside the network namespace of a process."""
    made = []

    def make():
        with open(f"/proc/{namespace_pid}/ns/net", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:  # this thread alone
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(address))
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Authority:
    """A private certificate authority and one certificate for all TLS names."""

    def __init__(self, directory):
        names = ",".join(f"DNS:{name}" for names in HOSTS.values() for name in names)
        subprocess.run(["bash", "-euc", """
          openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3 -subj '/CN=m8trx test'
          openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server
          openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 3 \
            -extfile <(echo "subjectAltName=$1")
        """, "-", names], cwd=directory, check=True, capture_output=True)
        self.certificate = pathlib.Path(directory, "ca.pem").read_text()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(f"{directory}/server.pem", f"{directory}/server.key")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, *arguments):
        pass


class Metadata:
    """IMDSv2, with the instance's tags."""

    def __init__(self, instance_id, customer, user_data):
        self.user_data, self.instance_id = user_data, instance_id
        self.tokens, self.session_token = set(), f"session-{os.urandom(8).hex()}"
        values = {
            "ami-id": "ami-0123456789abcdef0", "instance-id": instance_id, "instance-type": "t3.small",
            "hostname": "ip-172-31-0-10.ec2.internal", "local-hostname": "ip-172-31-0-10.ec2.internal",
            "local-ipv4": "172.31.0.10", "mac": "02:00:00:00:00:01",
            "placement/region": REGION, "placement/availability-zone": f"{REGION}a",
            "iam/security-credentials/m8trx-host": json.dumps({
                "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": ACCESS_KEY, "SecretAccessKey": "secret-of-the-role",
                "Token": self.session_token, "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}),
            "network/interfaces/macs/02:00:00:00:00:01/device-number": "0",
            "network/interfaces/macs/02:00:00:00:00:01/local-ipv4s": "172.31.0.10",
            "tags/instance/Customer": customer, "tags/instance/Name": f"m8trx-{customer}",
        }
        self.values = {f"meta-data/{name}": value for name, value in values.items()} | {
            "dynamic/instance-identity/document": json.dumps({"instanceId": instance_id, "region": REGION, "accountId": "123456789012"})}
        service = self

        class Request(Handler):
            def do_PUT(self):
                ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if self.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
                    return self.answer(400)
                token = os.urandom(16).hex() + "=="
                service.tokens.add(token)
                self.answer(200, token)

            def do_GET(self):
                if self.headers.get("X-aws-ec2-metadata-token") not in service.tokens:
                    return self.answer(401)
                value = service.get(self.path)
                self.answer(404) if value is None else self.answer(200, value)
        self.handler = Request

    def get(self, path):
        version, _, path = path.strip("/").partition("/")
        if version not in ("latest", "2021-03-23"):
            return None
        if path == "user-data":
            return self.user_data
        if path in self.values:
            return self.values[path]
        prefix = path + "/"
        below = sorted({name[len(prefix):].partition("/")[0] + ("/" if "/" in name[len(prefix):] else "")
                        for name in self.values if name.startswith(prefix)})
        return "\n".join(below) or None


class Aws:
    """SSM over TLS: checks whose credentials signed, allows what the role's policy allows, and hands on to moto."""

    def __init__(self, moto, metadata, customer, cli_zip):
        self.allowed = {"/m8trx/brain-url", f"/m8trx/{customer}/brain-key", f"/m8trx/{customer}/tailscale-auth-key"}
        self.requests = []
        service = self

        class Request(Handler):
            def do_GET(self):
                if self.headers.get("Host") == "awscli.amazonaws.com" and re.fullmatch(r"/awscli-exe-linux-\w+\.zip", self.path) and cli_zip:
                    return self.answer(200, pathlib.Path(cli_zip).read_bytes())
                self.answer(404)

            def refuse(self, code, message):
                self.answer(400, json.dumps({"__type": code, "message": message}), Content_Type="application/x-amz-json-1.1")

            def do_POST(self):
                body = self.body()
                target = self.headers.get("X-Amz-Target", "")
                name = json.loads(body or b"{}").get("Name", "")
                service.requests.append((target, name))
                authorization = self.headers.get("Authorization", "")
                if f"Credential={ACCESS_KEY}/" not in authorization or self.headers.get("X-Amz-Security-Token") != metadata.session_token:
                    return self.refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
                if target != "AmazonSSM.GetParameter" or name not in service.allowed:
                    return self.refuse("AccessDeniedException", "User: arn:aws:sts::123456789012:assumed-role/m8trx-host/"
                                       f"{metadata.instance_id} is not authorized to perform: ssm:{target.partition('.')[2]} on resource: "
                                       f"arn:aws:ssm:{REGION}:123456789012:parameter{name} because no identity-based policy allows it")
                connection = http.client.HTTPConnection("127.0.0.1", moto, timeout=20)
                connection.request("POST", "/", body, {key: value for key, value in self.headers.items() if key.lower() != "connection"})
                answer = connection.getresponse()
                self.answer(answer.status, answer.read(), Content_Type="application/x-amz-json-1.1")
        self.handler = Request


class Tailscale:
    """The install script, and the control plane that knows auth keys and nodes."""

    def __init__(self):
        self.keys = {}  # auth key: the tags it carries
        self.nodes = {}  # node id: what it registered with
        self.joined = []  # every registration, in order
        service = self

        class Request(Handler):
            def do_GET(self):
                host = self.headers.get("Host")
                if host == "tailscale.com" and self.path == "/install.sh":
                    return self.answer(200, (GUEST / "install.sh").read_bytes())
                if host == "pkgs.tailscale.com" and (GUEST / self.path[1:]).is_file():
                    return self.answer(200, (GUEST / self.path[1:]).read_bytes())
                if host == "controlplane.tailscale.com" and self.path.startswith("/machine/"):
                    return self.answer(200 if self.path.rpartition("/")[2] in service.nodes else 404)
                self.answer(404)

            def do_POST(self):
                wanted = json.loads(self.body())
                tags = service.keys.get(wanted["auth_key"])
                if tags is None:
                    return self.answer(401, json.dumps({"error": "invalid key: API key does not exist"}))
                if wanted["tags"] != tags:
                    return self.answer(400, json.dumps({"error": f"requested tags {wanted['tags']} are invalid or not permitted"}))
                node = f"n{len(service.joined) + 1}CNTRL"
                service.nodes[node] = wanted
                service.joined.append(wanted)
                self.answer(200, json.dumps({"node_id": node, "ip": f"100.64.0.{len(service.joined)}"}))
        self.handler = Request


class Brain:
    """Takes heartbeats from hosts in the tailnet; from others it hangs up."""

    def __init__(self, tailscale, keys, mirror):
        self.keys, self.beats, self.refused = keys, [], []
        service = self

        class Request(Handler):
            def do_POST(self):
                if not tailscale.nodes:
                    self.close_connection = True
                    return
                body = self.body()
                bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                if self.path != "/v1/events" or bearer not in service.keys:
                    service.refused.append((self.path, bearer))
                    return self.answer(401)
                service.beats.append({"at": time.time(), "key": bearer, "host": self.headers["Host"], "downloaded": mirror.bytes,
                                      "event": json.loads(body)})
                self.answer(201)
        self.handler = Request


class Mirror:
    """A forward proxy to the package archive; what is named by its content is kept, so later runs need little of the network."""

    def __init__(self, cache):
        self.bytes, self.down = 0, False
        cache = pathlib.Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
        service = self

        class Request(Handler):
            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                if service.down or url.scheme != "http" or url.hostname != "deb.debian.org":
                    return self.answer(503)
                kept = cache / urllib.parse.quote(url.path, safe="")
                fixed = url.path.endswith(".deb") or "/by-hash/" in url.path
                if fixed and kept.is_file():
                    body = kept.read_bytes()
                else:
                    try:
                        with urllib.request.urlopen(self.path, timeout=60) as answer:
                            body = answer.read()
                    except urllib.error.HTTPError as error:
                        return self.answer(error.code)
                    except OSError as error:
                        return self.answer(502, str(error))
                    if fixed:
                        new = kept.with_suffix(f".{threading.get_ident()}")
                        new.write_bytes(body)
                        new.rename(kept)
                service.bytes += len(body)
                self.answer(200, body)
        self.handler = Request


class Server:
    """One of the above at an address inside the host's network."""

    def __init__(self, namespace_pid, address, service, context=None):
        self.server = http.server.ThreadingHTTPServer(address, service.handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.socket.close()
        self.server.socket = listener(namespace_pid, address)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
