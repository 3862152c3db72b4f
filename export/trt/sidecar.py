"""`engines/VARIANT.json`: description of a plan, checked before the plan is deserialised."""

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
    """The library's version; no other version loads the plan."""

    precision: str
    """`fp16` or `fp32`."""

    compute_capabilities: tuple[str, ...]
    """The GPUs that the plan runs on, such as ("8.6", "8.9")."""

    profile: Profile
    """Batch sizes."""

    onnx: str
    """The bundle's graph that the plan was built from."""

    onnx_sha256: str
    """Hash of the graph."""

    plan_sha256: str
    """Hash of the plan."""

    model_version: str
    """The model's version (`Manifest.version`)."""

    histogram: Histogram
    """Layers of the built network by type and number format."""

    build_seconds: float
    """Duration of the build."""

    size: int
    """Size of the plan in bytes."""

    def to_json(self) -> bytes:
        """Return the description as indented UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the result of `to_json`.

        Raises:
            HalftoneError: the data is not a description of this schema.
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
    """Return the plan's path in the bundle."""
    return f"engines/{runtime}-{precision}.plan"


def sidecar_name(runtime: str, precision: str) -> str:
    """Return the description's path in the bundle."""
    return f"engines/{runtime}-{precision}.json"


def build_command(
    model: str, runtime: str, precision: str, *, profile: Profile | None = None, capabilities: tuple[str, ...] = ()
) -> str:
    """Return the command that builds the plan, for records and error messages.

    Args:
        model: name of the bundle.
        runtime: `tensorrt` or `tensorrt_rtx`.
        precision: `fp16` or `fp32`.
        profile: batch sizes, if they matter.
        capabilities: GPUs, if the user named them.
    """
    words = [f"python -m export.trt --model {model} --precision {precision} --runtime {runtime}"]
    if profile is not None and profile != Profile():
        words += [f"--min-batch {profile.minimum} --opt-batch {profile.optimum} --max-batch {profile.maximum}"]
    if capabilities:
        words += ["--compute-capability", *capabilities]
    return f"`{' '.join(words)}`"


def checked_sidecar(bundle: Bundle, runtime: str, precision: str, *, version: str, compute_capability: str) -> Sidecar:
    """Read a plan's description and check that this machine can load the plan; do not read the plan.

    Args:
        bundle: the opened bundle.
        runtime: `tensorrt` or `tensorrt_rtx`.
        precision: `fp16` or `fp32`.
        version: of the installed library.
        compute_capability: of this machine's GPU.

    Raises:
        HalftoneError: the description is for another plan, library version or GPU; the message names the command.
        BundleError: the description is missing or does not match its hash in the manifest.
    """
    name, plan = sidecar_name(runtime, precision), plan_name(runtime, precision)
    rebuild = f"build it again here with {build_command(bundle.name, runtime, precision)}"
    data = bundle.read(name)
    try:
        sidecar = Sidecar.from_json(data)
    except HalftoneError as error:
        raise HalftoneError(f"{bundle.folder / name} can't be used: {error}; {rebuild}") from None
    if (sidecar.plan_sha256, sidecar.runtime) != (bundle.manifest.files[plan].sha256, runtime):
        raise HalftoneError(f"{bundle.folder / name} describes another plan than {plan}: {rebuild}")
    if sidecar.version != version:
        raise HalftoneError(
            f"{bundle.folder / plan} was built by {runtime} {sidecar.version} and loads in that version only, "
            f"and {version} is installed: {rebuild}"
        )
    if compute_capability not in sidecar.compute_capabilities:
        raise HalftoneError(
            f"{bundle.folder / plan} was built for GPUs of compute capability "
            f"{', '.join(sidecar.compute_capabilities)}, and this machine's GPU has {compute_capability}: {rebuild} "
            f"(--compute-capability {compute_capability})"
        )
    return sidecar
