"""From a request's path to a label: a path or template that the service knows, or "other"."""

from __future__ import annotations

from collections.abc import Iterable

OTHER = "other"

_V2 = (
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/repository/index",
)
_V2_MODEL = ("", "/infer", "/ready")
_MODELS = "/v2/models/"
_ADMIN_MODELS = "/admin/models"
_ADMIN_ACTIONS = ("load", "rollback")


class Routes:
    """The labels that there are.

    Args:
        paths: that the service answers.
        folders: ends in a slash; all paths in it are one label.
    """

    def __init__(self, paths: Iterable[str], folders: Iterable[str] = ()) -> None:
        self._paths = frozenset({*paths, *_V2, _ADMIN_MODELS})
        self._folders = tuple(folders)

    def label(self, path: str) -> str:
        """The label of any path; nothing of what a client wrote gets into it."""
        if path in self._paths:
            return path
        if path.startswith(_MODELS):
            return _model_template(path)
        if path.startswith(_ADMIN_MODELS + "/"):
            return _admin_template(path)
        for folder in self._folders:
            if path.startswith(folder):
                return folder + "{file}"
        return OTHER


def _model_template(path: str) -> str:
    """/v2/models/NAME[/versions/VERSION] and what may follow it, without the names."""
    _, *rest = path.removeprefix(_MODELS).split("/")
    template = _MODELS + "{name}"
    if rest[:1] == ["versions"] and len(rest) > 1:
        rest, template = rest[2:], template + "/versions/{version}"
    end = "".join(f"/{part}" for part in rest)
    return template + end if end in _V2_MODEL else OTHER


def _admin_template(path: str) -> str:
    """/admin/models/NAME/ACTION without the name."""
    _, _, action = path.removeprefix(_ADMIN_MODELS + "/").partition("/")
    return f"{_ADMIN_MODELS}/{{name}}/{action}" if action in _ADMIN_ACTIONS else OTHER
