"""All private and patched parts of BentoML, uvicorn and circus that the service relies on, in one file.

`bentoml serve` is the command that users know, but it has no option for another supervisor, another HTTP server, or an
application around its own. The service therefore uses parts of these libraries that any release may change. Each part
is listed here with its reason and its source. `check_worker` and `check_supervisor` find at start-up what the installed
version lacks, so that users read one line instead of a traceback. No other file of `serving` names a private part of a
library.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from operator import attrgetter
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn

from models.common.errors import HalftoneError

if TYPE_CHECKING:
    import uvicorn
    from opentelemetry.trace import TracerProvider
    from starlette.types import ASGIApp

    from serving.http.connections import GuardedConnection


class IncompatibleLibraryError(HalftoneError):
    """The installed version of a library lacks something that the service relies on."""


@dataclass(frozen=True)
class Library:
    """A library, and the version that this file was written for."""

    name: str
    """Name of the distribution."""

    written_for: str
    """Version that was read and tried."""

    package: str
    """Prefix of its modules' names, left out of messages."""


BENTOML = Library("bentoml", "1.4.39", "bentoml.")
UVICORN = Library("uvicorn", "0.54.0", "uvicorn.")
CIRCUS = Library("kantoku", "0.18.3", "")
"""BentoML's fork of circus, which is imported as `circus`."""


@dataclass(frozen=True)
class Part:
    """An object of a library, and what it must have."""

    library: Library
    module: str
    name: str
    """Dotted name in the module."""

    needs: tuple[str, ...] = ()
    """Attributes of an object or of a class's instances; for a function, its parameters and the names that it uses."""

    def load(self) -> Any:
        """Import the object.

        Raises:
            IncompatibleLibraryError: the installed version lacks it, or something that it needs to have.
        """
        try:
            found = attrgetter(self.name)(importlib.import_module(self.module))
        except (ImportError, AttributeError) as error:
            raise _lacks(self.library, f"{self.module}.{self.name}") from error
        names = {*dir(found), *_names_in_code(found)}
        for each in self.needs:
            if each not in names:
                raise _lacks(self.library, f"{self.module}.{self.name}.{each}")
        return found


# Number of a worker: BentoML has no public name for it.
# https://github.com/bentoml/BentoML/blob/v1.4.39/src/bentoml/_internal/context.py
_SERVER_CONTEXT = Part(BENTOML, "bentoml._internal.context", "server_context", ("worker_index",))

# Exporter of the traces: BentoML neither has a public name for its provider nor makes it OpenTelemetry's global one.
# https://github.com/bentoml/BentoML/blob/v1.4.39/src/bentoml/_internal/configuration/containers.py
_CONTAINER = Part(BENTOML, "bentoml._internal.configuration.containers", "BentoMLContainer", ("tracer_provider",))

# Service class that wraps BentoML's application in ours. BentoML's middlewares cost about 0.2 ms of processor time a
# request, and its time-out keeps a timer for every request until the time is over, even if the response was sent long
# ago: at a few hundred requests a second these timers alone fill the memory.
# https://github.com/bentoml/BentoML/blob/v1.4.39/src/_bentoml_sdk/service/factory.py
_DECORATOR = Part(BENTOML, "bentoml", "service", ("service_class",))
_SERVICE = Part(BENTOML, "bentoml", "Service", ("to_asgi",))

# Server of the workers: uvicorn's loses requests when it stops and has no limits for connections. BentoML reads the
# class from the module when a worker starts.
# https://github.com/bentoml/BentoML/blob/v1.4.39/src/_bentoml_impl/worker/service.py
# https://github.com/Kludex/uvicorn/blob/0.54.0/uvicorn/server.py
_WORKER = Part(BENTOML, "_bentoml_impl.worker.service", "main.callback", ("uvicorn", "Server", "to_asgi"))
_SERVER = Part(
    UVICORN,
    "uvicorn.server",
    "Server",
    (
        *("startup", "shutdown", "handle_exit", "config", "lifespan", "servers", "server_state"),
        *("should_exit", "force_exit"),
    ),
)
_SERVER_STATE = Part(UVICORN, "uvicorn.server", "ServerState", ("connections", "default_headers"))
_CONFIG = Part(UVICORN, "uvicorn.config", "Config", ("http", "http_protocol_class", "backlog", "ssl"))

ADDRESSES = "BENTOML_RUNNER_MAP"
"""Environment variable that `bentoml serve` sets in its workers: name of a service to its URL, as JSON."""

# Connections: `serving.http.connections` adds limits to this protocol.
# https://github.com/Kludex/uvicorn/blob/0.54.0/uvicorn/protocols/http/httptools_impl.py
_HTTPTOOLS = "uvicorn.protocols.http.httptools_impl"
_PROTOCOL = Part(
    UVICORN,
    _HTTPTOOLS,
    "HttpToolsProtocol",
    (
        *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing", "shutdown"),
        *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete", "send_400_response"),
        *("timeout_keep_alive_handler", "app", "connections", "cycle", "flow", "headers", "loop", "pipeline"),
        *("transport", "parser", "url", "_should_upgrade", "_unsupported_upgrade_warning"),
    ),
)
_CYCLE = Part(UVICORN, _HTTPTOOLS, "RequestResponseCycle", ("keep_alive", "response_started", "response_complete"))

# Supervision: BentoML checks its workers every ten seconds, restarts a worker that can't start without end, exits with
# code 0 whatever happened, and prints a traceback if the port is taken. It reads the class from the module when it
# makes its supervisor.
# https://github.com/bentoml/BentoML/blob/v1.4.39/src/bentoml/_internal/utils/circus/__init__.py
# https://github.com/bentoml/kantoku, version 0.18.3: circus/arbiter.py, circus/watcher.py and circus/exc.py
_BENTOML_CIRCUS = "bentoml._internal.utils.circus"
_ARBITER_FACTORY = Part(BENTOML, _BENTOML_CIRCUS, "create_standalone_arbiter", ("Arbiter",))
_ARBITER = Part(BENTOML, _BENTOML_CIRCUS, "Arbiter", ("start", "stop", "exit_stack"))
_CIRCUS_ARBITER = Part(
    CIRCUS,
    "circus.arbiter",
    "Arbiter",
    (
        *("start", "stop", "initialize", "manage_watchers", "endpoint", "pubsub_endpoint", "check_delay"),
        *("loop", "sockets", "watchers", "_stopping"),
    ),
)
_WATCHER = Part(
    CIRCUS,
    "circus.watcher",
    "Watcher",
    (
        *("name", "cmd", "args", "env", "working_dir", "hooks", "numprocesses", "processes", "respawn", "stop_signal"),
        *("after_reap", "close_child_stdin", "use_sockets", "stop_children", "graceful_timeout", "copy_env"),
        *("_process_class", "spawn_process"),
    ),
)
_SOCKET = Part(CIRCUS, "circus.sockets", "CircusSocket", ("name", "host", "port", "family", "backlog"))
_CONFLICT = Part(CIRCUS, "circus.exc", "ConflictError")

# Processes of the watchers: `serving.process.supervision.forked` replaces their start.
_PROCESS = Part(
    CIRCUS, "circus.process", "Process", ("spawn", "format_args", "_get_sockets_fds", "_worker", "env", "working_dir")
)

WORKER_PARTS = (
    *(_SERVER_CONTEXT, _CONTAINER, _DECORATOR, _SERVICE),
    *(_SERVER, _SERVER_STATE, _CONFIG, _PROTOCOL, _CYCLE),
)
SUPERVISOR_PARTS = (_WORKER, _ARBITER_FACTORY, _ARBITER, _CIRCUS_ARBITER, _WATCHER, _SOCKET, _PROCESS, _CONFLICT)
"""Not checked in workers, which don't import circus."""


def check_worker() -> None:
    """Check everything that a worker relies on.

    Raises:
        IncompatibleLibraryError: something is missing; the message names it, both versions and the fix in one line.
    """
    for part in WORKER_PARTS:
        part.load()
    static_files()


def check_supervisor() -> None:
    """Check everything that only the supervisor relies on; raises like `check_worker`."""
    for part in SUPERVISOR_PARTS:
        part.load()


def worker_number() -> int:
    """Return the number of this worker among those of the service, from 1 on."""
    return _SERVER_CONTEXT.load().worker_index or 1


def tracer_provider() -> TracerProvider:
    """Return the provider whose spans BentoML exports; to be called in a worker."""
    provider: TracerProvider = _CONTAINER.load().tracer_provider.get()
    return provider


def static_files() -> frozenset[str]:
    """Return the names of the files that BentoML's web page loads from `/static_content/`.

    https://github.com/bentoml/BentoML/tree/v1.4.39/src/bentoml/_internal/server/static_content

    Raises:
        IncompatibleLibraryError: BentoML has no such folder.
    """
    folder = files("bentoml") / "_internal" / "server" / "static_content"
    if not folder.is_dir():
        raise _lacks(BENTOML, "bentoml._internal.server.static_content")
    return frozenset(file.name for file in folder.iterdir())


def service_class(wrap: Callable[[ASGIApp], ASGIApp], *, install_server: Callable[[], object]) -> type[Any]:
    """Return a class for `@bentoml.service(service_class=…)`.

    Args:
        wrap: makes the application that the server calls from BentoML's.
        install_server: called in a worker before it makes its server; to call `use_server`.
    """

    class WrappedService(_SERVICE.load()):  # type: ignore[misc]
        def to_asgi(self, is_main: bool = True) -> Any:
            install_server()
            return wrap(super().to_asgi(is_main))

    return WrappedService


def use_server(make: Callable[[uvicorn.Config], uvicorn.Server]) -> None:
    """Let BentoML's worker run the server that `make` returns; to be called before it makes uvicorn's."""
    import uvicorn

    uvicorn.Server = make  # type: ignore[misc, assignment]


def guarded_protocol(
    limited: type[GuardedConnection], has_surplus: Callable[[int], bool] | None = None
) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with the limits of `limited`.

    Args:
        limited: from `serving.http.connections.with_limits`.
        has_surplus: see `GuardedConnection`; None if there is one worker.
    """
    extra = {"has_surplus": staticmethod(has_surplus)} if has_surplus else {}
    return type("Connection", (limited, _PROTOCOL.load()), extra)


def arbiter_class() -> type[Any]:
    """Return circus' supervisor, to be derived from."""
    found: type[Any] = _CIRCUS_ARBITER.load()
    return found


def watcher_class() -> type[Any]:
    """Return circus' class of a group of processes."""
    found: type[Any] = _WATCHER.load()
    return found


def socket_class() -> type[Any]:
    """Return circus' class of a listening socket."""
    found: type[Any] = _SOCKET.load()
    return found


def use_arbiter(kind: type[Any]) -> None:
    """Let `bentoml serve` use this class in place of its supervisor; to be called before it makes its own."""
    importlib.import_module(_BENTOML_CIRCUS).Arbiter = kind  # type: ignore[attr-defined]


def process_class() -> type[Any]:
    """Return the class of the supervisor's processes, to be derived from."""
    found: type[Any] = _PROCESS.load()
    return found


def use_process(watcher: Any, kind: type[Any]) -> None:
    """Let a watcher start its processes with this class."""
    # A property: another class of watchers is the only way to replace it.
    watcher.__class__ = type("Watcher", (type(watcher),), {"_process_class": kind})


def is_worker(command: Sequence[str]) -> bool:
    """Return True if a command starts a worker, not another process of the supervisor: `--reload` has one."""
    return _WORKER.module in command


def run_worker(command: list[str]) -> NoReturn:
    """Run BentoML's worker in this process, which has imported it: `python -m _bentoml_impl.worker.service …`.

    Args:
        command: program and arguments of a new process.
    """
    worker = importlib.import_module(_WORKER.module)
    sys.argv = command[command.index("-m") + 1 :]
    worker.main(sys.argv[1:])
    sys.exit(0)


def is_stopping(arbiter: Any) -> bool:
    """Return True if the supervisor ends its workers."""
    return bool(arbiter._stopping)


def _names_in_code(found: Any) -> Iterator[str]:
    """Yield the names in the code of a function, or the attributes and strings in the methods of a class and its bases.

    `dir` of a class lacks the attributes that `__init__` sets.
    """
    is_class = isinstance(found, type)
    for member in [each for base in found.__mro__ for each in vars(base).values()] if is_class else [found]:
        code = getattr(inspect.unwrap(member), "__code__", None) if callable(member) else None
        if isinstance(code, CodeType):
            yield from (*code.co_names, *code.co_consts)
            if not is_class:
                yield from code.co_varnames


def _lacks(library: Library, name: str) -> IncompatibleLibraryError:
    pinned = f"'{library.name}=={library.written_for}'"
    try:
        installed = version(library.name)
    except PackageNotFoundError:
        return IncompatibleLibraryError(f"{library.name} is not installed: `pip install {pinned}`")
    missing = f"{library.name} {installed} has no `{name.removeprefix(library.package)}`"
    if installed == library.written_for:
        return IncompatibleLibraryError(f"{missing}, so it is damaged: `pip install --force-reinstall {pinned}`")
    return IncompatibleLibraryError(
        f"{missing} (Halftone was written for {library.written_for}): `pip install {pinned}`"
    )
