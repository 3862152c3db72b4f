"""Several workers behind one address: all of them answer, each replaceable, told apart by the metrics alone."""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import prometheus_client
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.threaded import Crowd, post
from loadtest.restarts import Restarts, Stops, stop_once
from models.common.errors import HalftoneError
from serving.process import worker_table as crew
from serving.process.acceptor import Acceptor, ConnectionShare
from serving.settings import Settings
from serving.telemetry.catalogue import QUEUE_DEPTH, REJECTED_TOTAL, REQUEST_SECONDS
from serving.telemetry.metrics import Metrics
from serving.telemetry.worker_metrics import WorkerMetrics
from tests.servers import PHOTOS, QUICK, ROOT, Server, environment, free_port, serve, wait_until

CAT = (PHOTOS / "cat.jpg").read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
TWO = {"HALFTONE_WORKERS": "2", "HALFTONE_THREADS": "1", **QUICK}


@pytest.fixture(scope="module")
def two(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(artifacts, tmp_path_factory.mktemp("workers") / "log", **TWO) as running:
        # From the first 200 of /readyz on everybody is answered.
        for _ in range(20):
            assert running.post("/classify", content=CAT, headers=JPEG).status_code == 200
        wait_until(lambda: len(shares(running)) == 2, "both workers were ready")
        yield running


def workers(server: Server) -> list[psutil.Process]:
    found = psutil.Process(server.process.pid).children()
    return [child for child in found if "_bentoml_impl.worker.service" in child.cmdline()]


def shares(server: Server) -> dict[str, float]:
    """Worker to the number of pictures that it classified, for those that serve the model."""
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            worker = sample.labels.get("worker", "")
            if sample.name == "halftone_model_info":
                counts.setdefault(worker, 0.0)
            if sample.name == "halftone_request_seconds_count" and sample.labels["route"] == "/classify":
                counts[worker] = counts.get(worker, 0.0) + sample.value
    return counts


def test_they_share_the_connections_that_clients_keep(two: Server) -> None:
    before = shares(two)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=two.url, timeout=60)) for _ in range(8)]
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
    crowd = Crowd(httpx.URL(two.url).port or 0, [post("/classify", CAT, keep_alive=False)], 4)
    crowd.start()
    wait_until(lambda: crowd.count("answered") > 4, "answers came")

    victim.kill()
    wait_until(lambda: len(shares(two)) == 2 and victim.pid not in [each.pid for each in workers(two)], "it came back")
    answered = crowd.count("answered")
    wait_until(lambda: crowd.count("answered") > answered + 4, "more answers came")
    crowd.stop()

    assert other.pid in [each.pid for each in workers(two)]
    assert set(crowd.statuses()) == {200}
    assert crowd.count("lost") + crowd.count("cut") <= 4
    assert crowd.count("refused") == 0


def test_kept_connections_are_spread_again_when_one_is_replaced(two: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=two.url, timeout=60)) for _ in range(8)]

        def ask(times: int) -> dict[str, float]:
            before = shares(two)
            for _ in range(times):
                for client in clients:
                    # The connections of the killed one are gone.
                    with contextlib.suppress(httpx.TransportError):
                        client.post("/classify", content=CAT, headers=JPEG)
            after = shares(two)
            return {worker: after[worker] - before.get(worker, 0.0) for worker in after}

        ask(1)
        victim = workers(two)[0]
        victim.kill()
        ask(2)
        wait_until(lambda: len(shares(two)) == 2 and len(workers(two)) == 2, "it came back")
        ask(3)
        taken = ask(3)

    assert sum(taken.values()) == 24
    assert min(taken.values()) >= 6


def test_the_service_stays_ready_while_one_is_told_to_stop(two: Server) -> None:
    victim = workers(two)[0]
    victim.terminate()

    codes = Counter[int]()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        codes[two.get("/readyz").status_code] += 1

    assert set(codes) == {200}
    wait_until(lambda: len(shares(two)) == 2 and victim.pid not in [each.pid for each in workers(two)], "it came back")


def test_one_that_can_not_be_replaced_leaves_the_others(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    manifest = tmp_path / "artifacts" / "efficientnet_lite0" / "manifest.json"
    whole = manifest.read_bytes()
    with serve(tmp_path / "artifacts", tmp_path / "log", **TWO) as running:
        wait_until(lambda: len(shares(running)) == 2, "both workers were ready")
        victim, other = workers(running)
        manifest.write_bytes(b"{")
        victim.kill()
        wait_until(lambda: "another one is started in" in running.log.read_text(), "it was tried in vain")
        assert running.post("/classify", content=CAT, headers=JPEG).status_code == 200

        manifest.write_bytes(whole)

        wait_until(lambda: len(shares(running)) == 2 and len(workers(running)) == 2, "it came back")
        assert other.pid in [each.pid for each in workers(running)]


def test_connections_are_refused_while_the_last_requests_end_and_nothing_is_left(
    artifacts: Path, tmp_path: Path
) -> None:
    with serve(artifacts, tmp_path / "log", TMPDIR=str(tmp_path), HALFTONE_DECODERS="1", **TWO) as running:
        wait_until(lambda: len(shares(running)) == 2, "both workers were ready")
        processes = psutil.Process(running.process.pid).children(recursive=True)
        assert list(tmp_path.glob("halftone-*"))
        port = httpx.URL(running.url).port or 0
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(CAT)
        )
        time.sleep(0.3)
        running.process.terminate()
        time.sleep(2)

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

        slow.sendall(CAT)
        assert slow.recv(12) == b"HTTP/1.1 200"
        slow.close()
        assert running.process.wait(timeout=20) == 0

    # Two workers, each with a process that decodes.
    assert len(processes) >= 4
    psutil.wait_procs(processes, timeout=10)
    assert not any(each.is_running() for each in processes)
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
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", str(free_port())]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(artifacts, **TWO),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server("", process, Path())  # type: ignore[arg-type]
    wait_until(lambda: len(workers(server)) == 2, "the workers were started")
    both = workers(server)

    both[0].kill()
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "not enough memory" in stderr
    assert not any(each.is_running() and each.status() != "zombie" for each in both)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"HALFTONE_WORKERS": "0"}, "HALFTONE_WORKERS must be at least 1"),
        ({"HALFTONE_WORKERS": "257"}, "HALFTONE_WORKERS must be at most 256"),
        ({"HALFTONE_WORKERS": "2", "HALFTONE_ADMIN_TOKEN": "x" * 20}, "HALFTONE_ADMIN_TOKEN needs HALFTONE_WORKERS=1"),
        ({"HALFTONE_DECODERS": "-2"}, "HALFTONE_DECODERS must be 0 or more, or -1"),
    ],
)
def test_settings_that_can_not_hold(values: dict[str, str], message: str) -> None:
    with pytest.raises(HalftoneError, match=message):
        Settings.from_environment(values)


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.cores", lambda: 16)

    assert [Settings(workers=workers).worker_threads for workers in (1, 4, 5, 32)] == [16, 4, 3, 1]
    more = Settings(workers=4, threads=7)
    assert (more.worker_threads, more.busy_threads, more.decoder_processes) == (7, 4, 4)


class Counting(asyncio.Protocol):
    """Keeps its connection until the client goes."""

    def __init__(self, connections: set[asyncio.Protocol]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"x")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)


class Place:
    """A listening socket with acceptors that share it, all on one event loop."""

    def __init__(self, number: int, loading: frozenset[int] | set[int] = frozenset()) -> None:
        descriptor = crew.create()
        self.crew = crew.WorkerTable(descriptor)
        os.close(descriptor)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.connections: list[set[asyncio.Protocol]] = [set() for _ in range(number)]
        # The others duplicate it: an event loop watches a descriptor once.
        self.listeners = [self.listener, *(self.listener.dup() for _ in range(number - 1))]
        self.acceptors = [
            Acceptor(
                listener,
                ConnectionShare(self.member(place), loaded=lambda place=place: place not in loading),  # type: ignore[misc]
                lambda own=own: Counting(own),  # type: ignore[misc]
                own,
                ssl=None,
            )
            for place, (listener, own) in enumerate(zip(self.listeners, self.connections, strict=True), start=1)
        ]

    def member(self, number: int) -> crew.WorkerSlot:
        member = self.crew.member(number)
        member.answers()
        return member

    async def connect(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        assert await reader.readexactly(1) == b"x"
        return writer

    @property
    def counts(self) -> list[int]:
        return [len(own) for own in self.connections]

    async def close(self, writers: list[asyncio.StreamWriter]) -> None:
        for writer in writers:
            writer.close()
        for acceptor, listener in zip(self.acceptors, self.listeners, strict=True):
            acceptor.close()
            await acceptor.wait_closed()
            listener.close()
        await asyncio.sleep(0.01)


@given(workers=st.integers(1, 4), bursts=st.lists(st.integers(1, 12), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_connections_are_spread_evenly(workers: int, bursts: list[int]) -> None:
    async def scenario() -> list[int]:
        place = Place(workers)
        writers: list[asyncio.StreamWriter] = []
        for burst in bursts:
            writers += await asyncio.gather(*(place.connect() for _ in range(burst)))
        counts = place.counts
        await place.close(writers)
        return counts

    counts = asyncio.run(scenario())

    assert sum(counts) == sum(bursts)
    assert max(counts) - min(counts) <= 3


def test_a_worker_that_hangs_is_not_waited_for() -> None:
    async def scenario() -> list[int]:
        place = Place(2)
        # It has fewer connections than anybody else, and takes none.
        place.crew.member(9).tell(0)
        writers = [await asyncio.wait_for(place.connect(), 5) for _ in range(10)]
        counts = place.counts
        await place.close(writers)
        return counts

    assert sum(asyncio.run(scenario())) == 10


def test_a_worker_that_left_takes_none() -> None:
    async def scenario() -> list[int]:
        place = Place(2)
        place.acceptors[0].close()
        place.acceptors[0].close()
        writers = [await place.connect() for _ in range(6)]
        counts = place.counts
        await place.close(writers)
        return counts

    assert asyncio.run(scenario()) == [0, 6]


def test_a_worker_without_its_models_leaves_connections_to_those_that_have_theirs() -> None:
    async def scenario() -> list[list[int]]:
        loading = {1}
        alone = Place(1, loading)
        first = await alone.connect()
        counts = [alone.counts]
        await alone.close([first])

        place = Place(2, loading)
        writers = [await place.connect() for _ in range(5)]
        counts.append(place.counts)
        loading.clear()
        await asyncio.sleep(0.2)
        writers += [await place.connect() for _ in range(5)]
        counts.append(place.counts)
        await place.close(writers)
        return counts

    alone, together, loaded = asyncio.run(scenario())

    # Alone it answers, if only that it isn't ready.
    assert (alone, together) == ([1], [0, 5])
    assert loaded[0] >= 4


def test_a_connection_without_a_handshake_holds_nobody_up() -> None:
    async def scenario() -> float:
        listener = socket.create_server(("127.0.0.1", 0))
        connections: set[asyncio.Protocol] = set()
        share = ConnectionShare(crew.WorkerTable(crew.create()).member(1))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        acceptor = Acceptor(listener, share, lambda: Counting(connections), connections, ssl=context)
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0.2)
            start = time.monotonic()
            acceptor.close()
            await acceptor.wait_closed()
            await asyncio.sleep(0.05)
        listener.close()
        return time.monotonic() - start

    assert asyncio.run(scenario()) < 10


class Exhausted(socket.socket):
    """A listening socket of a process that may open no more files, once."""

    failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_lack_of_files_passes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> float:
        listener = Exhausted()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connections: set[asyncio.Protocol] = set()
        share = ConnectionShare(crew.WorkerTable(crew.create()).member(1))
        acceptor = Acceptor(listener, share, lambda: Counting(connections), connections, ssl=None)
        start = time.monotonic()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.readexactly(1) == b"x"
        taken = time.monotonic() - start
        writer.close()
        acceptor.close()
        listener.close()
        await asyncio.sleep(0.01)
        return taken

    assert asyncio.run(scenario()) > 0.5
    assert "Too many open files" in caplog.text


def test_metrics_of_several_workers_are_one_exposition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = {number: Metrics() for number in (1, 2, 12)}
    for number, each in metrics.items():
        each.join(tmp_path, number)
        each.observe(REQUEST_SECONDS, ("/classify", "200", 'm"\n\\'), number)
        each.set(QUEUE_DEPTH, ("m", "v"), lambda number=number: number)  # type: ignore[misc]
        for _ in range(number):
            each.count(REJECTED_TOTAL, ("x",))
    # Of a worker that was killed: nobody listens.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "metrics-3"))

    text = metrics[2].exposition().decode()

    families = list(text_string_to_metric_families(text))
    assert Counter(family.name for family in families).most_common(1)[0][1] == 1
    values = {
        (sample.name, sample.labels["worker"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name in ("halftone_rejected_total", "halftone_request_seconds_sum", "halftone_queue_depth")
    }
    names = ("halftone_rejected_total", "halftone_request_seconds_sum", "halftone_queue_depth")
    assert values == {(name, str(number)): float(number) for name in names for number in metrics}
    assert caplog.text == ""
    assert not (tmp_path / "metrics-3").exists()


class Failing:
    """A collector that fails the first time."""

    calls = 0

    def collect(self) -> Iterator[prometheus_client.Metric]:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("not now")
        yield prometheus_client.Metric("told", "", "gauge")


def test_a_worker_tells_its_metrics_again_after_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    WorkerMetrics(tmp_path, 1, Failing()).start()
    asking = WorkerMetrics(tmp_path, 2, prometheus_client.CollectorRegistry())

    first = [family.name for family in asking.collect()]
    second = [family.name for family in asking.collect()]

    assert (first, second) == ([], ["told"])
    assert "not now" in caplog.text


def test_metrics_that_can_not_be_shared_say_so(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()

    with pytest.raises(OSError, match="AF_UNIX path too long"):
        Metrics().join(deep, 1)
