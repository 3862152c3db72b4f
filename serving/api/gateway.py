"""The door of the service: our own API in front, and of BentoML's application only what is named here.

BentoML parses requests with pickle, URL-fetching and form decoders that a public API must not have, and answers 500
to a broken picture; so nothing that it would parse is passed on to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from serving.api.app import Api
from serving.http.body import Receive
from serving.http.response import Scope, Send

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BENTOML_PATHS = frozenset({"/", "/schema.json"})
BENTOML_FOLDERS = ("/static_content/",)

# The files by name: what a client writes is compared with these and never becomes a path.
_FILES = frozenset(
    f"{folder}{file.name}"
    for folder in BENTOML_FOLDERS
    for file in (files("bentoml") / "_internal" / "server" / folder.strip("/")).iterdir()
)


class Gateway:
    """ASGI middleware between the server and BentoML's application.

    Args:
        app: BentoML's application.
        api: answers everything else.
    """

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one connection; WebSockets are refused."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http" or (_is_bentomls(scope) and self._api.admits(scope)):
            await self._app(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def _is_bentomls(scope: Scope) -> bool:
    path = scope["path"]
    return (path in BENTOML_PATHS or path in _FILES) and scope["method"] in ("GET", "HEAD")
