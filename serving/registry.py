"""The models of the service, by name."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import RequestError, unavailable
from serving.served import Served

_LOADING_RETRY = 2


class Registry:
    """What is served: names that are known from the start, and models that are loaded one after the other.

    Args:
        names: of the models, at least one; the first answers where a request names none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._models: dict[str, Served] = {}
        self._retired = self._closed = False

    @property
    def ready(self) -> bool:
        """Whether every model is loaded and warmed, and the service isn't stopping."""
        return not self._retired and len(self._models) == len(self.names)

    def publish(self, model: Served) -> None:
        """Answer with this model from now on."""
        self._models[model.name] = model

    def get(self, name: str | None = None) -> Served:
        """The model of that name, or the first.

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

    def all(self) -> list[Served]:
        """The models that are loaded, in the order of their names."""
        return [self._models[name] for name in self.names if name in self._models]

    def retire(self) -> None:
        """Be ready no more, so that nobody sends new requests; those that come all the same are answered."""
        self._retired = True

    def close(self) -> None:
        """Finish what was accepted and take nothing new."""
        self._retired = self._closed = True
        for model in self.all():
            model.close()
