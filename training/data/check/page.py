"""Report of an inspection on one HTML page, with the images; it embeds all and loads nothing."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.common.files import write_atomic
from models.common.pages import environment
from models.common.text import printable
from training.data.check.duplicates import Place, label, parts
from training.data.check.inspection import Inspection
from training.data.check.problems import doublets, verdicts
from training.data.check.table import TABLE, write_table
from training.data.pictures import Data

INDEX = "index.html"
TEMPLATE = Path(__file__).with_name("page.html")

MOST = 60
"""Images or pairs that a section shows; the table has all."""

MOST_PAIRS = 15
THUMBNAIL = 160
"""Longest side of an image on the page in pixels."""


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Two classes that the probe confuses."""

    first: str
    second: str

    count: int
    """Images of one that look like the other."""

    share: float
    """Part of the images of both, 0..1."""


def write_inspection(folder: Path, data: Data, inspection: Inspection, *, title: str) -> bool:
    """Write the page `index.html` and, if the images are in files, the table `pictures.csv`.

    Args:
        folder: created if missing.
        data: the images.
        inspection: of them.
        title: name of the data.

    Returns:
        True if there is a table.
    """
    table = write_table(folder / TABLE, data, verdicts(data, inspection))
    pages = environment(TEMPLATE.parent)
    shown = _Shown(data)
    page = pages.get_template(TEMPLATE.name).render(
        title=printable(title),
        data=data,
        tiles=list(_tiles(data, inspection)),
        mislabelled=[
            (shown(inspection.places[index]), data.train.labels[inspection.judgement.suggested[index]],
             inspection.judgement.odds[index])
            for index in inspection.judgement.wrong[:MOST]
        ],
        pairs=[(each, shown(each.first), shown(each.second)) for each in doublets(data, inspection)[:MOST]],
        outliers=[shown(inspection.places[index]) for index in inspection.outliers[:MOST]],
        alike=alike_classes(inspection, data.train.labels),
        sizes=inspection.sizes.spread,
        odd=[(shown(inspection.places[index]), what) for index, what in list(inspection.sizes.odd.items())[:MOST]],
        broken=[(shown.name(place), reason) for place, reason in inspection.reading.broken.items()],
        judgement=inspection.judgement,
        table=table,
        most=MOST,
        following=f"python -m training --data {shlex.quote(str(folder / TABLE))} --output artifacts/NAME",
    )  # fmt: skip
    write_atomic(folder / INDEX, page.encode(errors="backslashreplace"))
    return table


def alike_classes(inspection: Inspection, labels: tuple[str, ...]) -> list[Alike]:
    """Return the pairs of classes that are confused more than once, the most alike first."""
    confusion = inspection.judgement.confusion
    mixed, counts = confusion + confusion.T, confusion.sum(axis=1)
    first, second = np.triu_indices(len(labels), k=1)
    share = mixed[first, second] / np.maximum(1, counts[first] + counts[second])
    order = [
        place for place in np.argsort(-share, kind="stable")[:MOST_PAIRS] if mixed[first[place], second[place]] > 1
    ]
    return [
        Alike(
            first=labels[first[place]],
            second=labels[second[place]],
            count=int(mixed[first[place], second[place]]),
            share=float(share[place]),
        )
        for place in order
        if mixed[first[place], second[place]] > 1
    ]


class _Shown:
    """Images for the page: name, label and a thumbnail as data URL."""

    def __init__(self, data: Data) -> None:
        self._everything = parts(data)

    def name(self, place: Place) -> str:
        """Return part and name."""
        return f"{place[0]}: {self._everything[place[0]].name(place[1])}"

    def __call__(self, place: Place) -> dict[str, Any]:
        image = Image.fromarray(np.ascontiguousarray(self._everything[place[0]].read(place[1])))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return {"name": self.name(place), "label": label(self._everything, place), "url": url}


def _tiles(data: Data, inspection: Inspection) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and note of every headline figure."""
    counts = ", ".join(f"{len(pictures):,} {part}" for part, pictures in parts(data).items())
    yield "pictures", f"{sum(map(len, parts(data).values())):,}", counts
    yield "broken", f"{len(inspection.reading.broken):,}", "can't be read"
    judgement = inspection.judgement
    yield "labels probably wrong", f"{len(judgement.wrong):,}", judgement.in_words()
    pairs = doublets(data, inspection)
    crossing = sum(bool(each.conflict) for each in pairs)
    yield "doublets", f"{len(pairs):,}", f"{crossing:,} in two parts or under two labels"
    yield "outliers", f"{len(inspection.outliers):,}", "far from all others"
