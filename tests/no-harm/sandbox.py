"""A running `m8trx sandbox up`, the binary pointed at it, and what a test says to its brain and its tailnet."""

import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

# Nothing of the machine's own environment reaches a command: nothing real can be meant.
PATH = "/usr/local/bin:/usr/bin:/bin"


class Failed(Exception):
    """A point that does not hold, in words."""


def expect(holds, words):
    if not holds:
        raise Failed(words)


class Ended:
    """What a command left behind."""

    def __init__(self, done):
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr

    def json(self):
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise Failed(f"no JSON on stdout: {self}") from None

    def __str__(self):
        return f"exit code {self.code}, stdout {self.stdout!r}, stderr {self.stderr!r}"


class Sandbox:
    """One sandbox of its own, ended with the block."""

    def __init__(self, binary, *options):
        self.binary, self.options = str(pathlib.Path(binary).resolve()), options

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.home = pathlib.Path(self.folder.name)
        own = {"PATH": PATH, "HOME": self.folder.name, "AWS_EC2_METADATA_DISABLED": "true"}
        self.process = subprocess.Popen(
            [self.binary, "sandbox", "up", "--output", "json", *self.options],
            env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the sandbox did not start")
        self.environment = {**own, **json.loads(line)["environment"]}
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.folder.cleanup()

    def m8trx(self, *arguments, code=None, environment=None, timeout=120):
        """Runs the binary; `code` is the exit code that is expected."""
        done = subprocess.run(
            [self.binary, *arguments], env={**self.environment, **(environment or {})}, cwd=self.home,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False,
        )
        ended = Ended(done)
        if code is not None:
            expect(ended.code == code, f"m8trx {' '.join(arguments)}: expected exit code {code}: {ended}")
        return ended

    def secret(self, name, text):
        """A file that only its owner reads."""
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def http(self, base, path, method="GET", body=None, bearer=None):
        """An HTTP call on loopback: the status and the answer's JSON."""
        request = urllib.request.Request(base + path, method=method)
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, data=data, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, None

    def tailnet(self, path, method="GET", body=None):
        """What stands in for Tailscale's admin console."""
        return self.http(self.environment["M8TRX_TAILSCALE_API_URL"], path, method, body)[1]

    def auth_key(self, customer, lifetime_days=90):
        """A key made in the admin console."""
        tag = "tag:m8trx-cust-" + customer.removeprefix("cust_").replace("_", "-")
        made = self.tailnet("/_sandbox/keys", "POST", {"tags": [tag], "lifetime_s": lifetime_days * 86400 + 3600})
        return made["key"]

    def brain_key(self, customer):
        """The customer's stored brain key."""
        shown = self.m8trx("params", "show", f"{customer}/brain-key", "--reveal", "--yes", "--output", "json", code=0)
        return shown.json()["value"]

    def send_event(self, key, event):
        return self.http(self.environment["M8TRX_BRAIN_URL"], "/v1/events", "POST", event, key)[0]

    def calls(self):
        """Every call to AWS so far."""
        answer = self.http(self.environment["AWS_ENDPOINT_URL"], "/_sandbox/calls")[1]
        return answer["calls"] if isinstance(answer, dict) else answer

    def ec2(self, **parameters):
        """A signed call to EC2, as another tool would make it."""
        body = urllib.parse.urlencode({**parameters, "Version": "2016-11-15"})
        return self.signed("ec2", "application/x-www-form-urlencoded", body, {})

    def ssm(self, action, **body):
        """A signed call to Parameter Store."""
        target = {"x-amz-target": f"AmazonSSM.{action}"}
        return self.signed("ssm", "application/x-amz-json-1.1", json.dumps(body), target)

    def signed(self, service, kind, body, headers):
        """A request with Signature Version 4."""
        url = self.environment["AWS_ENDPOINT_URL"]
        region, now = self.environment["AWS_REGION"], datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        host = urllib.parse.urlsplit(url).netloc
        headers = {"content-type": kind, "host": host, "x-amz-date": stamp, **headers}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        digest = hashlib.sha256(body.encode()).hexdigest()
        canonical = f"POST\n/\n\n{lines}\n{names}\n{digest}"
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.environment["AWS_SECRET_ACCESS_KEY"]).encode()
        for part in (day, region, service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        request = urllib.request.Request(url + "/", data=body.encode(), method="POST", headers=headers)
        identity = self.environment["AWS_ACCESS_KEY_ID"]
        request.add_header(
            "Authorization",
            f"AWS4-HMAC-SHA256 Credential={identity}/{scope}, SignedHeaders={names}, Signature={signature}",
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return answer.read().decode()

    def policy(self):
        """The tailnet's policy file."""
        return self.api("/tailnet/-/acl")

    def api(self, path):
        """A reading call of Tailscale's API."""
        base = self.environment["M8TRX_TAILSCALE_API_URL"]
        secret = pathlib.Path(self.environment["M8TRX_TAILSCALE_CLIENT_SECRET_FILE"]).read_text().strip()
        client = {
            "grant_type": "client_credentials",
            "client_id": self.environment["M8TRX_TAILSCALE_CLIENT_ID"],
            "client_secret": secret,
        }
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        form = urllib.parse.urlencode(client).encode()
        with opener.open(base + "/api/v2/oauth/token", data=form, timeout=30) as answer:
            token = json.loads(answer.read())["access_token"]
        request = urllib.request.Request(
            base + "/api/v2" + path, headers={"Authorization": f"Bearer {token}", "Accept": "application/hujson"}
        )
        with opener.open(request, timeout=30) as answer:
            return answer.read().decode()

    def start(self, *arguments):
        """Starts the binary, to be signalled; its stderr can be read line by line."""
        return subprocess.Popen(
            [self.binary, *arguments], env=self.environment, cwd=self.home, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def journals(self):
        return sorted((self.home / ".local/state/m8trx/runs").glob("*.jsonl"))

    def changes(self):
        return [call["action"] for call in self.calls() if call["mutating"] and not call["error"]]


class Proxy:
    """Stands before an endpoint and hands everything on, except for what `judge` says: `lose` carries a request out and
    loses its answer, `page` answers with a page of somebody else's instead."""

    def __init__(self, target, judge):
        place = urllib.parse.urlsplit(target)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                pass

            def hand_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                what = judge(self, body)
                if what == "page":
                    self.answer(200, "text/html", b"<!doctype html><title>Sign in</title>")
                    return
                behind = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
                behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                # As they came: the signature is about them.
                for name, value in self.headers.items():
                    behind.putheader(name, value)
                behind.endheaders(body)
                answer = behind.getresponse()
                text = answer.read()
                if what == "lose":
                    self.close_connection = True
                    return
                self.answer(answer.status, answer.getheader("Content-Type") or "text/plain", text)

            def answer(self, status, kind, text):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = hand_on

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
