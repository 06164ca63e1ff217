"""``posewarper label`` as a process of its own, and as much of a browser as tests without one need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/#([\w-]{32})(?:&frame=\d+)?\n")


class Page:
    """The command, started with a Python; as much of a browser as is needed here."""

    def __init__(self, *arguments: object, enter: bool = True, python: object = sys.executable) -> None:
        words = [str(python), "-m", "posewarper", "label", *map(str, arguments), "--no-browser"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        found = ADDRESS.fullmatch(self.first_line)
        if found is None:
            raise AssertionError((self.first_line, self.process.communicate(timeout=30)))
        self.address = self.first_line.strip()
        self.place, self.cookie = f"http://127.0.0.1:{found[1]}", ""
        if not enter:
            return
        answer = self.ask("/api/enter", {"token": found[2]})
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def ask(self, path: str, values: object = None):
        headers = {"Origin": self.place, "Content-Type": "application/json", "Cookie": self.cookie}
        data = None if values is None else json.dumps(values).encode()
        return urllib.request.urlopen(urllib.request.Request(self.place + path, data, headers), timeout=30)

    def read(self, path: str, values: object = None):
        return json.load(self.ask(path, values))

    def edit(self, *operations: object):
        base = self.read("/api/session")["revision"]
        return self.read("/api/edits", {"id": f"edit {base}", "base": base, "operations": operations})

    def end(self, with_signal: int) -> tuple[int, str]:
        self.process.send_signal(with_signal)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err
