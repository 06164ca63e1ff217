"""Two machines made of Linux namespaces: each has a network, process numbers and a name of its own.

They see one file system, as machines with a shared folder do, reach each other by a cable (veth) alone, and
know each other's names.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FIRST, PORT = "machine-1", 29400
HANGING, SEVERAL = (Path(__file__).with_name(name) for name in ("hanging.py", "several_commands.py"))


@dataclass
class Machine:
    """One machine, its address, and what runs on it."""

    name: str
    space: str
    address: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], said: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command; what it prints goes to a file."""
        # All that the command starts has process numbers of its own and ends with the first of it.
        enter = ["ip", "netns", "exec", self.space, "unshare", "--uts", "--pid", "--fork", "--kill-child"]
        enter += ["--mount-proc", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]
        own = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        with said.open("wb") as output:
            started = subprocess.Popen(
                [*enter, *command],
                env={**os.environ, **own, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.running.append(started)
        return started

    def die(self) -> None:
        """Kill all that runs on this machine, at once (SIGKILL)."""
        for started in self.running:
            started.send_signal(signal.SIGKILL)
            started.wait()
        self.running.clear()


def why_not() -> str | None:
    """Return why there can be no such machines here, None if there can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            return f"there is no program {program} (Debian's packages iproute2 and util-linux)"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    space = f"pw{os.getpid()}x"
    tried = subprocess.run(["ip", "netns", "add", space], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"ip netns add: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", space], check=True)
    return None


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Give two machines with a cable between them; they are gone afterwards, with all that runs on them."""

    def run(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    machines = [Machine(f"machine-{n}", f"pw{os.getpid()}m{n}", f"10.77.0.{n}") for n in (1, 2)]
    one, two = machines
    hosts = "127.0.0.1 localhost\n" + "".join(f"{m.address} {m.name}\n" for m in machines)
    try:
        for machine in machines:
            # `ip netns exec` puts the files of this folder in the places of those in /etc.
            files = Path("/etc/netns", machine.space)
            files.mkdir(parents=True)
            (files / "hosts").write_text(hosts)
            run("netns", "add", machine.space)
        cable = ["link", "add", "cable", "netns", one.space, "type", "veth", "peer", "name", "cable"]
        run(*cable, "netns", two.space)
        for machine in machines:
            run("-n", machine.space, "address", "add", f"{machine.address}/24", "dev", "cable")
            for link in ("cable", "lo"):
                run("-n", machine.space, "link", "set", link, "up")
        yield one, two
    finally:
        for machine in machines:
            machine.die()
            subprocess.run(["ip", "netns", "delete", machine.space], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns", machine.space), ignore_errors=True)


def torchrun(words: Sequence[str], *, run: str, port: int = PORT) -> list[str]:
    """Return the command that starts the process of each of two machines; ``words`` follow Python's name."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={FIRST}:{port}", f"--rdzv-id={run}"]
    return [*command, *words]


def wait_until(there: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait for something; AssertionError if it does not come in time."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.05)
