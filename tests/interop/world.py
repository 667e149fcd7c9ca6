"""A real Synapse, a gateway before it, and plain HTTP to compare with."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE = 20  # seconds


class World:
    LISTEN = "127.0.0.1:0"
    SCHEME = "coap"

    def __init__(self, lowband):
        self.lowband = lowband.resolve()

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="lowband-interop-"))
        # It ends when its standard input closes, so also when this process does.
        self.synapse = subprocess.Popen(
            [ROOT / "scripts/synapse", "run", self.directory / "synapse", "--strict", "login"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.homeserver = self.synapse.stdout.readline().strip()
        assert self.homeserver, "Synapse did not start"
        self.start_gateway(self.LISTEN)
        return self

    def start_gateway(self, listen):
        with open(self.directory / "gateway.log", "w") as log:
            self.gateway_process = subprocess.Popen(
                [self.lowband, "gateway", "--listen", listen, "--homeserver", self.homeserver]
                + self.protection()
                + self.options(),
                stderr=log,
            )
        self.gateway = self.wait_for_gateway()

    def restart_gateway(self):
        """Kills it, and starts another at the same place."""
        self.gateway_process.kill()
        self.gateway_process.wait(PATIENCE)
        self.start_gateway(self.gateway)

    def __exit__(self, *_):
        self.gateway_process.terminate()
        try:
            status = self.gateway_process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.gateway_process.kill()
            raise
        self.synapse.stdin.close()
        self.synapse.wait(PATIENCE)
        shutil.rmtree(self.directory)
        assert status == 0, f"the gateway ended with {status}"

    def protection(self):
        """Whom the gateway serves."""
        return ["--insecure-coap"]

    def options(self):
        """What the gateway is told beside."""
        return []

    def wait_for_gateway(self):
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up and self.gateway_process.poll() is None:
            found = re.search(rf"^listening on ({self.SCHEME}://\S+)\n", self.gateway_log(), re.MULTILINE)
            if found:
                return found[1]
            time.sleep(0.02)
        self.gateway_process.kill()
        raise AssertionError(f"the gateway does not listen: {self.gateway_log()}")

    def gateway_log(self):
        return (self.directory / "gateway.log").read_text()

    def http(self, method, target, token=None, body=None):
        """The homeserver's own answer: status and body."""
        request = urllib.request.Request(self.homeserver + target, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def answer(self, target, token):
        """The body of the homeserver's answer to a GET that succeeds."""
        status, body = self.http("GET", target, token)
        assert status == 200, (target, status, body)
        return body

    def steady(self, target, token, ask):
        """Asks until the homeserver says the same before and after, and returns that and what was heard in between.

        A homeserver does some things in its own time: presence ends, a new name spreads to the rooms.
        """
        for _ in range(5):
            before, ours, after = self.answer(target, token), ask(), self.answer(target, token)
            if timeless(before) == timeless(after):
                return ours, before
        raise AssertionError(f"the homeserver's answer to {target} changes all the time")


def registration(name):
    return {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}


def login(name):
    user = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": user, "password": "correct horse"}


def same(ours, theirs):
    """Fails unless two bodies are the same, but for what counts from the moment of asking."""
    assert timeless(ours) == timeless(theirs), f"not the same:\n{json.dumps(ours)}\n{json.dumps(theirs)}"


def timeless(value):
    if isinstance(value, dict):
        counting = {"age", "last_active_ago", "retry_after_ms"}
        return {name: timeless(inner) for name, inner in value.items() if name not in counting}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    # 1 == 1.0 == True in Python, and not in JSON.
    return value if isinstance(value, str) else (type(value), value)


def messages(sync, room):
    """The texts of the messages of a room in an answer of /sync."""
    joined = sync.get("rooms", {}).get("join", {}).get(room, {})
    events = joined.get("timeline", {}).get("events", [])
    return [event["content"].get("body") for event in events if event["type"] == "m.room.message"]
