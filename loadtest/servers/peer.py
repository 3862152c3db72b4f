"""What is measured: one server and how to start and ask it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtest.client.encoding import Wire

INDEX = r'"index"\s*:\s*(\d+)'
"""The first class index in an answer such as `{"predictions": [{"index": 281, …}, …]}`."""

V2_INDEX = r'"data"\s*:\s*\[\s*(\d+)'
"""The first element of the first tensor in an answer of the Open Inference Protocol."""


V2_CLASS = r'"data"\s*:\s*\[\s*"[^":]*:(\d+)'
"""The first class index of a tensor that was asked for as a classification: `"SCORE:INDEX:LABEL"`."""

_DEFAULT_MODEL = "efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One row of the comparison.

    In `command` and `settings`, `{python}` and `{bin}` stand for the peer's interpreter and its folder, `{port}` for a
    free port, `{cores}` for the processor's cores and `{variant}` for the variant that our service chose.
    """

    name: str
    """What --peers takes."""

    title: str
    """What the table says."""

    command: tuple[str, ...]
    """Started in the repository's root."""

    engine: str
    """What executes the model."""

    requirements: str = ""
    """Name of the file in loadtest/peers/requirements whose packages it runs with; empty: this very environment."""

    python: str = ""
    """Interpreter to make that environment with; empty: the running one."""

    path: str = "/classify"
    """In it `{model}` stands for the first model that our service serves."""

    named: bool = False
    """It is measured only where --peers names it."""

    wire: Wire = Wire.RAW
    answer: str = INDEX
    """See `Load.answer`."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""

    ours: bool = False
    """It is our service: what fails of it fails the command."""

    loop: bool = False
    """It has no HTTP: the command measures itself and prints the result (loadtest.peers.limit)."""

    @property
    def target(self) -> str:
        """The path of a request now."""
        model = (os.environ.get("HALFTONE_MODEL") or _DEFAULT_MODEL).split(",")[0]
        return self.path.replace("{model}", model)
