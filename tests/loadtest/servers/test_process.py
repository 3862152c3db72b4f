"""Server processes: whatever they do, nothing of them is left, and what has ended can be looked at."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loadtest.reporting.cli import PeerError
from loadtest.servers import process as processes
from loadtest.servers.catalogue import ours
from loadtest.servers.peer import expand
from loadtest.servers.process import (
    NotReadyError,
    cpu_seconds,
    free_port,
    peak_mib,
    process_tree,
    resident_mib,
    server_process,
    unshared_mib,
)
from tests.servers import alive, family_of

# A child in a session of its own, which ignores SIGTERM.
PARENT = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
process.stdout.readline()
open(sys.argv[1], "w").write(str(process.pid))
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    return alive(family_of(pid)[:1]) == []


def test_our_service_finds_bundles_and_settings_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HALFTONE_ARTIFACTS", raising=False)

    _, environment = expand(ours(HALFTONE_SETTINGS="tuned.env"), Path(sys.executable), 3000, "")
    _, untuned = expand(ours(HALFTONE_ARTIFACTS="mine", HALFTONE_SETTINGS=""), Path(sys.executable), 3000, "")

    assert environment["HALFTONE_ARTIFACTS"] == str(tmp_path / "artifacts")
    assert environment["HALFTONE_SETTINGS"] == str(tmp_path / "tuned.env")
    assert (untuned["HALFTONE_ARTIFACTS"], untuned["HALFTONE_SETTINGS"]) == (str(tmp_path / "mine"), "")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_server_is_stopped_with_all_its_children(tmp_path: Path, error: type[BaseException] | None) -> None:
    file = tmp_path / "child"

    def written() -> int:
        if not file.exists() or not file.read_text():
            raise NotReadyError("no child")
        return int(file.read_text())

    expected = pytest.raises(error) if error else contextlib.nullcontext()
    with expected, server_process([sys.executable, "-c", PARENT, str(file)], os.environ, free_port()) as server:
        child = server.wait_until(written)
        assert [member.pid for member in process_tree(server.process.pid)] == [server.process.pid, child]
        assert peak_mib(server.process.pid) > 1
        assert cpu_seconds(server.process.pid) > 0
        if error:
            raise error

    assert server.process.poll() is not None
    deadline = time.monotonic() + 10
    while not is_gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert is_gone(child)


def test_a_server_that_ends_is_quoted() -> None:
    code = "print('one'); raise SystemExit('the reason')"

    with (
        server_process([sys.executable, "-c", code], os.environ, free_port()) as server,
        pytest.raises(PeerError, match=r"ended with 1 before it served; its log ends: (one \| )?the reason"),
    ):
        server.wait_until(lambda: never("not yet"))


def test_a_server_that_never_serves_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_SECONDS", 0)

    with (
        server_process([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, free_port()) as server,
        pytest.raises(PeerError, match=r"not ready in 0 s \(still loading\); its log ends: \(empty\)"),
    ):
        server.wait_until(lambda: never("still loading"))


def never(reason: str) -> None:
    raise NotReadyError(reason)


def test_a_command_that_does_not_exist_is_not_started() -> None:
    with pytest.raises(PeerError, match="not started: "), server_process(["/no/such/server"], os.environ, 1):
        pytest.fail("it was started")


def test_a_process_that_has_ended_has_no_children_memory_or_time() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    seen = psutil.Process(ended.pid)
    ended.wait()

    assert process_tree(ended.pid) == []
    assert (resident_mib([seen]), unshared_mib([seen]), peak_mib(ended.pid), cpu_seconds(ended.pid)) == (0, 0, 0, 0)
