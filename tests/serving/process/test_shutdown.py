"""A worker that stops responds to every request that it has accepted."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from loadtest.client.http1 import post
from loadtest.client.threaded import ThreadedClients
from tests.servers import PLAIN, ROOT, wait_until
from tests.serving.process.stopping_app import LARGE

BODY = b"x" * 20_000


@contextlib.contextmanager
def rounds(number: int, kind: str, lame_duck: float = 0.1) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.serving.process.stopping_app", str(number), kind, str(lame_duck)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextlib.contextmanager
def clients_of(port: int) -> Iterator[list[ThreadedClients]]:
    """Run clients that keep their connections and clients that make a new one each time; both get responses."""
    both = [ThreadedClients(port, [post("/", BODY, keep_alive=keep)], 4) for keep in (True, False)]
    try:
        for clients in both:
            clients.start()
        wait_until(lambda: all(clients.count("answered") for clients in both), "responses came")
        yield both
    finally:
        for clients in both:
            clients.stop()


def stop_under_load(number: int) -> None:
    with rounds(number, "new") as process:
        for _ in range(number):
            with clients_of(int(line(process))) as sending:
                time.sleep(0.1)
                process.send_signal(signal.SIGUSR1)
                assert line(process) == "ended"
            for clients in sending:
                assert clients.count("lost") == 0, clients.counts
                assert set(clients.statuses()) == {200}


def test_nothing_accepted_is_lost_when_all_stop() -> None:
    # Twenty stops, which mostly wait, four at a time.
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(stop_under_load, [5] * 4):
            pass


def test_nothing_at_all_is_lost_when_one_worker_follows_another() -> None:
    with rounds(3, "same") as process:
        with clients_of(int(line(process))) as sending:
            for _ in range(2):
                time.sleep(0.1)
                process.send_signal(signal.SIGTERM)
                assert line(process) == "ended"
                line(process)
                answered = sending[0].count("answered")
                wait_until(lambda before=answered: sending[0].count("answered") > before, "the next worker answered")  # type: ignore[misc]
        for clients in sending:
            assert set(clients.counts) == {("answered", 200)}, clients.counts


def test_a_lame_duck_answers_on_old_and_new_connections_and_ends_each() -> None:
    # A new client takes a tenth of a second on a busy machine.
    with rounds(1, "new", lame_duck=1.0) as process:
        url = f"http://127.0.0.1:{line(process)}"
        with httpx.Client(verify=PLAIN) as client:
            assert client.post(url, content=BODY).json() == {"ready": True}
            process.send_signal(signal.SIGUSR1)
            old = client.post(url, content=BODY)
            # The server looks for signals ten times a second.
            while (new := httpx.post(url, content=BODY, verify=PLAIN)).headers.get("connection") != "close":
                pass
        assert old.status_code == new.status_code == 200
        assert new.json() == {"ready": False}
        assert line(process) == "ended"


def test_a_body_on_its_way_is_waited_for() -> None:
    with rounds(1, "new") as process:
        request = post("/", BODY, keep_alive=True)
        port = int(line(process))
        assert httpx.post(f"http://127.0.0.1:{port}", content=BODY, verify=PLAIN).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request[:-1])
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.2)
            connection.sendall(request[-1:])
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"ready": False}
        assert line(process) == "ended"


def test_a_head_on_its_way_is_waited_for() -> None:
    with rounds(1, "new") as process:
        request = post("/", BODY, keep_alive=True)
        port = int(line(process))
        assert httpx.post(f"http://127.0.0.1:{port}", content=BODY, verify=PLAIN).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request[:20])
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.2)
            connection.sendall(request[20:])
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert line(process) == "ended"


def test_an_answer_is_read_to_its_end_by_a_slow_client() -> None:
    with rounds(1, "new") as process:
        port = int(line(process))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(post("/large", b"x", keep_alive=True))
            received = len(connection.recv(65536))
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.2)
            while data := connection.recv(65536):
                received += len(data)
                time.sleep(0.005)
        assert received > LARGE
        assert line(process) == "ended"


def test_a_client_that_reads_nothing_does_not_keep_the_server() -> None:
    with rounds(1, "new") as process:
        port = int(line(process))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(post("/large", b"x", keep_alive=True))
            time.sleep(0.3)
            process.send_signal(signal.SIGUSR1)
            assert line(process) == "ended"
