"""Catalogue of architectures by name, discovered from the files of `models/architectures/`."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil

import models.architectures
from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.spec import TIMM, Architecture


@functools.cache
def catalogue() -> dict[str, Architecture]:
    """Map name to architecture, in the order of the files and of the entries within them."""
    entries: dict[str, Architecture] = {}
    for module in pkgutil.iter_modules(models.architectures.__path__):
        for architecture in importlib.import_module(f"models.architectures.{module.name}").ARCHITECTURES:
            if architecture.name in entries:
                raise RuntimeError(f"architecture {architecture.name!r} is defined twice")
            entries[architecture.name] = architecture
    return entries


def architecture(name: str) -> Architecture:
    """Return the catalogue entry of that name, or the description of the network `timm:NAME` of timm's registry.

    Raises:
        HalftoneError: no such entry; the message suggests the most similar names. Or the network of timm can't be used.
    """
    if name.startswith(TIMM):
        # Imported here: timm and PyTorch take seconds.
        from models.registry.networks import network

        return network(name)
    known = catalogue()
    if name in known:
        return known[name]
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    raise HalftoneError(
        f"there is no architecture {name!r}: {hint}`python -m models` lists all {len(known)}, and "
        "timm:NAME is any other of timm's"
    )


def network_of(manifest: Manifest) -> Architecture:
    """Return the catalogue entry of a bundle's network; for an ensemble, an entry with the sums of its members.

    Raises:
        HalftoneError: the catalogue has no such network.
    """
    if not manifest.members:
        return architecture(manifest.architecture)
    members = [architecture(name) for name in manifest.architectures]
    return Architecture(
        name=manifest.architecture,
        family="ensemble",
        timm_name=", ".join(member.timm_name for member in members),
        input=manifest.input,
        stages=(),
        head="",
        parameters=sum(member.parameters for member in members),
        macs=sum(member.macs for member in members),
        top1=None,
        top1_source="",
        scenario="",
    )
