"""Wrong command lines for every command, generated from its own flags."""

import ast
import importlib
import types
import typing
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tyro

from tests.servers import ROOT

PACKAGES = ("models", "training", "export", "serving", "loadtest")
MISSING_INPUT = "nowhere.jpg"
_POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]

# Each command line ends as a wrong request whatever its other flags are: nothing is trained, exported or started.
BASES: dict[str, tuple[str, ...]] = {
    "export": ("--model", "no-such"),
    "export.benchmark": ("--model", "no-such"),
    "export.benchmark.compare": ("--models", "no-such"),
    "export.benchmark.power": ("--model", "no-such"),
    "export.ensemble": ("--models", "no-such,neither", "--name", "new"),
    "export.explain": ("--model", "no-such", "--image", MISSING_INPUT),
    "export.onnx": ("--model", "no-such"),
    "export.openvino": ("--model", "no-such"),
    "export.parity": ("--model", "no-such"),
    "export.preprocess_benchmark": ("--data", MISSING_INPUT),
    "export.pull": ("--from", MISSING_INPUT, "--name", "new"),
    "export.push": ("--model", "no-such", "--to", "new"),
    "export.report": ("--model", "no-such"),
    "export.trt": ("--model", "no-such"),
    "loadtest.ask": ("--image", MISSING_INPUT),
    "loadtest.coldstart": ("--image", MISSING_INPUT),
    "loadtest.compare": ("--images", MISSING_INPUT),
    "loadtest.fleet": ("--image", MISSING_INPUT),
    "loadtest.loop": ("--data", MISSING_INPUT),
    "loadtest.malformed": ("--photo", MISSING_INPUT),
    "loadtest.openloop.fleet": ("--traffic", "1e9"),
    "loadtest.openloop.simulation": ("--seeds", "0"),
    "loadtest.overload": ("--photo", MISSING_INPUT),
    "loadtest.readme": ("--readme", MISSING_INPUT),
    "loadtest.restarts": ("--image", MISSING_INPUT),
    "loadtest.schema": ("--cases", "0"),
    "loadtest.soak": ("--clients", "0"),
    "loadtest.swaps": ("--image", MISSING_INPUT),
    "loadtest.sweep": ("--images", MISSING_INPUT),
    "loadtest.telemetry": ("--image", MISSING_INPUT),
    "loadtest.tune": ("--model", "no-such"),
    "models": ("--family", "no-such"),
    "serving.batch": ("--input", MISSING_INPUT, "--output", "new.parquet", "--model", "no-such"),
    "serving.batch.benchmark": ("--input", MISSING_INPUT, "--model", "no-such"),
    "serving.collect": ("--folder", "nowhere"),
    "serving.decoding.benchmark": ("--rounds", "0"),
    "serving.footprint": ("--top", "0"),
    "serving.profile": ("--image", MISSING_INPUT),
    "training": ("--data", MISSING_INPUT, "--model", "no-such", "--output", "new"),
    "training.ablation": ("--data", MISSING_INPUT, "--model", "no-such"),
    "training.benchmark": ("--data", MISSING_INPUT, "--model", "no-such"),
    "training.benchmark.interval": ("--data", MISSING_INPUT),
    "training.choose": ("--data", MISSING_INPUT, "--output", "new"),
    "training.data": ("--data", MISSING_INPUT),
    "training.data.review": ("--from", MISSING_INPUT, "--to", "new.csv"),
    "training.evaluate": ("--data", MISSING_INPUT, "--model", "no-such"),
    "training.preview": ("--data", MISSING_INPUT, "--output", "new.png"),
}

OUTPUTS = {"--output", "--report", "--settings", "--to"}

ANY_NUMBER = {"--seed"}
"""Flags of numbers of which every one means something."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag of a command, and what it takes."""

    name: str
    kind: Any
    """`int`, `float`, `str`, `Path`, `bool` or a Literal."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A module that is run as `python -m MODULE`."""

    config: type
    example: str
    """Flags in its help."""


@cache
def commands() -> dict[str, Command]:
    """Return every command by the name of its module: what calls `run` at its end."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            end = ast.parse(path.read_text()).body[-1:]
            for node in ast.walk(end[0]) if end and isinstance(end[0], ast.If) else ():
                match node:
                    case ast.Call(func=ast.Name(id="run"), args=[_, ast.Name(id=config)], keywords=keywords):
                        given = {each.arg: each.value for each in keywords}
                        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                        found[name.removesuffix(".__main__")] = Command(
                            config=getattr(importlib.import_module(name), config),
                            example=ast.literal_eval(given["example"]),
                        )
    return found


def flags(config: type) -> Iterator[Flag]:
    """Yield the flags of a configuration, those of its parts included."""
    for name, hint, _, _ in leaves(config):
        yield Flag(name=name, kind=_scalar(hint))


def leaves(config: type, prefix: str = "") -> Iterator[tuple[str, Any, "Field[Any]", type]]:
    """Yield name, type, field and owner of each flag of a configuration, those of its parts included."""
    hints = typing.get_type_hints(config, include_extras=True)
    for field in fields(config):
        hint, name = hints[field.name], field.name.strip("_").replace("_", "-")
        flat, extras = False, []
        if typing.get_origin(hint) is typing.Annotated:
            hint, *extras = typing.get_args(hint)
            flat = any(getattr(extra, "name", None) == "" for extra in extras)
        if _POSITIONAL in extras:
            yield name.upper(), hint, field, config
        elif is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), prefix if flat else f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}", hint, field, config


def _scalar(hint: Any) -> Any:
    """Return the type of a single value of a hint such as `tuple[int, ...] | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint


def wrong_values(flag: Flag, unwritable: Path) -> Iterator[tuple[str, bool]]:
    """Yield wrong values of a flag, and whether the message has to name the flag.

    Args:
        flag: the flag.
        unwritable: a path at which nothing can be written.
    """
    if flag.kind in (int, float):
        yield "many", True
        yield "nan", True
        if flag.name not in ANY_NUMBER:
            yield "-1", True
    elif flag.name in OUTPUTS:
        yield str(unwritable), False
    elif flag.kind is Path:
        yield MISSING_INPUT, False
    elif typing.get_origin(flag.kind) is Literal:
        yield "no-such", True
    elif flag.kind is str:
        yield "no-such/thing", False
        yield "", False
