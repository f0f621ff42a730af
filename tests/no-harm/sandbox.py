"""A running `m8trx sandbox up`, the binary pointed at it, and what a test says to its brain and its tailnet."""

import json
import pathlib
import subprocess
import tempfile
import urllib.error
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

    def changes(self):
        return [call["action"] for call in self.calls() if call["mutating"] and not call["error"]]


