"""nginx in front of replicas, with the file that users deploy; replicas and their weights change without a restart."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from loadtest.client.blocking import status_of
from loadtest.reporting.cli import CompareError
from loadtest.servers.process import ROOT, NotReadyError, ServerProcess, free_port, process_tree, server_process

PROGRAM = "nginx"

_FILE = ROOT / "deploy" / "nginx" / "halftone.conf"
_REPLICA = re.compile(r"^( +server )\S+( .*;\n)", re.MULTILINE)
_LISTEN = "listen 80;"
_MAIN = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/halftone.conf;
}}
"""


def check_installed() -> None:
    """Raise CompareError if nginx or its configuration isn't there."""
    if not program():
        raise CompareError("nginx balances the replicas, and there is none: `apt-get install nginx-light`")
    if not _FILE.is_file():
        raise CompareError(f"{_FILE} is not there: run this command in the checkout")


def program() -> str | None:
    """Return the path of nginx, which Debian keeps out of the PATH of users; None: there is none."""
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin")


class Proxy:
    """A running nginx.

    Args:
        process: its main process.
        folder: of its configuration.
    """

    def __init__(self, process: ServerProcess, folder: Path) -> None:
        self.port = process.port
        self._process, self._folder = process, folder

    def send_to(self, weights: Mapping[str, int]) -> None:
        """Balance new requests over these addresses, `HOST:PORT`; return when the requests before have ended."""
        _configure(self._folder, self.port, weights)
        before = self._workers()
        self._process.process.send_signal(signal.SIGHUP)

        def replaced() -> None:
            if not (now := self._workers()) or before & now:
                raise NotReadyError("nginx has not read its configuration")

        self._process.wait_until(replaced)

    def _workers(self) -> set[int]:
        return {process.pid for process in process_tree(self._process.process.pid)[1:]}


@contextlib.contextmanager
def balanced(weights: Mapping[str, int]) -> Iterator[Proxy]:
    """Start nginx on a free port of 127.0.0.1 with these addresses, `HOST:PORT`; stop it at the end.

    Raises:
        CompareError: it is not installed, or can't be started.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="halftone-nginx-") as name:
        folder, port = Path(name), free_port()
        # Its workers belong to another user if it is started by root.
        folder.chmod(0o755)
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
        _configure(folder, port, weights)
        command = [str(program()), "-c", str(folder / "nginx.conf")]
        with server_process(command, os.environ, port) as process:

            def respond() -> None:
                if status_of(port, "/metrics") != 404:
                    raise NotReadyError("no response")

            process.wait_until(respond)
            yield Proxy(process, folder)


def _configure(folder: Path, port: int, weights: Mapping[str, int]) -> None:
    text = _FILE.read_text().replace(_LISTEN, f"listen 127.0.0.1:{port};")
    (first, *_), end = _REPLICA.finditer(text), list(_REPLICA.finditer(text))[-1].end()
    lines = (f"{first[1]}{address} weight={weight}{first[2]}" for address, weight in weights.items())
    (folder / "halftone.conf").write_text(text[: first.start()] + "".join(lines) + text[end:])
