"""What a choice found: rows for the table, the page and the drawing of accuracy against time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.benchmark.tables import Cells, as_text
from models.common.pages import environment
from models.common.statistics import rate
from models.common.text import printable
from training.choose.speed import Speed

TEMPLATE = Path(__file__).with_name("page.html")

HEADINGS: Cells = (
    "candidate", "px", "ms", "images/s", "MB", "frozen features", "95 % interval", "epochs", "trained", "95 % interval",
    "verdict",
)  # fmt: skip

NOTE = (
    "ms: a picture on one core, all cores busy, with random weights in the fastest variant of full precision, without "
    "decoding and HTTP; "
    "frozen features: linear discriminants, cross-validated on the training pictures; trained: on the validation "
    "pictures, which chose each run's epoch"
)


@dataclass(kw_only=True)
class Row:
    """Figures of one candidate; None for what was not measured."""

    name: str
    size: int
    """Side of the input in pixels."""

    speed: Speed | None = None
    screened: dict[str, float] | None = None
    """Cross-validated accuracy with frozen features, with its interval."""

    trained: dict[str, float] | None = None
    """Accuracy of its longest run on the validation pictures, with its interval."""

    epochs: int | None = None
    """Of that run."""

    verdict: str = ""
    """`chosen`, or why not."""

    def cells(self) -> Cells:
        """Return the row under `HEADINGS`."""
        speed = self.speed
        return (
            printable(self.name),
            str(self.size),
            "" if speed is None else f"{speed.milliseconds:.1f}",
            "" if speed is None else f"{speed.images_per_second:.0f}",
            "" if speed is None else f"{speed.megabytes:.1f}",
            *_accuracy(self.screened),
            "" if self.epochs is None else str(self.epochs),
            *_accuracy(self.trained),
            printable(self.verdict),
        )


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate in the drawing."""

    model: str
    accuracy: float
    interval: tuple[float, float]
    milliseconds: float


def accuracy_of(right: Any) -> dict[str, float]:
    """Return the share of right answers, bool (N,), with its 95 % interval."""
    return rate(int(right.sum()), len(right))


def _accuracy(accuracy: dict[str, float] | None) -> Cells:
    if accuracy is None:
        return ("", "")
    return (f"{accuracy['value']:.2%}", f"{accuracy['low']:.1%} to {accuracy['high']:.1%}")


def text(document: dict[str, Any], rows: list[Row]) -> str:
    """Return the table and the reasons as text."""
    return "\n".join([as_text(HEADINGS, [row.cells() for row in rows], document), *map(printable, document["reasons"])])


def rows_of(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows JSON-ready."""
    return [asdict(row) for row in rows]


def drawing(rows: list[Row]) -> bytes:
    """Draw the cross-validated accuracy with frozen features against the time of a picture, as PNG."""
    # Imported here, as Matplotlib takes a second.
    from export.benchmark.drawing import accuracy_and_time

    return accuracy_and_time(
        [
            Point(
                model=row.name,
                accuracy=row.screened["value"],
                interval=(row.screened["low"], row.screened["high"]),
                milliseconds=row.speed.milliseconds,
            )
            for row in rows
            if row.screened is not None and row.speed is not None
        ]
    )


def page(document: dict[str, Any], rows: list[Row], *, picture: str) -> str:
    """Return the page as HTML.

    Args:
        document: what is published.
        rows: of the table.
        picture: name of the drawing's file beside the page.
    """
    return (
        environment(TEMPLATE.parent)
        .get_template(TEMPLATE.name)
        .render(
            document=document,
            headings=HEADINGS,
            rows=[row.cells() for row in rows],
            picture=picture,
        )
    )
