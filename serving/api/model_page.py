"""The page of a bundle that `python -m export.report` wrote, and the report of its training, which it links to."""

from __future__ import annotations

from urllib.parse import quote

from models.bundle.store import bundle_folder
from models.common.files import open_plain
from serving.http.errors import RequestError
from serving.http.response import Answer

FOLDER = "/models/"
"""Prefix of the paths of these pages, before the name of a model."""

_FIRST = "bundle.html"
_PAGES = {
    _FIRST: "run `python -m export.report --model {bundle}`",
    "index.html": "only training writes it",
}
"""File in the bundle's folder `report` to what helps if it is missing."""

_MAX_BYTES = 16 * 2**20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def first_page(model: str, separator: str) -> Answer:
    """Return the redirection from a model's address to its first page, so that links between pages can be relative.

    Args:
        model: name of the model, as in the path.
        separator: what follows it there: `/` or nothing.
    """
    # Relative, so that a proxy may remove a prefix.
    return Answer(b"", status=307, headers={"Location": _FIRST if separator else f"{quote(model)}/{_FIRST}"})


def model_page(bundle: str, name: str) -> Answer:
    """Return a page of a bundle.

    Args:
        bundle: its name.
        name: file name of the page.

    Raises:
        RequestError: 404 if there is no such page.
    """
    if name not in _PAGES:
        raise RequestError(404, "not_found", f"a model has the pages {' and '.join(_PAGES)}")
    try:
        with open_plain(bundle_folder(bundle) / "report" / name) as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise RequestError(
            404, "not_found", f"the bundle has no such page: {_PAGES[name].format(bundle=bundle)}"
        ) from None
    return Answer(content, media_type=b"text/html; charset=utf-8", headers=_HEADERS)
