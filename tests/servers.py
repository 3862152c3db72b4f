"""Real servers on 127.0.0.1, started by the command that a user types."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "export" / "photos"
START_SECONDS = 180
QUICK = {"HALFTONE_VARIANT": "onnxruntime-fp32", "HALFTONE_BATCH": "8"}
"""For servers whose speed doesn't matter: what needs no measuring starts in half the time."""
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx, which reads the certificates of the world for every client: a fiftieth of a second for plain HTTP."""


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("POST", path, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("GET", path, **kwargs)

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send a request on a connection of its own."""
        return httpx.request(method, self.url + path, timeout=60, verify=PLAIN, **kwargs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(artifacts: Path | None, **settings: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("HALFTONE_")}
    where = {"HALFTONE_ARTIFACTS": str(artifacts)} if artifacts else {}
    # A stop that is not the subject of a test takes no time.
    return base | where | {"BENTOML_DO_NOT_TRACK": "True", "HALFTONE_LAME_DUCK": "0", **settings}


def wait_until(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if ready():
                return
        time.sleep(0.05)
    raise AssertionError(f"{what} not within {START_SECONDS} s")


@contextlib.contextmanager
def serve(
    artifacts: Path | None, log: Path, command: list[str] | None = None, cwd: Path = ROOT, **settings: str
) -> Iterator[Server]:
    """Run `bentoml serve` on a free port, ready when the block begins and killed when it ends.

    Tests of how a service stops send it a signal and wait for its end inside the block.
    """
    port = free_port()
    command = command or [
        str(Path(sys.executable).parent / "bentoml"),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ]
    with tempfile.TemporaryDirectory(prefix="halftone-test-") as temporary, log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=cwd,
            env=environment(artifacts, **{"TMPDIR": temporary, **settings}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until(lambda: _ready(server), "the server was ready")
            yield server
        finally:
            kill(process)


def _ready(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    return server.get("/readyz").status_code == 200


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill the leader of a session with everything it started, also the service's workers, which lead their own."""
    family = family_of(process.pid)
    groups = [process.pid]
    for each in family:
        with contextlib.suppress(ProcessLookupError):
            groups.append(os.getpgid(each.pid))
    for group in dict.fromkeys(groups):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    process.wait()
    survivors = alive(family, seconds=20)
    for each in survivors:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    assert survivors == [], "processes of the service that outlived it"


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and everything that descends from it; what ends meanwhile is left out."""
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    return []


def alive(processes: Iterable[psutil.Process], *, seconds: float = 0) -> list[psutil.Process]:
    """Return those that have not ended within some seconds; a process that nobody has waited for yet has ended."""
    end = time.monotonic() + seconds
    while (running := [each for each in processes if _runs(each)]) and time.monotonic() < end:
        time.sleep(0.02)
    return running


def children_with(pid: int, argument: str) -> list[psutil.Process]:
    """Return the processes that descend from `pid` and have this argument on their command line."""
    found = []
    for child in family_of(pid)[1:]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if argument in child.cmdline():
                found.append(child)
    return found


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def bentoml_client(server: Server, calls: str) -> subprocess.CompletedProcess[str]:
    """Prints the results of `calls` on a `client` as JSON, in a process of its own as a user's script would be."""
    script = (
        "import bentoml, json, pathlib\n"
        f"photos = pathlib.Path({str(PHOTOS)!r})\n"
        f"with bentoml.SyncHTTPClient({server.url!r}) as client:\n"
        f"    print(json.dumps([{calls}]))"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
