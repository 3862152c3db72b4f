"""The web pages of the service: one to try it, and one that shows its API, with Swagger UI from BentoML's package.

Their addresses are relative, so that they work behind any prefix of a proxy that removes it.
"""

from __future__ import annotations

import json
from importlib.resources import files

from serving.api import samples
from serving.http.response import Answer

_SAME_FOR_ALL = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; "
    f"connect-src 'self'; {_SAME_FOR_ALL}"
)
# Swagger UI writes styles into its elements.
_DOCS_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; img-src blob: data:; "
    f"connect-src 'self'; {_SAME_FOR_ALL}"
)
_HTML = b"text/html; charset=utf-8"
_TYPES = {"css": b"text/css", "js": b"text/javascript", "svg": b"image/svg+xml"}
_FRESH = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
_DAY = {"Cache-Control": "max-age=86400", "X-Content-Type-Options": "nosniff"}

FOLDER = "/ui/"
"""Prefix of the paths of what the page to try the service loads, which needs no API key either."""


def _read(name: str) -> bytes:
    return (files("serving.api") / name).read_bytes()


# Read once: a request would find that the process can open no further file.
_DOCS = Answer(_read("docs.html"), media_type=_HTML, headers={"Content-Security-Policy": _DOCS_POLICY})
_UI = Answer(_read("ui/page.html"), media_type=_HTML, headers={"Content-Security-Policy": _POLICY} | _FRESH)

PAGES = {"/": _DOCS, "/docs": _DOCS, "/ui": _UI}
"""The pages by path, which hold no data and need no API key; they have a field for it."""

_FILES = {
    FOLDER + each.name: Answer(each.read_bytes(), media_type=_TYPES[suffix], headers=_FRESH)
    for each in (files("serving.api") / "ui").iterdir()
    if (suffix := each.name.rpartition(".")[2]) in _TYPES
}
_FILES[FOLDER + "samples.json"] = Answer(json.dumps(samples.CREDITS).encode(), headers=_DAY)
_PHOTOGRAPHS = {"samples": samples.photograph, "small": samples.small}


def page(path: str) -> Answer:
    """Return the page at one of the paths of `PAGES`."""
    return PAGES[path]


def file(path: str) -> Answer | None:
    """Return what lies at a path that begins with `FOLDER`; None if nothing does."""
    if path in _FILES:
        return _FILES[path]
    kind, _, name = path.removeprefix(FOLDER).partition("/")
    photograph = _PHOTOGRAPHS[kind](name.removesuffix(".jpg")) if kind in _PHOTOGRAPHS else None
    return None if photograph is None else Answer(photograph, media_type=b"image/jpeg", headers=_DAY)
