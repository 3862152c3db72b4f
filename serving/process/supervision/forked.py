"""Workers forked from the process that has imported the service: they share its pages and import nothing again.

They are forked before that process starts a thread or opens the port. Each one waits for what the supervisor would give
to a new process: arguments, environment, and open files. A worker that replaces another one is a new process.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import psutil

from serving.process.bentoml_compat import is_worker, process_class, run_worker

_HIGH = 256
"""Files that a worker must not close get numbers from here on, until those of the supervisor have theirs."""
_MOST_BYTES = 2**20
_LENGTH = 8

_waiting: list[tuple[int, socket.socket]] = []
"""Process id of each forked worker that has no work yet, and the connection to it."""

SUPPORTED = sys.platform == "linux"
"""Libraries of other systems may not be used after a fork."""


def fork(count: int, check: Callable[[], object]) -> None:
    """Fork workers that wait, and let the first one check what they will serve; before any thread is started.

    The check imports the runtimes, which this process then needs no memory for.

    Args:
        count: number of workers.
        check: ends the process if the workers could not serve; this process then ends with the same exit code.
    """
    if not SUPPORTED:
        check()
        return
    # The collector would write to every page that it shares.
    gc.collect()
    gc.freeze()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            ours.close()
            for _, other in _waiting:
                other.close()
            _wait(theirs, bool if number else check)
        theirs.close()
        _waiting.append((pid, ours))
        if not number and not ours.recv(1):
            _, status = os.waitpid(pid, 0)
            if (code := os.waitstatus_to_exitcode(status)) > 0:
                sys.exit(code)
            # A signal ended it: the supervisor starts a new process in its place.
            _waiting.pop()[1].close()


def waiting() -> list[tuple[int, int]]:
    """Return process id and descriptor of the connection of each worker that has no work yet."""
    return [(pid, connection.fileno()) for pid, connection in _waiting]


def keep() -> None:
    """Let the program that replaces this one have the connections."""
    for _, connection in _waiting:
        connection.set_inheritable(True)


def adopt(workers: Sequence[tuple[int, int]]) -> None:
    """Take over what `waiting` returned in the program that this one has replaced."""
    for pid, descriptor in workers:
        connection = socket.socket(fileno=descriptor)
        connection.set_inheritable(False)
        _waiting.append((pid, connection))


class ForkedWorker(psutil.Process):
    """A forked worker, with the methods of `psutil.Popen` that circus uses."""

    stdout = stderr = None
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        if self.returncode is None:
            try:
                # None if another part of circus has waited for it already; Popen then returns 0, too.
                self.returncode = int(self.wait(0) or 0)
            except psutil.TimeoutExpired:
                return None
        return self.returncode


def worker_class(descriptors: Sequence[int]) -> type[Any]:
    """Return the class of the supervisor's processes: a forked worker while there is one, else a new process.

    Args:
        descriptors: files that each worker inherits, beside its sockets.
    """

    class Process(process_class()):  # type: ignore[misc]
        def spawn(self) -> None:
            sockets = self._get_sockets_fds() or {}
            arguments = self.format_args(sockets_fds=sockets)
            while _waiting and is_worker(arguments):
                pid, connection = _waiting.pop(0)
                with connection, contextlib.suppress(OSError, psutil.NoSuchProcess):
                    worker = ForkedWorker(pid)
                    _give(connection, arguments, self.env, self.working_dir, [*descriptors, *sockets.values()])
                    self._worker = worker
                    return
                # It has ended, by a signal to all processes for example.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            super().spawn()

    return Process


def _give(
    connection: socket.socket, arguments: list[str], environment: dict[str, str], folder: str, descriptors: list[int]
) -> None:
    message = json.dumps([arguments, environment, folder, descriptors]).encode()
    socket.send_fds(connection, [len(message).to_bytes(_LENGTH)], descriptors)
    connection.sendall(message)


def _wait(connection: socket.socket, check: Callable[[], object]) -> NoReturn:
    """Check, wait for the supervisor's message, and be a worker; end if the supervisor does."""
    check()
    try:
        connection.sendall(b"\n")
        # Without a traceback; the handler of a worker comes with its server.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with socket.socket(fileno=fcntl.fcntl(connection.detach(), fcntl.F_DUPFD_CLOEXEC, _HIGH)) as end:
            arguments = _take(end)
    except (OSError, ValueError):
        os._exit(0)
    run_worker(arguments)


def _take(end: socket.socket) -> list[str]:
    """Receive and apply the message; return the arguments of the worker."""
    head, received, _, _ = socket.recv_fds(end, _LENGTH, _HIGH)
    length = int.from_bytes(head)
    if not 0 < length <= _MOST_BYTES:
        raise ValueError("the supervisor has ended")
    data = b""
    while len(data) < length:
        if not (part := end.recv(length - len(data))):
            raise ValueError("the supervisor has ended")
        data += part
    # From here on Ctrl-C is for the supervisor alone, and signals have the handlers of a new process.
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command, environment, folder, descriptors = json.loads(data)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _HIGH) for each in received]
    for each in received:
        os.close(each)
    for source, target in zip(high, descriptors, strict=True):
        os.dup2(source, target)
        os.close(source)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    return list(command)
