"""Tailscale's API for the operator's commands, in front of the control server of this tailnet: as much of it as `tailnet apply`
and `offboard` use. What is put in through it is in force for every device."""
import hashlib
import http.server
import json
import threading

from cast import without_tests
from services import Handler


class Api:
    def __init__(self, cast):
        self.cast, self.text, self.deleted = cast, cast.policy, []
        self.lock = threading.Lock()
        api = self

        class Request(Handler):
            def do_GET(self):
                path = self.path.partition("?")[0].removeprefix("/api/v2/tailnet/-/")
                if path == "acl":
                    return self.answer(200, api.text, ETag=api.etag(), Content_Type="application/hujson")
                found = {"devices": api.devices, "keys": lambda: []}.get(path)
                self.json(200, {path: found()}) if found else self.json(404, {"message": "not found"})

            def do_POST(self):
                body = self.body().decode()
                path = self.path.removeprefix("/api/v2/").removeprefix("tailnet/-/")
                if path == "oauth/token":
                    return self.json(200, {"access_token": "tskey-token-test", "token_type": "Bearer", "expires_in": 3600})
                if path == "acl/validate":
                    return self.json(200, {})  # the set asks the control server
                if path != "acl":
                    return self.json(404, {"message": "not found"})
                with api.lock:
                    if self.headers.get("If-Match") not in (None, api.etag()):
                        return self.json(412, {"message": "precondition failed, invalid old hash"})
                    # Its tests fail while a new customer has no device; they are loaded with the packets' questions.
                    refused = api.cast.network.set_policy(api.cast.for_server(without_tests(body)))
                    if refused:
                        return self.json(400, {"message": refused})
                    api.text = body
                self.answer(200, api.text, ETag=api.etag(), Content_Type="application/hujson")

            def do_DELETE(self):
                node = self.path.removeprefix("/api/v2/device/")
                api.cast.network.remove_node(node)
                api.deleted.append(node)
                self.json(200, None)

            def json(self, status, value):
                self.answer(status, json.dumps(value), Content_Type="application/json")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def etag(self):
        return f'"{hashlib.sha256(self.text.encode()).hexdigest()}"'

    def devices(self):
        return [{"nodeId": node["id"], "id": node["id"], "name": node["givenName"], "hostname": node["name"], "addresses": node["ipAddresses"],
                 "tags": node["tags"], "user": "admin@example.com", "authorized": True, "isEphemeral": True, "nodeKey": node["nodeKey"],
                 "connectedToControl": node["online"], "created": node["createdAt"], "lastSeen": None, "tailnetLockError": "", "tailnetLockKey": ""}
                for node in self.cast.network.control_nodes().values()]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
