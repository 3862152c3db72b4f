"""Registry of the served models by name: the active version and the previous one."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from serving.http.errors import RequestError, unavailable
from serving.lifecycle.served_model import ServedModel

_LOADING_RETRY = 2


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
            self._models[model.name] = model
            model.announce()
            if active is not None and keep:
                self._previous[model.name] = active
        retired = [previous] if keep else [previous, active]
        return [each for each in retired if each is not None and each is not model]

    def previous(self, name: str) -> ServedModel | None:
        """Return the model that the active one replaced, if it is kept."""
        return self._previous.get(name)

    @contextlib.contextmanager
    def use(self, name: str | None = None) -> Iterator[ServedModel]:
        """Yield the model of that name, by default the first; it is not closed before the block ends.

        Raises:
            RequestError: as `get`.
        """
        with self._lock:
            model = self.get(name)
            self._users[model] += 1
        try:
            yield model
        finally:
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
        for model in (*self.all(), *self._previous.values()):
            model.close()
