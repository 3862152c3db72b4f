"""Real servers on 127.0.0.1, started by the command that a user types."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "export" / "photos"
START_SECONDS = 60
QUICK = {"HALFTONE_VARIANT": "onnxruntime-fp32", "HALFTONE_BATCH": "8"}
"""For servers whose speed doesn't matter: what needs no measuring starts in half the time."""


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **kwargs)  # type: ignore[arg-type]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(artifacts: Path | None, **settings: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("HALFTONE_")}
    where = {"HALFTONE_ARTIFACTS": str(artifacts)} if artifacts else {}
    # Servers of tests stop at once: who tests how they stop says otherwise.
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
    """`bentoml serve` on a free port until the block ends, ready when the block begins."""
    port = free_port()
    command = command or [
        str(Path(sys.executable).parent / "bentoml"),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=cwd,
            env=environment(artifacts, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return server.get("/readyz").status_code == 200

        wait_until(ready, "the server was ready")
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def bentoml_client(server: Server, calls: str) -> subprocess.CompletedProcess[str]:
    """Prints the results of `calls` on a `client` as JSON, in a process of its own as a user's script would be."""
    script = (
        "import bentoml, json, pathlib\n"
        f"photos = pathlib.Path({str(PHOTOS)!r})\n"
        f"with bentoml.SyncHTTPClient({server.url!r}) as client:\n"
        f"    print(json.dumps([{calls}]))"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
