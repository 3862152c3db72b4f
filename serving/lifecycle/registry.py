"""The models of the service, by name: the one that answers, and the one that it took the place of."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from serving.http.errors import RequestError, unavailable
from serving.lifecycle.served_model import ServedModel

_LOADING_RETRY = 2


class Registry:
    """What is served: names that are known from the start, and for each a model that may be replaced at any time.

    Every method may be called from any thread.

    Args:
        names: of the models, at least one; the first answers where a request names none.
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
        """Whether every model is loaded and warmed."""
        return len(self._models) == len(self.names)

    @property
    def ready(self) -> bool:
        """Whether every model is loaded and warmed, and the service isn't stopping."""
        return not self._retired and self.loaded

    def publish(self, model: ServedModel, *, keep: bool = False) -> list[ServedModel]:
        """Answer with this model from now on, in place of the present one.

        Args:
            model: a warmed model.
            keep: whether the present one becomes the previous one.

        Returns:
            The models that nobody will ask for again, to be closed when they are `unused`.

        Raises:
            RequestError: 503 where the service is stopping.
        """
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down", retry_after=_LOADING_RETRY)
            present, former = self._models.get(model.name), self._previous.pop(model.name, None)
            if present is not None:
                present.withdraw()
            self._models[model.name] = model
            model.announce()
            if present is not None and keep:
                self._previous[model.name] = present
        gone = [former] if keep else [former, present]
        return [each for each in gone if each is not None and each is not model]

    def previous(self, name: str) -> ServedModel | None:
        """The model that the present one took the place of, if it is kept."""
        return self._previous.get(name)

    @contextlib.contextmanager
    def use(self, name: str | None = None) -> Iterator[ServedModel]:
        """The model of that name, or the first: it is not closed before the block has ended.

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

    def unused(self, model: ServedModel) -> None:
        """Wait until no block of `use` has this model."""
        with self._lock:
            self._lock.wait_for(lambda: model not in self._users)

    def get(self, name: str | None = None) -> ServedModel:
        """The model of that name, or the first, to be asked what it is; `use` it to let it work.

        Raises:
            RequestError: 404 where there is none of that name, 503 while it is being loaded or the service stops.
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
        """The models that are loaded, in the order of their names."""
        return [self._models[name] for name in self.names if name in self._models]

    def retire(self) -> None:
        """Be ready no more, so that nobody sends new requests; those that come all the same are answered."""
        self._retired = True

    def close(self) -> None:
        """Finish what was accepted and take nothing new."""
        with self._lock:
            self._retired = self._closed = True
        for model in (*self.all(), *self._previous.values()):
            model.close()
