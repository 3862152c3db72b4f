"""A second server, for what the default one would take long to do."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle
from models.bundle.promises import Promises, write_promises
from tests.servers import QUICK, Server, serve


@pytest.fixture(scope="session")
def narrow_server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with limits that are easily reached."""
    settings = {
        "HALFTONE_MAX_BODY_MB": "1",
        "HALFTONE_MAX_PIXELS": "13000000",
        "HALFTONE_THREADS": "1",
        "HALFTONE_QUEUE": "3",
        "HALFTONE_MAX_IMAGES": "2",
        "HALFTONE_DEADLINE": "0.05",
        "HALFTONE_BODY_TIMEOUT": "2",
        "HALFTONE_EXPLAIN": "0",
        **QUICK,
        "HALFTONE_BATCH": "2",
    }
    with serve(artifacts, tmp_path_factory.mktemp("narrow") / "log", **settings) as running:
        yield running


PROMISES = Promises(
    images=99,
    origin="held-out pictures",
    threshold=0.3,
    answered=0.8,
    error_interval=(0.001, 0.009),
    set_size=2.5,
    quantiles=tuple(0.6 + 0.0006 * step for step in range(491)),
    familiar=1000.0,
)
"""Made up: every picture is unfamiliar."""


@pytest.fixture(scope="session")
def two_models(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with two models: the default one, and a copy of it named `second` that has promises."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("efficientnet_lite0", "second"):
        shutil.copytree(artifacts / "efficientnet_lite0", folder / name)
    write_promises(Bundle.open(folder / "second"), PROMISES, made_by="`make promises`")
    with serve(folder, folder / "log", HALFTONE_MODEL="efficientnet_lite0,second", **QUICK) as running:
        yield running


KEYS = ("first-secret-of-a-client", "second-secret-of-a-client")


@pytest.fixture(scope="session")
def guarded_server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with keys, and with limits for connections and for all bodies together that are easily reached."""
    settings = {
        "HALFTONE_API_KEYS": ",".join(KEYS),
        "HALFTONE_METRICS_OPEN": "0",
        "HALFTONE_CORS_ORIGINS": "https://page.example, https://other.example",
        "HALFTONE_HEADER_TIMEOUT": "0.5",
        "HALFTONE_BODY_TIMEOUT": "2",
        "HALFTONE_CONNECTIONS": "20",
        "HALFTONE_MAX_BODY_MB": "1",
        "HALFTONE_QUEUE_MB": "1",
        **QUICK,
    }
    with serve(artifacts, tmp_path_factory.mktemp("guarded") / "log", **settings) as running:
        yield running
