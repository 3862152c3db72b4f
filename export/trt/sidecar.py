"""`engines/VARIANT.json`: what a plan is, where it runs and what is in it, readable before the plan is deserialised."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from export.trt.histogram import Histogram
from export.trt.profile import Profile
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The description of a plan."""

    runtime: str
    """`tensorrt` or `tensorrt_rtx`."""

    version: str
    """The library's version, the only one that loads the plan."""

    precision: str
    """`fp16` or `fp32`."""

    compute_capabilities: tuple[str, ...]
    """The GPUs that the plan runs on, such as ("8.6", "8.9")."""

    profile: Profile
    """Batch sizes."""

    onnx: str
    """The bundle's graph that it was built from."""

    onnx_sha256: str
    """Its hash."""

    plan_sha256: str
    """Hash of the plan."""

    model_version: str
    """The model's version (`Manifest.version`)."""

    histogram: Histogram
    """Layers of the built network by kind and number format."""

    build_seconds: float
    """How long the build took."""

    size: int
    """Of the plan, in bytes."""

    def to_json(self) -> bytes:
        """The description as readable UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            HalftoneError: not a description of this schema.
        """
        try:
            values: dict[str, Any] = json.loads(data)
            if values.pop("schema", None) != SCHEMA:
                raise ValueError("another schema version")
            values["profile"] = Profile(**values["profile"])
            values["compute_capabilities"] = tuple(values["compute_capabilities"])
            return cls(**values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise HalftoneError(f"not the description of a plan ({error})") from None


def plan_name(runtime: str, precision: str) -> str:
    """The plan's place in the bundle."""
    return f"engines/{runtime}-{precision}.plan"


def sidecar_name(runtime: str, precision: str) -> str:
    """The description's place in the bundle."""
    return f"engines/{runtime}-{precision}.json"


def build_command(
    model: str, runtime: str, precision: str, *, profile: Profile | None = None, capabilities: tuple[str, ...] = ()
) -> str:
    """What makes the plan, to be named where it is of no use.

    Args:
        model: name of the bundle.
        runtime: `tensorrt` or `tensorrt_rtx`.
        precision: `fp16` or `fp32`.
        profile: batch sizes, if they matter.
        capabilities: GPUs, if they were named.
    """
    words = [f"python -m export.trt --model {model} --precision {precision} --runtime {runtime}"]
    if profile is not None and profile != Profile():
        words += [f"--min-batch {profile.minimum} --opt-batch {profile.optimum} --max-batch {profile.maximum}"]
    if capabilities:
        words += ["--compute-capability", *capabilities]
    return f"`{' '.join(words)}`"


def checked_sidecar(bundle: Bundle, runtime: str, precision: str, *, version: str, compute_capability: str) -> Sidecar:
    """The description of a plan that this machine can load; the plan itself is not touched.

    Args:
        bundle: the opened bundle.
        runtime: `tensorrt` or `tensorrt_rtx`.
        precision: `fp16` or `fp32`.
        version: of the library here.
        compute_capability: of the GPU here.

    Raises:
        HalftoneError: the plan is another's, or for another library version or GPU; the message names the command.
        BundleError: the description is missing or was tampered with.
    """
    name, plan = sidecar_name(runtime, precision), plan_name(runtime, precision)
    rebuild = f"build it again here with {build_command(bundle.manifest.name, runtime, precision)}"
    data = bundle.read(name)
    try:
        sidecar = Sidecar.from_json(data)
    except HalftoneError as error:
        raise HalftoneError(f"{bundle.folder / name} can't be used: {error}; {rebuild}") from None
    if (sidecar.plan_sha256, sidecar.runtime) != (bundle.manifest.files[plan].sha256, runtime):
        raise HalftoneError(f"{bundle.folder / name} describes another plan than {plan}: {rebuild}")
    if sidecar.version != version:
        raise HalftoneError(
            f"{bundle.folder / plan} was built by {runtime} {sidecar.version} and loads in no other version, "
            f"and {version} is installed: {rebuild}"
        )
    if compute_capability not in sidecar.compute_capabilities:
        raise HalftoneError(
            f"{bundle.folder / plan} was built for GPUs of compute capability "
            f"{', '.join(sidecar.compute_capabilities)}, and the one here has {compute_capability}: {rebuild} "
            f"(--compute-capability {compute_capability})"
        )
    return sidecar
