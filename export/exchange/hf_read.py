"""Read a folder in Hugging Face layout, written by `export.push`, by timm or by transformers, into a new bundle.

Nothing in the folder is executed: the network is the catalogue's or timm's, and the weights are safetensors, never
pickle. Settings with which timm would build another network are refused.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models._hub import save_config_for_hf

from export.exchange.hf_layout import CONFIG, SECTION, WEIGHTS_FILE, Section
from export.exchange.labels import class_names
from export.exchange.transformers_read import of_transformers, read_model
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.manifest import Manifest
from models.catalog import architecture, catalogue
from models.checkpoint import build, fit_input_size, load_state, save_weights
from models.common.errors import HalftoneError
from models.common.files import sha256
from models.common.text import printable
from models.foreign.transformers_names import to_timm
from models.spec import TIMM, Architecture, InputSpec

_LICENSE = re.compile(r"[A-Za-z0-9.+-]{1,60}")
# Arguments for training or loading, which do not change the network.
_HARMLESS = frozenset({"drop_rate", "drop_path_rate", "pretrained"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Checked description of the model in a folder."""

    network: Architecture
    """Network of the catalogue or of timm's registry."""

    manifest: Manifest
    """Manifest of the new bundle, without files."""

    section: Section | None
    """Section of `export.push`; None for a folder written by timm or transformers."""

    config: dict[str, Any]
    """The whole of `config.json`."""

    kind: str | None = None
    """Class of transformers; None for tensors under timm's names."""


def pull_folder(folder: Path, target: Path, labels: Path | None = None) -> Bundle:
    """Make a bundle from a folder; an error leaves nothing behind.

    Args:
        folder: holds `config.json` and `model.safetensors`, and `preprocessor_config.json` if transformers wrote it.
        target: folder of the new bundle, missing or empty; its name becomes the bundle's.
        labels: file with one class name per line, for a folder whose `config.json` has none.

    Raises:
        HalftoneError: a file is missing, damaged or does not fit the others, timm has no such network, or it needs a
            preprocessing that Halftone does not have.
        BundleError: the target is not empty.
    """
    source = describe(folder, target.name, labels)
    weights = _weights(folder, source.section)
    module = build(source.network, classes=len(source.manifest.labels))
    fit_input_size(module, source.network, source.manifest.input.size)
    _load(module, weights, folder / WEIGHTS_FILE, source.kind)
    _check_network(source, module, folder / CONFIG)
    command = f"`python -m export.pull --from {folder} --name {target.name}`"
    with Bundle.creating(target, source.manifest) as bundle:
        if source.section:
            # The same bytes, so that the version stays the same.
            bundle.write(WEIGHTS, weights, made_by=command)
        else:
            save_weights(bundle, module, made_by=command)
        bundle.write(CARD, model_card(bundle.manifest, source.network), made_by=command, made_from=[WEIGHTS])
    return bundle


def describe(folder: Path, name: str, labels: Path | None) -> Source:
    """Read and check `config.json`; `name` is the new bundle's, other arguments and errors are as for `pull_folder`."""
    config = _config(folder)
    if of_transformers(config):
        return _described(folder, name, labels, config)
    settings = config["pretrained_cfg"]
    network = _network(str(config.get("architecture")), str(settings.get("tag") or ""), folder / CONFIG)
    section = Section.read(config[SECTION]) if SECTION in config else None
    names, ids = class_names(config, settings, section.label_ids if section else None, labels, folder / CONFIG)
    license_ = str(settings.get("license") or "other")
    manifest = Manifest(
        name=name,
        architecture=network.name,
        input=_input(settings, folder / CONFIG),
        labels=names,
        label_ids=ids,
        trained=section.trained if section else True,
        source=section.source if section else f"the folder {printable(folder.resolve().name)} that timm wrote",
        license=license_ if _LICENSE.fullmatch(license_) else "other",
        training=section.training if section else {},
        temperature=section.temperature if section else 1.0,
    )
    return Source(network=network, manifest=manifest, section=section, config=config)


def _described(folder: Path, name: str, labels: Path | None, config: dict[str, Any]) -> Source:
    """Return the description of a folder that transformers wrote."""
    model = read_model(folder, config)
    names, _ = class_names(
        {"num_classes": len(model.labels), "label_names": list(model.labels)}, {}, None, labels, folder / CONFIG
    )
    network = _network(model.timm_model, "", folder / CONFIG)
    manifest = Manifest(
        name=name,
        architecture=network.name,
        input=model.input,
        labels=names,
        trained=True,
        source=f"the folder {printable(folder.resolve().name)} that transformers wrote{model.remark}",
        license="other",
    )
    return Source(network=network, manifest=manifest, section=None, config=config, kind=model.kind)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise HalftoneError(
            f"--from {folder}: no {CONFIG} in it; name a folder in Hugging Face layout (config.json, "
            "model.safetensors), as `python -m export.push`, timm's `save_for_hf` and transformers' `save_pretrained` "
            "write it"
        )
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise HalftoneError(f"{path} is not JSON ({error}): push or save the model again") from None
    if not isinstance(config, dict) or not (isinstance(config.get("pretrained_cfg"), dict) or of_transformers(config)):
        raise HalftoneError(
            f"{path} is not a configuration of timm (no `pretrained_cfg`), nor one of transformers (no `model_type`): "
            "save the model with timm's `save_for_hf` or with transformers' `save_pretrained`"
        )
    if not isinstance(config.get(SECTION, {}), dict):
        raise HalftoneError(f"the section {SECTION!r} of {path} is not an object: push the bundle again")
    return config


def _network(model: str, tag: str, path: Path) -> Architecture:
    """Return the entry that timm builds under that name: the catalogue's, or else that of timm's registry.

    Preferably it has the same tag of weights.
    """
    entries = [entry for entry in catalogue().values() if entry.timm_name.partition(".")[0] == model]
    same = next((entry for entry in entries if entry.timm_name == f"{model}.{tag}"), None)
    if same or entries:
        return same or entries[0]
    try:
        try:
            return architecture(f"{TIMM}{model}.{tag}".rstrip("."))
        except HalftoneError:
            # Weights that were trained elsewhere may have a tag of their own.
            return architecture(f"{TIMM}{model}")
    except HalftoneError as error:
        raise HalftoneError(f"{path} names timm's architecture {printable(model)!r}: {error}") from None


def _input(settings: dict[str, Any], path: Path) -> InputSpec:
    size = settings.get("input_size")
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise HalftoneError(f"{path}: input_size is {size!r}, and Halftone's networks see RGB squares, [3, S, S]")
    mode = settings.get("crop_mode", "center")
    if mode != "center":
        raise HalftoneError(
            f"{path}: crop_mode is {mode!r}, and Halftone cuts the centre square: fine-tune the model with "
            '"crop_mode": "center" and save it again'
        )
    values = {
        "size": size[1],
        "interpolation": settings.get("interpolation", "bicubic"),
        "crop_fraction": settings.get("crop_pct", 0.875),
        "mean": settings.get("mean"),
        "std": settings.get("std"),
    }
    try:
        return InputSpec.from_dict(values)
    except HalftoneError as error:
        raise HalftoneError(f"{path}: {error}; correct it there, or save the model again") from None


def _weights(folder: Path, section: Section | None) -> bytes:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise HalftoneError(
            f"--from {folder}: no {WEIGHTS_FILE} in it; files of other kinds are pickles, which can run code when they "
            "are read, and are never opened: save the model with timm's `save_for_hf(…, safe_serialization=True)`"
        )
    data = path.read_bytes()
    if section and sha256(data) != section.weights_sha256:
        raise HalftoneError(
            f"{path} holds other weights than {CONFIG} describes (SHA-256 differs): push the bundle again, or remove "
            f"the section {SECTION!r} from {CONFIG} if the weights were replaced on purpose"
        )
    return data


def _load(module: torch.nn.Module, weights: bytes, path: Path, kind: str | None) -> None:
    """Load the weights; refuse names, shapes or element types that are not those of the network.

    Args:
        module: gets the weights.
        weights: content of the file.
        path: of the file, for messages.
        kind: class of transformers whose names they have; None for timm's.
    """
    try:
        state = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise HalftoneError(f"{path} is not a whole safetensors file ({error}): copy or save it again") from None
    if kind is not None:
        state = to_timm(state, kind, module)
    own = module.state_dict()
    other = [
        name for name in own.keys() & state.keys() if own[name].is_floating_point() != state[name].is_floating_point()
    ]
    if other:
        raise HalftoneError(
            f"{path}: {min(other)} is {state[min(other)].dtype}: save the model in floating point again"
        )
    load_state(module, state, str(path))


def _check_network(source: Source, module: torch.nn.Module, path: Path) -> None:
    """Refuse arguments with which timm would build another network than the catalogue's."""
    with tempfile.TemporaryDirectory() as folder:
        save_config_for_hf(module, str(Path(folder) / CONFIG))
        own = json.loads((Path(folder) / CONFIG).read_bytes())
    theirs = [*(source.config.get("model_args") or {}).items()]
    theirs += [(key, source.config[key]) for key in ("global_pool",) if key in source.config]
    for key, value in theirs:
        expected = own["model_args"].get(key, own.get(key))
        if key not in _HARMLESS and not _same(value, expected):
            raise HalftoneError(
                f"{path} builds the network with {key}={value!r}, and the catalogue's {source.network.name} has "
                f"{expected!r}: choose a model that was made without that argument"
            )


def _same(value: Any, expected: Any) -> bool:
    """Return True if two arguments mean the same; the side of a square may be given once or twice."""
    if isinstance(expected, list) and not isinstance(value, list):
        return all(value == each for each in expected)
    return bool(value == expected)
