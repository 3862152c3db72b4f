"""The page of a bundle that `python -m export.report` wrote."""

from __future__ import annotations

from models.bundle.store import bundle_folder
from models.common.files import open_plain
from serving.http.errors import RequestError
from serving.http.response import Answer

FOLDER = "/models/"
"""Prefix of the paths of these pages, before the name of a model."""

_FILE = "report/bundle.html"
_MAX_BYTES = 16 * 2**20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def model_page(bundle: str) -> Answer:
    """Return the page of the bundle of this name.

    Raises:
        RequestError: 404 if it has none.
    """
    try:
        with open_plain(bundle_folder(bundle) / _FILE) as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise RequestError(
            404, "not_found", f"the bundle has no page: run `python -m export.report --model {bundle}`"
        ) from None
    return Answer(content, media_type=b"text/html; charset=utf-8", headers=_HEADERS)
