"""ASGI middleware that routes requests to our API, and only an allow-list of paths to BentoML's application.

BentoML parses requests with pickle, URL-fetching and form decoders that a public API must not have, and responds with
500 to a broken image. The gateway therefore passes on no request with a body to parse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.api import pages
from serving.api.app import Api
from serving.process.bentoml_compat import static_files

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BENTOML_PATHS = frozenset({"/schema.json"})
_STATIC = "/static_content/"
FOLDERS = (_STATIC, pages.FOLDER)
"""Prefixes of the paths of files: BentoML's and those of our page."""


class Gateway:
    """ASGI middleware between the server and BentoML's application.

    Args:
        app: BentoML's application.
        api: our application, for everything else.
    """

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api
        # With the names of the existing files: a client's path is compared with these and never opened.
        self._bentoml_paths = BENTOML_PATHS | {_STATIC + name for name in static_files()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one connection; refuse WebSockets."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http" or (self._is_for_bentoml(scope) and self._is_allowed(scope)):
            await self._app(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        # The page that loads these files needs no key.
        return scope["path"].startswith(_STATIC) or self._api.authorized(scope)

    def _is_for_bentoml(self, scope: Scope) -> bool:
        return scope["path"] in self._bentoml_paths and scope["method"] in ("GET", "HEAD")
