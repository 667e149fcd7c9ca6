"""A Matrix client's end: `lowband proxy`, as a device with OSCORE, behind `lowband link run` as hf-100, some times as fast as it is."""

import json
import re
import subprocess
import time
import urllib.request

from slow import SlowWorld
from world import PATIENCE
from world import login
from world import registration


class FarWorld(SlowWorld):
    """What is between the client and the homeserver: proxy, slow link, gateway."""

    # Whether frames are lost.
    LOSS = "0"
    @property
    def BEHIND(self):
        """How the proxy knows the link."""
        return ["--link", "hf-100", "--link-speed", str(self.SPEED)]

    def __enter__(self):
        super().__enter__()
        self.proxy_process = None
        self.proxy = None
        return self

    def protection(self):
        return ["--state", self.directory / "state"]

    def relaying(self, listen):
        return [*super().relaying(listen), "--loss", self.LOSS]

    def device(self, *words):
        """What `lowband device` prints, beside the gateway that runs."""
        words = ["device", *words, "--devices", "state.devices"]
        ran = subprocess.run([self.lowband, *words], cwd=self.directory, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return f"$ lowband {' '.join(words)}\n{ran.stdout}{ran.stderr}"

    def begin(self, user, *options):
        """The operator adds the device `boat` of a user who has a password, and the proxy begins; what was typed."""
        status, answer = self.http("POST", "/_matrix/client/v3/login", None, login(user))
        assert status == 200, answer
        (self.directory / "token").write_text(answer["access_token"])
        of = ["--user", answer["user_id"], "--token-file", "token", "--homeserver", self.homeserver]
        added = self.device("add", "boat", *of, "--allow-token", "--routes", "all")
        return added + self.device("export", "boat", "-o", "boat.toml") + self.start_proxy(*options)

    def start_proxy(self, *options):
        """Starts it for the device `boat`; what was typed."""
        address = self.gateway.removeprefix("coap://")
        words = ["proxy", "--gateway", f"coaps+oscore://{address}", "--credentials", "boat.toml", "--listen"]
        words += ["127.0.0.1:0", *self.BEHIND, *options]
        with open(self.directory / "proxy.log", "w") as log:
            self.proxy_process = subprocess.Popen([self.lowband, *words], cwd=self.directory, stderr=log)
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up and self.proxy_process.poll() is None:
            found = re.search(r"^listening on (http://[0-9.:]+)", self.proxy_log(), re.MULTILINE)
            if found:
                self.proxy = found[1]
                return f"$ lowband {' '.join(words)}\n{self.proxy_log()}"
            time.sleep(0.02)
        raise AssertionError(f"the proxy does not listen: {self.proxy_log()}")

    def proxy_log(self):
        return (self.directory / "proxy.log").read_text()

    def crossed(self):
        """Bytes of UDP up and down that have crossed the link so far, and how many datagrams."""
        passed = re.findall(r" (up|down) +([0-9]+) B", self.relay_log())
        of = {way: sum(int(count) for to, count in passed if to == way) for way in ("up", "down")}
        return of["up"], of["down"], len(passed)

    def proxy_status(self):
        with urllib.request.urlopen(f"{self.proxy}/_lowband/status", timeout=PATIENCE) as response:
            return json.load(response)

    def register(self, *names):
        """Users with a password each."""
        for name in names:
            status, user = self.http("POST", "/_matrix/client/v3/register", None, registration(name))
            assert status == 200, user

    def __exit__(self, *error):
        if self.proxy_process is not None:
            self.proxy_process.terminate()
            status = self.proxy_process.wait(PATIENCE)
            assert status == 0, f"the proxy ended with {status}"
        super().__exit__(*error)
