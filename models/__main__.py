"""List the catalogue of architectures: `python -m models`.

    python -m models                          every architecture, by name
    python -m models --family vit --sort top1
    python -m models timm:convnext_tiny       any other network of timm, by its name
    python -m models --format markdown        for a README
    python -m models --json                   every field and the exact numbers, for scripts

Takes about a third of a second: the command builds no network and imports no torch, but for a network of timm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.catalog import architecture, catalogue
from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.text import markdown_table
from models.spec import Architecture

Format = Literal["table", "markdown"]
SortKey = Literal["name", "params", "macs", "top1"]

PIPED_WIDTH = 160
HEADINGS = ("name", "family", "params M", "GMACs", "px", "top-1 %", "when to choose it")
RIGHT_ALIGNED = ("params M", "GMACs", "px", "top-1 %")


@dataclass(frozen=True, kw_only=True)
class ListModels(JsonOutput):
    """List the architectures that Halftone trains, exports and serves."""

    name: tyro.conf.Positional[str | None] = None
    """Show this architecture only, or `timm:NAME` of timm's registry."""

    family: str | None = None
    """Show this family only, e.g. `vit`."""

    format: Format = "table"
    """`table` to read, `markdown` to paste."""

    sort: SortKey = "name"
    """Order of the rows; `top1` puts the most accurate first, the others the smallest."""


def natural(name: str) -> list[str | int]:
    """Return a sort key that puts resnet18 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


SORT_KEYS: dict[SortKey, Callable[[Architecture], Any]] = {
    "name": lambda architecture: natural(architecture.name),
    "params": lambda architecture: architecture.parameters,
    "macs": lambda architecture: architecture.macs,
    # Weights without a published accuracy come last.
    "top1": lambda architecture: -(architecture.top1 or 0.0),
}


def select(name: str | None, family: str | None, sort: SortKey) -> list[Architecture]:
    """Return the architecture of that name, or the sorted catalogue entries of one family, or of all.

    Raises:
        HalftoneError: there is no such architecture or family, or both are given.
    """
    if name is not None and family is not None:
        raise HalftoneError(f"--family {family} lists several architectures: omit it to show {name} alone")
    if name is not None:
        return [architecture(name)]
    entries = catalogue().values()
    families = sorted({entry.family for entry in entries})
    if family is not None and family not in families:
        raise HalftoneError(f"there is no family {family!r}: choose one of {', '.join(families)}")
    return sorted((entry for entry in entries if family in (None, entry.family)), key=SORT_KEYS[sort])


def note(architecture: Architecture) -> str:
    """Return what the weights of the accuracy were trained on, and its publication."""
    return f"ImageNet-1k top-1 after {architecture.pretraining}: {architecture.top1_source}"


def notes(architectures: Sequence[Architecture]) -> dict[str, int]:
    """Return the distinct notes, numbered from 1 in order of appearance; a network of timm's registry has none."""
    distinct = dict.fromkeys(note(each) for each in architectures if each.top1_source)
    return {text: number for number, text in enumerate(distinct, start=1)}


def cells(architecture: Architecture, mark: str) -> tuple[str, ...]:
    """Return one row under `HEADINGS`; `mark` refers to the note about the accuracy."""
    top1 = "n/a" if architecture.top1 is None else f"{architecture.top1:.1f}"
    return (
        architecture.name,
        architecture.family,
        f"{architecture.parameters / 1e6:.1f}",
        f"{architecture.macs / 1e9:.2f}",
        str(architecture.input.size),
        f"{top1} {mark}".rstrip(),
        architecture.scenario,
    )


def _mark(architecture: Architecture, numbers: dict[str, int], form: str) -> str:
    return form.format(numbers[note(architecture)]) if architecture.top1_source else ""


def as_table(architectures: Sequence[Architecture]) -> str:
    """Format as an aligned table with the notes below it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich assumes that a pipe is 80 columns wide and would fold the rows, which `grep` could not read.
        console.width = PIPED_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for heading in HEADINGS:
        table.add_column(
            heading,
            justify="right" if heading in RIGHT_ALIGNED else "left",
            no_wrap=heading != HEADINGS[-1],
        )
    numbers = notes(architectures)
    for entry in architectures:
        # As Text, "[1]" is not parsed as rich's markup.
        table.add_row(*map(Text, cells(entry, _mark(entry, numbers, "[{}]"))))
    # Captured, because rich exits with code 1 if the reader has closed the pipe (`… | head`).
    with console.capture() as capture:
        console.print(table)
        console.print()
        for text, number in numbers.items():
            console.print(Text(f"[{number}] {text}"))
    return capture.get().rstrip("\n")


def as_markdown(architectures: Sequence[Architecture]) -> str:
    """Format as a GitHub-flavoured table with the notes as footnotes."""
    numbers = notes(architectures)
    rows = [cells(architecture, _mark(architecture, numbers, "[^{}]")) for architecture in architectures]
    below = [f"[^{number}]: {text}" for text, number in numbers.items()]
    table = markdown_table(HEADINGS, rows, right=[HEADINGS.index(heading) for heading in RIGHT_ALIGNED])
    return "\n".join((table, "", *below))


FORMATS: dict[Format, Callable[[Sequence[Architecture]], str]] = {
    "table": as_table,
    "markdown": as_markdown,
}


def list_models(config: ListModels) -> int:
    """Print the selected architectures; return the exit code."""
    entries = select(config.name, config.family, config.sort)
    publish([asdict(entry) | {"pretraining": entry.pretraining} for entry in entries])
    print(FORMATS[config.format](entries))
    return DONE


if __name__ == "__main__":
    run(list_models, ListModels, prog="python -m models", example="--family vit --sort top1")
