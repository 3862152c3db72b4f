"""Registry of the served models by name: the active version, the previous one and the candidate.

It is the only place that decides which version a request gets.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from serving.http.errors import RequestError, unavailable
from serving.lifecycle.canary.candidate import Candidate, Headers
from serving.lifecycle.served_model import ServedModel

_LOADING_RETRY = 2

_SHARE_OF_TIME = 0.5
"""Part of a request's time that a candidate gets: the active version needs the rest if the candidate fails."""

Value = TypeVar("Value")

Answering = Callable[[ServedModel, float], Awaitable[Value]]
"""Makes the response to a request by a version of the model, within some seconds."""


class Registry:
    """Fixed names, and for each of them a model that may be replaced at any time.

    Every method may be called from any thread.

    Args:
        names: names of the models, at least one; the first is the default for requests that name none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._models: dict[str, ServedModel] = {}
        self._previous: dict[str, ServedModel] = {}
        self._candidates: dict[str, Candidate] = {}
        self._retired = self._closed = False
        self._users: Counter[ServedModel] = Counter()
        self._lock = threading.Condition(threading.Lock())

    @property
    def loaded(self) -> bool:
        """True if every model is loaded and warmed up."""
        return len(self._models) == len(self.names)

    @property
    def ready(self) -> bool:
        """True if every model is loaded and warmed up, and the service isn't stopping."""
        return not self._retired and self.loaded

    def publish(self, model: ServedModel, *, keep: bool = False) -> list[ServedModel]:
        """Activate this model in place of the active one of the same name.

        Args:
            model: a model that is warmed up.
            keep: keep the replaced model as the previous one.

        Returns:
            The models that no new request will reach, to be closed after `wait_until_unused`.

        Raises:
            RequestError: 503 if the service is stopping.
        """
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down", retry_after=_LOADING_RETRY)
            active, previous = self._models.get(model.name), self._previous.pop(model.name, None)
            if active is not None:
                active.withdraw()
                model.copies, active.copies = active.copies, None
            self._models[model.name] = model
            model.announce()
            if active is not None and keep:
                self._previous[model.name] = active
        retired = [previous] if keep else [previous, active]
        return [each for each in retired if each is not None and each is not model]

    def previous(self, name: str) -> ServedModel | None:
        """Return the model that the active one replaced, if it is kept."""
        return self._previous.get(name)

    def candidate(self, name: str) -> Candidate | None:
        """Return the candidate beside the active version, if there is one."""
        return self._candidates.get(name)

    def start_trial(self, candidate: Candidate) -> None:
        """Let requests reach a candidate that is warmed up, the only one of its name.

        Raises:
            RequestError: 503 if the service is stopping.
        """
        model = candidate.model
        with self._lock:
            active = self.get(model.name)
            model.on_trial = True
            self._candidates[model.name] = candidate
            active.copies = model.copies = candidate.copy

    def end_trial(self, name: str) -> Candidate | None:
        """Let no new request reach the candidate; return it, if there was one.

        Requests that it has go on as before: the active version answers them if it fails.
        """
        with self._lock:
            candidate = self._candidates.pop(name, None)
            if candidate is not None:
                candidate.model.copies = None
                if name in self._models:
                    self._models[name].copies = None
        return candidate

    async def answer(
        self, name: str | None, seconds: float, answering: Answering[Value], headers: Headers = ()
    ) -> Value:
        """Let the version whose turn it is answer a request; if that is a candidate that fails, the active one.

        Args:
            name: of the model; None for the first.
            seconds: time allowed.
            answering: makes the response; called again if a candidate failed.
            headers: of the request.

        Raises:
            RequestError: as `get`, and those of `answering` by the active version.
        """
        # Without any candidate this is all that it costs.
        if self._candidates and (candidate := self._candidates.get(name or self.names[0])):
            start = time.monotonic()
            if candidate.takes(headers) and self._hold(candidate):
                try:
                    answer = await answering(candidate.model, _SHARE_OF_TIME * seconds)
                except Exception as error:
                    failure = error
                else:
                    candidate.answered()
                    return answer
                finally:
                    self._release(candidate.model)
                with self.use(name) as model:
                    answer = await answering(model, seconds - (time.monotonic() - start))
                # Not before: a client's own mistake fails with both.
                candidate.failed(failure)
                return answer
        with self.use(name) as model:
            return await answering(model, seconds)

    @contextlib.contextmanager
    def use(self, name: str | None = None) -> Iterator[ServedModel]:
        """Yield the active model of that name, by default the first; it is not closed before the block ends.

        Raises:
            RequestError: as `get`.
        """
        with self._lock:
            model = self.get(name)
            self._users[model] += 1
        try:
            yield model
        finally:
            self._release(model)

    def _hold(self, candidate: Candidate) -> bool:
        """Keep a candidate from being closed; return False if its trial has ended meanwhile."""
        with self._lock:
            present = self._candidates.get(candidate.model.name) is candidate and not self._closed
            if present:
                self._users[candidate.model] += 1
        return present

    def _release(self, model: ServedModel) -> None:
        with self._lock:
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]
                self._lock.notify_all()

    def wait_until_unused(self, model: ServedModel) -> None:
        """Wait until no block of `use` has this model."""
        with self._lock:
            self._lock.wait_for(lambda: model not in self._users)

    def get(self, name: str | None = None) -> ServedModel:
        """Return the model of that name, by default the first, to read its properties; to run it, see `use`.

        Raises:
            RequestError: 404 if the name is unknown, 503 while the model is being loaded or the service stops.
        """
        name = self.names[0] if name is None else name
        if name not in self.names:
            known = ", ".join(self.names)
            raise RequestError(404, "model_not_found", f"there is no model {name[:100]!r} here: choose from {known}")
        model = self._models.get(name)
        if model is None or self._closed:
            raise unavailable(
                "not_ready",
                f"the model {name} is being loaded, or the service is stopping: try again",
                retry_after=_LOADING_RETRY,
            )
        return model

    def all(self) -> list[ServedModel]:
        """Return the loaded models, in the order of `names`."""
        return [self._models[name] for name in self.names if name in self._models]

    def retire(self) -> None:
        """Fail readiness, so that load balancers send no new requests; requests that still arrive are served."""
        self._retired = True

    def close(self) -> None:
        """Refuse new requests and finish the accepted ones."""
        with self._lock:
            self._retired = self._closed = True
        for candidate in [*self._candidates.values()]:
            candidate.close()
        for model in (*self.all(), *self._previous.values()):
            model.close()
