"""The report's parts as HTML; every text that comes from data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from training.report.mistakes import Mistake

_PAGE = Path(__file__).with_name("page.html")


def page(*, title: str, subtitle: str, tiles: Iterable[str], sections: Iterable[str]) -> str:
    """The whole page, without any external resource.

    Args:
        title: plain text.
        subtitle: plain text.
        tiles: HTML of `tile`.
        sections: HTML of `section` and `folded`.
    """
    template = Template(_PAGE.read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title), subtitle=escape(subtitle), tiles="".join(tiles), sections="\n".join(sections)
    )


def tile(value: str, name: str, note: str = "") -> str:
    """A figure to be seen first."""
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(note)}</span></div>'


def section(title: str, text: str, content: str) -> str:
    """A heading, a sentence on how to read what follows, and that."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{content}</section>"


def folded(title: str, content: str) -> str:
    """What only some readers want to see."""
    return f"<section><details><summary>{escape(title)}</summary>{content}</details></section>"


def image(png: bytes, description: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


def class_table(classes: Sequence[dict[str, Any]]) -> str:
    """One row per class, the worst first; entries as `training.evaluation.metrics.per_class` makes them."""
    worst_first = sorted(classes, key=lambda entry: (not entry["images"], entry["f1"]))
    head = ("class", "pictures", "precision", "recall", "F1", "mostly taken for")
    rows = "".join(
        f'<tr><td>{escape(entry["label"])}</td><td class="n">{entry["images"]}</td>'
        f'<td class="n">{entry["precision"]:.1%}</td><td class="n">{entry["recall"]:.1%}</td>'
        f'<td class="n">{_bar(entry["f1"])}</td><td>{escape(entry["taken_for"])}</td></tr>'
        for entry in worst_first
    )
    return _table(head, rows, numeric=range(1, 5))


def pair_table(pairs: Iterable[tuple[str, str, int, float]]) -> str:
    """Rows of true class, answer, number of pictures, and their share of the true class in 0..1."""
    rows = "".join(
        f'<tr><td>{escape(truth)}</td><td>{escape(answer)}</td><td class="n">{count}</td>'
        f'<td class="n">{_bar(share)}</td></tr>'
        for truth, answer, count, share in pairs
    )
    return _table(("true class", "taken for", "pictures", "share of the class"), rows, numeric=(2, 3))


def gallery(mistakes: Iterable[Mistake]) -> str:
    """The mistakes with what they are and what they were taken for."""
    figures = "".join(
        f"<figure>{image(item.png, item.name)}<figcaption>"
        f"<b>{escape(item.answer)}</b> {item.answer_probability:.0%}<br>"
        f"is {escape(item.truth)} {item.truth_probability:.0%}<small>{escape(item.name)}</small></figcaption></figure>"
        for item in mistakes
    )
    return f'<div class="gallery">{figures}</div>'


def settings_table(values: dict[str, Any]) -> str:
    """Nested settings as rows of dotted name and value."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in _flat(values))
    return _table(("setting", "value"), rows)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _table(head: Sequence[str], rows: str, numeric: Iterable[int] = ()) -> str:
    right = set(numeric)
    cells = "".join(
        f'<th class="n">{escape(name)}</th>' if index in right else f"<th>{escape(name)}</th>"
        for index, name in enumerate(head)
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _bar(share: float) -> str:
    return f'{share:.1%}<span class="bar"><i style="width:{100 * share:.0f}%"></i></span>'
