"""Puts an application in front of everything that BentoML wraps around a service, and a server around both.

BentoML's own stack of middlewares costs about 0.2 ms of processor time a request, and its time-out keeps a timer for
every request until the time is over, answered or not: at some hundred requests a second that alone fills the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bentoml

from serving.api.gateway import ASGIApp
from serving.process.acceptor import ConnectionShare


def fronted(
    wrap: Callable[[ASGIApp], ASGIApp],
    *,
    retire: Callable[[], object] = bool,
    lame_duck: float = 0.0,
    share: Callable[[], ConnectionShare | None] = lambda: None,
) -> type[bentoml.Service[Any]]:
    """A class for `@bentoml.service(service_class=…)`.

    Args:
        wrap: makes the application that the server calls, from BentoML's.
        retire: called in the worker when it is told to stop.
        lame_duck: seconds from there to the end of listening.
        share: called in the worker: its share of the connections, where there are several workers.
    """

    class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]
        def to_asgi(self, is_main: bool = True) -> Any:
            # Imported here: it is the worker that calls this, and only a worker needs uvicorn.
            from serving.process.shutdown import install

            install(retire=retire, lame_duck=lame_duck, share=share())
            return wrap(super().to_asgi(is_main))

    return FrontedService
