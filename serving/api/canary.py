"""Requests about a candidate version under /admin/models/NAME/, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from models.bundle.store import check_name
from models.common.errors import HalftoneError
from serving.api.model_info import loaded
from serving.http.errors import bad_parameter
from serving.http.json_body import parse_object
from serving.lifecycle.canary.rollout import Request, Rollout
from serving.lifecycle.registry import Registry

# A token of RFC 9110 section 5.6.2, short enough for every server.
_HEADER = re.compile(r"[!#-'*+.^_`|~0-9A-Za-z-]{1,64}")

_BODY = (
    'the body must be empty or a JSON object with some of "bundle": "NAME", "share": 0 to 1, "sticky": "HEADER", '
    '"auto": true or false, "min_agreement": 0 to below 1, "max_slowdown": 1 to 100'
)
_MOST_SLOWDOWN = 100


def state(models: Registry, rollout: Rollout, name: str) -> dict[str, Any]:
    """Return the members `candidate` and `decisions`.

    Raises:
        RequestError: 404 if there is no model of that name, 503 if it is being loaded.
    """
    models.get(name)
    candidate = models.candidate(name)
    return {
        "candidate": loaded(candidate.model) | candidate.description() if candidate else None,
        "decisions": [vars(decision) for decision in rollout.decisions(name)],
    }


def parse_canary(body: bytes) -> Request:
    """Parse what an operator asks of a canary.

    Raises:
        RequestError: 422 if a member is unknown, or has another type or a value out of its range.
    """
    try:
        values = parse_object(body.strip() or b"{}")
    except ValueError:
        raise bad_parameter(_BODY) from None
    if unknown := set(values) - set(_CHECKS):
        raise bad_parameter(f"{_BODY}, not {sorted(unknown)[0][:50]!r}")
    for name, value in values.items():
        if not _CHECKS[name](value):
            raise bad_parameter(f"{_BODY}, not {name} {str(value)[:50]!r}")
    if "bundle" in values:
        parse_name(values["bundle"])
    if "sticky" in values:
        values["sticky"] = values["sticky"].lower()
    return Request(**values)


def parse_name(name: str) -> str:
    """Return the name of a bundle.

    Raises:
        RequestError: 422 if no bundle can have it.
    """
    try:
        check_name(name)
    except HalftoneError as error:
        raise bad_parameter(str(error)[:300]) from None
    return name


def _is_number(value: object, least: float, most: float) -> bool:
    # NaN is not between them.
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "bundle": lambda value: isinstance(value, str),
    "share": lambda value: _is_number(value, 0, 1),
    "sticky": lambda value: isinstance(value, str) and _HEADER.fullmatch(value) is not None,
    "auto": lambda value: isinstance(value, bool),
    "min_agreement": lambda value: _is_number(value, 0, 1) and value < 1,
    "max_slowdown": lambda value: _is_number(value, 1, _MOST_SLOWDOWN),
}
