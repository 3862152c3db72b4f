"""Settings of the service: environment variables and an optional file of them, read and checked once at start-up.

The variable HALFTONE_SETTINGS names the file, which has lines of HALFTONE_NAME=VALUE; `loadtest.tune` writes such
files. `docker run --env-file` and systemd's EnvironmentFile read the same format.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from models.bundle.store import DEFAULT_MODEL
from models.common.errors import HalftoneError
from models.common.host import cores
from models.preprocess.collected import REASONS, Reason
from models.preprocess.decode import MAX_PIXELS
from serving.http.api_keys import Keys

VARIABLE = "HALFTONE_SETTINGS"
"""Environment variable that names a file of settings."""
PREFIX = "HALFTONE_"
MOST_WORKERS = 256

_NO_SETTINGS = {"HALFTONE_ARTIFACTS", VARIABLE}
"""The folder of bundles, which is read before a settings file, and the variable that names this file."""

_MAX_BYTES = 64 * 1024
_ORIGIN = re.compile(r"https?://[^/\s]+")
_SECRET = re.compile(r"[!-~]{16,}")
_NAME = re.compile(rf"{PREFIX}[A-Z][A-Z0-9_]*")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the service; the variable of a field such as `max_pixels` is HALFTONE_MAX_PIXELS.

    Raises:
        HalftoneError: a value is outside its range.
    """

    model: str = DEFAULT_MODEL
    """Names of the bundles to serve, separated by commas; the first is the default of a request."""

    variant: str = ""
    """Variant of every model, such as `onnxruntime-fp32`; empty: the fastest proven one on this machine."""

    allow_untrained: bool = False
    """Serve a bundle with random weights; its predictions mean nothing."""

    workers: int = 1
    """Processes that serve requests, each with its own models, queues and limits."""

    threads: int = 0
    """Threads that run each model in a worker, and one more to decode; 0: the cores divided by the workers."""

    decoders: int = -1
    """Processes that decode images for these threads; 0: the threads decode; -1: one for each thread, for the models
    that a measurement finds faster with them."""

    batch: int = 0
    """Largest batch; 0: measured at start-up; 1: no batches; more: all waiting images up to this number."""

    queue: int = 256
    """Images that may wait or be processed at once, for each model; a further one gets 429."""

    deadline: float = 10.0
    """Seconds that a request may take once its body has arrived; then it gets 504."""

    body_timeout: float = 30.0
    """Seconds that a body may take to arrive, and a client to read its response; a slower body gets 408."""

    header_timeout: float = 10.0
    """Seconds that the head of a request may take to arrive; a slower one gets 408."""

    queue_mb: float = 256.0
    """Bodies of all requests that may be held at once, in MiB; a further one gets 429."""

    connections: int = 1000
    """Connections that may be open at once; on a further one everything but the health paths gets 503."""

    api_keys: str = field(default="", repr=False)
    """Keys of the clients, separated by commas, each at least 16 visible ASCII characters, or @FILE with one key a
    line; empty: no key is needed."""

    metrics_open: bool = True
    """Show /metrics without a key; 0: it needs one if there are keys."""

    cors_origins: str = ""
    """Origins of the pages that may ask from a browser, such as `https://example.org`, separated by commas, or `*`;
    empty: none but the service's own."""

    lame_duck: float = 1.0
    """Seconds after SIGTERM in which /readyz is 503 and requests are still served, so that load balancers can react."""

    shadow: float = 0.0
    """Share of the images, 0 to 1, that the FP32 reference classifies again while the service is idle."""

    collect: str = ""
    """Folder for pictures of which the model was not sure, and a sample of all others (docs/collect.md); empty: none
    are kept. In a settings file, a relative folder starts at that file's."""

    collect_shares: str = ""
    """Shares of the pictures to collect that differ from `unfamiliar=1,unconfident=1,disagree=1,random=0.001`."""

    collect_mb: float = 1024.0
    """Largest size of the collected pictures in MiB; the oldest ones make room."""

    collect_pictures: int = 10_000
    """Most collected pictures; the oldest ones make room."""

    collect_days: float = 30.0
    """Days after which a collected picture is deleted."""

    explain: bool = True
    """Answer /explain: it takes memory only once it is asked, and cores only while they are idle."""

    max_body_mb: float = 32.0
    """Largest request body in MiB; a larger one gets 413."""

    max_pixels: int = MAX_PIXELS
    """Most pixels (width x height) of an image; a larger one gets 413 before it is decoded."""

    metrics: bool = True
    """Keep Prometheus metrics and show them at /metrics."""

    reports: bool = False
    """Show at /models/NAME the page that `python -m export.report` wrote."""

    log_requests: bool = True
    """Write one line to the log for each request."""

    log_format: str = "text"
    """Format of the log: `text` or `json`."""

    trace_endpoint: str = ""
    """URL that receives traces with OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; empty: no tracing."""

    trace_sample: float = 1.0
    """Share of the requests to trace, 0 to 1; a valid `traceparent` header decides for its request instead."""

    max_images: int = 64
    """Most images in one /classify_batch."""

    admin_token: str = field(default="", repr=False)
    """Token that requests to /admin must have, at least 16 visible ASCII characters; empty: /admin is switched off."""

    watch: float = 0.0
    """Seconds between checks of the bundles' manifests, to load a changed bundle; 0: only /admin loads one."""

    keep_previous: bool = True
    """Keep a replaced model in memory, so that a rollback is immediate."""

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "max_pixels", "max_images", "connections", "collect_pictures"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        times = ("deadline", "body_timeout", "header_timeout", "collect_days")
        for name in (*times, "max_body_mb", "queue_mb", "collect_mb"):
            self._check(name, 0 < getattr(self, name) < math.inf, "a positive number")
        for name in ("threads", "batch"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("decoders", self.decoders >= -1, "0 or more, or -1")
        self._check("workers", self.workers <= MOST_WORKERS, f"at most {MOST_WORKERS}")
        names = self.models
        self._check("model", all(names) and len(set(names)) == len(names), "different names separated by commas")
        self._check("lame_duck", 0 <= self.lame_duck < math.inf, "0 or a positive number")
        origins = "`*` or origins such as https://example.org, separated by commas"
        self._check("cors_origins", all(each == "*" or _ORIGIN.fullmatch(each) for each in self.origins), origins)
        self._check("shadow", 0 <= self.shadow <= 1, "from 0 to 1")
        known = f"a list such as random=0.01,disagree=0, with shares from 0 to 1 of {', '.join(REASONS)}"
        self._check("collect_shares", all(0 <= share <= 1 for share in self.shares.values()), known)
        self._check("log_format", self.log_format in ("text", "json"), "text or json")
        self._check("trace_sample", 0 <= self.trace_sample <= 1, "from 0 to 1")
        self._check("watch", 0 <= self.watch < math.inf, "0 or a positive number")
        if self.admin_token and not _SECRET.fullmatch(self.admin_token):
            raise HalftoneError(f"{PREFIX}ADMIN_TOKEN must be at least 16 visible ASCII characters, without spaces")
        if self.admin_token in self.keys:
            raise HalftoneError(f"{PREFIX}ADMIN_TOKEN must not be one of {PREFIX}API_KEYS: clients would be operators")
        if self.admin_token and self.workers > 1:
            raise HalftoneError(
                f"{PREFIX}ADMIN_TOKEN needs {PREFIX}WORKERS=1, because a request to /admin reaches only one worker: "
                f"with more, set {PREFIX}WATCH to load changed bundles"
            )
        if self.trace_endpoint and not self.trace_endpoint.startswith(("http://", "https://")):
            # Without the value: a URL may hold a password.
            raise HalftoneError(f"{PREFIX}TRACE_ENDPOINT must be a URL that starts with http:// or https://")
        self._check("max_images", self.max_images <= self.queue, f"at most the queue of {self.queue}")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise HalftoneError(f"{PREFIX}{name.upper()} must be {rule}, not {getattr(self, name)!r}")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the bundles to serve, at least one."""
        return tuple(name.strip() for name in self.model.split(","))

    @property
    def keys(self) -> Keys:
        """The API keys; a file of keys is read at every access."""
        return Keys.read(self.api_keys)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    @property
    def shares(self) -> dict[Reason, float]:
        """Share of the pictures to collect for each reason; NaN for what can't be parsed."""
        shares = dict.fromkeys(REASONS, 1.0) | {"random": 0.001}
        for part in filter(None, self.collect_shares.split(",")):
            name, _, value = part.partition("=")
            reason = next((each for each in REASONS if each == name.strip()), REASONS[0])
            shares[reason] = _share(value) if reason == name.strip() else math.nan
        return shares

    @property
    def max_body(self) -> int:
        """Largest request body in bytes."""
        return round(self.max_body_mb * 2**20)

    @property
    def max_held(self) -> int:
        """Bytes of bodies that may be held at once: at least the largest one allowed."""
        return max(round(self.queue_mb * 2**20), self.max_body)

    @property
    def worker_threads(self) -> int:
        """Threads that run each model, at least 1."""
        return self.threads or max(1, cores() // self.workers)

    @property
    def busy_threads(self) -> int:
        """Threads of each model in a worker that have a core of their own, at least 1."""
        return min(self.worker_threads, max(1, cores() // self.workers))

    @property
    def decoder_processes(self) -> int:
        """Processes that decode for a model, if processes decode for it."""
        return self.busy_threads if self.decoders < 0 else self.decoders

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the HALFTONE_* variables; an empty one counts as not set.

        The file that HALFTONE_SETTINGS names adds the variables that the environment lacks.

        Raises:
            HalftoneError: a variable with this prefix is unknown, a value can't be parsed or is out of range, or the
                file is not a settings file.
        """
        known = {PREFIX + each.name.upper(): each for each in fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in merged(environment).items():
            if not variable.startswith(PREFIX) or variable in _NO_SETTINGS or not text:
                continue
            if variable not in known:
                near = difflib.get_close_matches(variable, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise HalftoneError(f"{variable} is not a setting of the service: {hint}")
            if any(name in text for name in known):
                # Without the value: the other setting may be a secret.
                raise HalftoneError(f"{variable} contains another setting: write each on a line of its own")
            known_field = known[variable]
            values[known_field.name] = _parse(variable, text, type(known_field.default))
        return cls(**values)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parse(variable: str, text: str, kind: type[Any]) -> Any:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise HalftoneError(f"{variable} must be 1 or 0, not {text!r}")
    try:
        return kind(text)
    except ValueError:
        rule = "a whole number" if kind is int else "a number"
        raise HalftoneError(f"{variable} must be {rule}, not {text!r}") from None


def read(path: Path) -> dict[str, str]:
    """Return the variables of a file; empty lines and lines that start with `#` are skipped.

    No error shows a line: it may hold a key or token, also where it is not a setting.

    Raises:
        HalftoneError: the file can't be read, or a line is not a setting; the message names the line.
    """
    settings: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        where = f"{VARIABLE}: line {number} of {path}"
        if not equals or not _NAME.fullmatch(name):
            raise HalftoneError(f"{where} must be HALFTONE_NAME=VALUE{_meant(line)}")
        if name in _NO_SETTINGS:
            raise HalftoneError(f"{where}: {name} can't be set in the file: set it in the environment")
        if name in settings:
            raise HalftoneError(f"{where} sets {name} a second time: keep one of the lines")
        settings[name] = value
    return settings


def _meant(line: str) -> str:
    """Return which setting a wrong line begins with or contains, as the end of a message; empty if none is known."""
    words = re.findall(rf"{PREFIX}[A-Z_]+", line)
    known = {PREFIX + each.name.upper() for each in fields(Settings)}
    return next((f": write {word}=VALUE" for word in words if word in known), "")


def merged(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment with the settings of its file for variables that are missing or empty.

    A relative path in the file starts in the file's folder.

    Raises:
        HalftoneError: see `read`.
    """
    path = environment.get(VARIABLE)
    if path and (not path.isprintable() or (PREFIX in path and "=" in path)):
        raise HalftoneError(f"{VARIABLE} must be the path of a settings file, not the settings")
    from_file = read(Path(path)) if path else {}
    if path and (folder := from_file.get(f"{PREFIX}COLLECT")):
        # A worker may run in another folder than the one where the service was started.
        from_file[f"{PREFIX}COLLECT"] = str(Path(path).absolute().parent / folder)
    return from_file | {name: value for name, value in environment.items() if value or name not in from_file}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise HalftoneError(
            f"{VARIABLE}: {path.resolve()} can't be read ({error.strerror}): name an existing file, such as one "
            "that `python -m loadtest.tune` wrote"
        ) from None
    if len(data) > _MAX_BYTES:
        raise HalftoneError(f"{VARIABLE}: {path} has more than {_MAX_BYTES} bytes: it is not a settings file")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HalftoneError(f"{VARIABLE}: {path} is not UTF-8 text: it is not a settings file") from None
