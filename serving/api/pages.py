"""The web pages of the service: one to try it, and one that shows its API, with Swagger UI from BentoML's package.

Their addresses are relative, so that they work behind any prefix of a proxy that removes it.
"""

from __future__ import annotations

from importlib.resources import files

from serving.http.response import Answer

_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {"/": "docs.html", "/docs": "docs.html", "/ui": "page.html"}

# Read once: a request would find that the process can open no further file.
_CONTENT = {path: (files("serving.api") / name).read_bytes() for path, name in _FILES.items()}

PATHS = frozenset(_FILES)
"""Paths of the pages, which hold no data and need no API key; they have a field for it."""


def page(path: str) -> Answer:
    """Return the page at one of `PATHS`."""
    return Answer(_CONTENT[path], media_type=b"text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})
