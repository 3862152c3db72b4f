"""Command line of a training run, from its settings: the way back from what `training.config.train` parses."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, get_origin, get_type_hints

from training.config.train import TrainConfig, load_recipe, recipe_names

Flags = dict[str, list[str]]
"""Flag, in its form without `no-`, to what is typed for it."""


def flags_between(default: Any, config: Any, prefix: str = "") -> Flags:
    """Return the flags that make one configuration of another.

    Args:
        default: what the command line starts from.
        config: of the same class.
        prefix: of the flags.
    """
    found: Flags = {}
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        before, now = getattr(default, field.name), getattr(config, field.name)
        name = f"{prefix}{field.name.strip('_').replace('_', '-')}"
        if is_dataclass(now):
            # An annotation takes the name of the group from the flags.
            found |= flags_between(before, now, prefix if get_origin(hints[field.name]) is Annotated else f"{name}.")
        elif now != before:
            found[f"--{name}"] = _typed(name, now)
    return found


def flags_of(config: TrainConfig) -> Flags | None:
    """Return the flags of a resolved run, without the output and what does not change the weights.

    Returns:
        None if the run's recipe is none of the command line's.
    """
    if config.recipe not in recipe_names():
        return None
    recipe = load_recipe(config.recipe)
    settings = replace(recipe.resized(epochs=config.settings.epochs, size=None), epochs=recipe.epochs)
    plain = TrainConfig(
        data=config.data,
        model=config.model,
        output=config.output,
        resume=config.resume,
        restart=config.restart,
        running=config.running,
        settings=settings,
    )
    required = {"--data": ["--data", config.data], "--model": ["--model", config.model]}
    return required | flags_between(plain, config)


def command_of(flags: Mapping[str, list[str]]) -> str:
    """Return the command as it is typed in a shell."""
    return shlex.join(["python", "-m", "training", *(word for words in flags.values() for word in words)])


def _typed(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
