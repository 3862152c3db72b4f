"""Work for a client is given up when the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from serving.http.body import ClientGoneError, Receive

Result = TypeVar("Result")

_SOON = 0.05


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client closes the connection.

    Most answers are there before it is worth asking: the connection is watched from 50 ms on.

    Args:
        receive: the request's ASGI channel, whose body has been read.
        work: what the client waits for.

    Raises:
        ClientGoneError: the client left first.
    """
    loop = asyncio.get_running_loop()
    watch = _Watch(receive, asyncio.current_task(loop))
    timer = loop.call_later(_SOON, watch.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels a task when its client is gone."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        self.gone = False
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Ask for the connection's end from now on."""
        self._watcher = asyncio.ensure_future(self._until_gone())

    def end(self) -> None:
        """Ask no more."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()
