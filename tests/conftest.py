"""What every test may use: the default bundle, made once by the command that a user types, and a server of it."""

import ctypes
import gc
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import order
from tests.browser import chromium
from tests.cache import fingerprint, made_once
from tests.commands import run
from tests.servers import Server, serve

KEPT = ("measured.json", "compiled-*.bin", ".compiled-*.bin", ".measured.*.json")
"""Files that a service adds to the folder of a bundle, and what is left of them if it is killed meanwhile."""

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

if CORES and (worker := os.environ.get("PYTEST_XDIST_WORKER", "")):
    # One core for each process of pytest-xdist and for all that it starts: threads of two processes would wait for each
    # other on every core, which takes twice as long.
    os.sched_setaffinity(0, {CORES[int(worker[2:]) % len(CORES)]})

# Where the environment forbids bytecode, every process that tests start would compile all sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if threading.current_thread() is threading.main_thread():
    # A shell starts what runs in the background with SIGINT ignored, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if hasattr(libc := ctypes.CDLL(None), "mallopt"):
    # glibc gives large blocks back to the system at once, which clears them for the next use: a tenth of the CPU time
    # of tests that run networks. Processes that tests start have the default.
    libc.mallopt(MMAP_THRESHOLD, 2**30)
    libc.mallopt(TRIM_THRESHOLD, 2**30)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Flags for the daily loop, and for the order of the files."""
    group = parser.getgroup("halftone")
    group.addoption("--fast", action="store_true", help=f"leave out files that take over {order.FAST:.0f} s")
    group.addoption("--record-seconds", action="store_true", help=f"record in {order.FILE.name} how long files take")


def pytest_configure(config: pytest.Config) -> None:
    """Record durations in the process that gives out the tests."""
    if config.getoption("--record-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(order.Recorder())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest files first; tests marked `gpu` run where PyTorch finds one, `browser` with Chromium."""
    left_out = order.slow(items) if config.getoption("--fast") else set()
    on_gpu = {item for item in items if item.get_closest_marker("gpu")}
    if on_gpu and not _has_gpu():
        left_out |= on_gpu
    if not chromium():
        left_out |= {item for item in items if item.get_closest_marker("browser")}
    left_out |= {item for item in items if (tool := item.get_closest_marker("tool")) and not shutil.which(*tool.args)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    order.sort(items)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what the imports made: it would look at 700,000 objects again and again."""
    gc.collect()
    gc.freeze()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def every_core() -> Iterator[None]:
    """All cores, for a test of several processes."""
    if not CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def artifacts() -> Iterator[Path]:
    """A folder of bundles that holds the proven default one; copy it before changing anything in it."""
    folder = made_once("default", _export)
    before = _bundles(folder)
    yield folder
    assert _bundles(folder) == before, f"a test changed {folder}, which all tests share: remove it"


def _bundles(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the files, without those that a service adds."""
    found = fingerprint(folder).items()
    return {name: state for name, state in found if not any(Path(name).match(kept) for kept in KEPT)}


@pytest.fixture(scope="session")
def small(artifacts: Path) -> Iterator[Path]:
    """A folder with the default network at 96 px, exported and proven: a fifth of the work for every image."""
    weights = artifacts / "efficientnet_lite0" / "weights.safetensors"
    folder = made_once("small", lambda folder: _export(folder, "--weights", weights, "--size", 96))
    before = _bundles(folder)
    yield folder
    assert _bundles(folder) == before, f"a test changed {folder}, which all tests share: remove it"


@pytest.fixture(scope="session")
def labelled(artifacts: Path) -> Path:
    """Labelled images on which the default bundle's reference is always right: folders `train` and `val`."""
    # PyTorch takes seconds to load.
    from models.bundle.bundle import Bundle
    from tests.export.pictures import labelled_pictures

    bundle = artifacts / "efficientnet_lite0"
    return made_once("labelled", lambda folder: labelled_pictures(Bundle.open(bundle), folder))


def _export(folder: Path, *flags: object) -> None:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(folder)}
    result = run("export", "--model", "efficientnet_lite0", "--no-int8", *flags, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as it is by default."""
    with serve(artifacts, tmp_path_factory.mktemp("server") / "log") as running:
        yield running
