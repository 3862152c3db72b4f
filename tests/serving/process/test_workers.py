"""Several workers behind one address: all of them serve, each can be replaced, and the metrics distinguish them."""

import contextlib
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.http1 import post
from loadtest.client.threaded import ThreadedClients
from loadtest.restarts import Restarts, Stops, stop_once
from tests.servers import PHOTOS, PLAIN, QUICK, Server, alive, family_of, serve, wait_until
from tests.serving.process.starts import END_SECONDS, kill_worker, starting, workers_of

CAT = (PHOTOS / "cat.jpg").read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
TWO = {"HALFTONE_WORKERS": "2", "HALFTONE_THREADS": "1", **QUICK}


@pytest.fixture(scope="module")
def two(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(artifacts, tmp_path_factory.mktemp("workers") / "log", **TWO) as running:
        # From the first 200 of /readyz on, every request is served.
        for _ in range(20):
            assert running.post("/classify", content=CAT, headers=JPEG).status_code == 200
        wait_until(lambda: len(shares(running)) == 2, "both workers were ready")
        yield running


def workers(server: Server) -> list[psutil.Process]:
    return workers_of(server.process.pid)


def replaced(server: Server, victim: psutil.Process) -> bool:
    """Return True if two workers serve, and none of them is `victim`."""
    return len(shares(server)) == 2 and victim.pid not in [each.pid for each in workers(server)]


def shares(server: Server) -> dict[str, float]:
    """Return the number of images that each worker has classified, for workers that serve the model."""
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            worker = sample.labels.get("worker", "")
            if sample.name == "halftone_model_info":
                counts.setdefault(worker, 0.0)
            if sample.name == "halftone_request_seconds_count" and sample.labels["route"] == "/classify":
                counts[worker] = counts.get(worker, 0.0) + sample.value
    return counts


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_the_supervisor_keeps_no_library_of_the_service(two: Server) -> None:
    supervisor = psutil.Process(two.process.pid)

    assert not [each.path for each in supervisor.memory_maps() if "numpy" in each.path or "pydantic" in each.path]
    assert supervisor.cmdline()[-len(two.process.args) + 1 :] == two.process.args[1:]  # type: ignore[arg-type, index]


def test_they_share_the_connections_that_clients_keep(two: Server) -> None:
    before = shares(two)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=two.url, timeout=60, verify=PLAIN)) for _ in range(8)]
        for _ in range(3):
            for client in clients:
                assert client.post("/classify", content=CAT, headers=JPEG).status_code == 200

    after = shares(two)
    taken = {worker: after[worker] - before[worker] for worker in after}
    assert set(taken) == {"1", "2"}
    assert sum(taken.values()) == 24
    assert min(taken.values()) >= 9


def test_metrics_of_every_worker_are_in_every_answer(two: Server) -> None:
    for _ in range(6):
        families = {each.name: each for each in text_string_to_metric_families(two.get("/metrics").text)}

        for name in ("halftone_model_info", "halftone_queue_depth", "process_resident_memory_bytes"):
            assert sorted(sample.labels["worker"] for sample in families[name].samples) == ["1", "2"]


def test_the_others_answer_while_one_is_replaced(two: Server) -> None:
    victim, other = workers(two)
    clients = ThreadedClients(httpx.URL(two.url).port or 0, [post("/classify", CAT, keep_alive=False)], 4)
    clients.start()
    try:
        wait_until(lambda: clients.count("answered") > 4, "responses came")

        kill_worker(victim)
        wait_until(lambda: replaced(two, victim), "it was replaced")
        answered = clients.count("answered")
        wait_until(lambda: clients.count("answered") > answered + 4, "more responses came")
    finally:
        clients.stop()

    assert other.pid in [each.pid for each in workers(two)]
    assert set(clients.statuses()) == {200}
    assert clients.count("lost") + clients.count("cut") <= 4
    assert clients.count("refused") == 0


def test_kept_connections_are_spread_again_when_one_is_replaced(two: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=two.url, timeout=60, verify=PLAIN)) for _ in range(8)]

        def ask(times: int) -> dict[str, float]:
            before = shares(two)
            for _ in range(times):
                for client in clients:
                    # The connections of the killed worker are gone.
                    with contextlib.suppress(httpx.TransportError):
                        client.post("/classify", content=CAT, headers=JPEG)
            after = shares(two)
            return {worker: after[worker] - before.get(worker, 0.0) for worker in after}

        ask(1)
        victim = workers(two)[0]
        kill_worker(victim)
        ask(2)
        wait_until(lambda: len(shares(two)) == 2 and len(workers(two)) == 2, "it was replaced")
        ask(3)
        taken = ask(3)

    assert sum(taken.values()) == 24
    assert min(taken.values()) >= 6


def test_the_service_stays_ready_while_one_stops(two: Server) -> None:
    victim = workers(two)[0]
    victim.terminate()

    codes = Counter[int]()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        codes[two.get("/readyz").status_code] += 1

    assert set(codes) == {200}
    wait_until(lambda: replaced(two, victim), "it was replaced")


def test_one_that_can_not_be_replaced_leaves_the_others(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    manifest = tmp_path / "artifacts" / "efficientnet_lite0" / "manifest.json"
    whole = manifest.read_bytes()
    with serve(tmp_path / "artifacts", tmp_path / "log", **TWO) as server:
        wait_until(lambda: len(shares(server)) == 2, "both workers were ready")
        victim, other = workers(server)
        manifest.write_bytes(b"{")
        kill_worker(victim)
        wait_until(lambda: "another one is started in" in server.log.read_text(), "it could not be replaced")
        assert server.post("/classify", content=CAT, headers=JPEG).status_code == 200

        manifest.write_bytes(whole)

        wait_until(lambda: len(shares(server)) == 2 and len(workers(server)) == 2, "it was replaced")
        assert other.pid in [each.pid for each in workers(server)]


def test_connections_are_refused_while_the_last_requests_end_and_nothing_is_left(
    artifacts: Path, tmp_path: Path
) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(CAT)
    with serve(artifacts, tmp_path / "log", TMPDIR=str(tmp_path), HALFTONE_DECODERS="1", **TWO) as server:
        wait_until(lambda: len(shares(server)) == 2, "both workers were ready")
        processes = family_of(server.process.pid)[1:]
        assert list(tmp_path.glob("halftone-*"))
        port = httpx.URL(server.url).port or 0
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(head)
            time.sleep(0.3)
            server.process.terminate()
            time.sleep(2)

            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)

            slow.sendall(CAT)
            assert slow.recv(12) == b"HTTP/1.1 200"
        assert server.process.wait(timeout=20) == 0

    # Two workers, each with a process that decodes.
    assert len(processes) >= 4
    assert alive(processes, seconds=10) == []
    assert not list(tmp_path.glob("halftone-*"))


def test_nothing_accepted_is_lost_when_all_stop(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TWO | {"HALFTONE_ARTIFACTS": str(artifacts)}).items():
        monkeypatch.setenv(name, value)
    stops = Stops()
    requests = [post("/classify", CAT, keep_alive=keep) for keep in (True, False)]

    stop_once(stops, requests, Restarts(clients=8, lame_duck=0.3), 0.6)

    assert stops.answered > 0
    assert (stops.lost, stops.late_ready, stops.exit_codes) == (0, 0, {0: 1})
    assert set(stops.statuses) == {200}


def test_one_that_can_not_start_ends_all(artifacts: Path) -> None:
    with starting(artifacts, workers=2, **TWO) as (process, both):
        kill_worker(both[0])
        _, stderr = process.communicate(timeout=END_SECONDS)

        assert process.returncode == 1
        assert "not enough memory" in stderr
        assert alive(both) == []
