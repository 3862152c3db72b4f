"""Cancel the work for a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from serving.http.body import ClientGoneError

if TYPE_CHECKING:
    from starlette.types import Receive

Result = TypeVar("Result")

_WATCH_AFTER = 0.05


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it if the client closes the connection first.

    Most responses are ready before watching pays: the connection is watched from 50 ms on.

    Args:
        receive: ASGI channel of the request, whose body has been read.
        work: coroutine that makes the response.

    Raises:
        ClientGoneError: the client disconnected first.
    """
    loop = asyncio.get_running_loop()
    watch = _Watch(receive, asyncio.current_task(loop))
    timer = loop.call_later(_WATCH_AFTER, watch.start)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        watch.stop()


class _Watch:
    """Cancels a task when its client disconnects."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        self.gone = False
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch for the end of the connection from now on."""
        self._watcher = asyncio.ensure_future(self._until_gone())

    def stop(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()
