"""`python -m export.parity --model NAME --variant V --data DIR`: proof that a variant computes what the reference does.

The variant, run by the runtime that serves it, is compared with the FP32 torch reference on real images; the figures
and the verdict go to `parity/V.json`. Exit code 1 if a gate fails. About 20 s for EfficientNet-Lite0 on the 320 crops
of the sample photographs on two cores.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from export.parity.gate import Gate
from export.parity.prove import provable_variants, prove_and_print
from export.parity.record import current
from models.bundle.store import open_bundle
from models.common.cli import JsonOutput, publish, run
from models.common.errors import HalftoneError


@dataclass(frozen=True, kw_only=True)
class ParityConfig(JsonOutput):
    """Prove variants of a bundle against the FP32 reference."""

    model: str
    """Bundle under artifacts/."""

    variant: tuple[str, ...] = ()
    """One or more of RUNTIME-PRECISION, such as openvino-bf16; default: all that can run here."""

    data: Path | None = None
    """Folder of labelled pictures, one folder per class (or with val/ or test/); default: the sample photographs."""

    min_agreement: float | None = None
    """Lowest top-1 agreement where the reference is decided; default 0.99 (bfloat16 0.98, INT8 0.96)."""

    max_mean_kl: float | None = None
    """Highest mean KL divergence in nats; default 1e-6 for FP32, 1e-3 for FP16, 0.01 for bfloat16, 0.05 for INT8."""

    min_images: int | None = None
    """Lowest number of pictures and crops of them; default 256."""

    accuracy_margin: float | None = None
    """With labels: share of the pictures that the accuracy may lose and still be proven as good; default 0.01."""

    def __post_init__(self) -> None:
        for name, most in (("accuracy_margin", 1.0), ("min_agreement", 1.0), ("max_mean_kl", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                wanted = "lie in [0, 1]" if most == 1 else "be 0 or more"
                raise HalftoneError(f"--{name.replace('_', '-')} must {wanted}, not {value}")
        if self.min_images is not None and self.min_images < 1:
            raise HalftoneError(f"--min-images must be 1 or more, not {self.min_images}")


def gate_for(variant: str, config: ParityConfig) -> Gate:
    """Return the default gate of the variant's precision with the thresholds that the user set."""
    names = ("min_agreement", "max_mean_kl", "min_images", "accuracy_margin")
    chosen = {name: getattr(config, name) for name in names}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    return replace(Gate.for_precision(variant.rpartition("-")[2]), **overrides)


def _main(config: ParityConfig) -> int:
    bundle = open_bundle(config.model)
    variants = list(config.variant) or provable_variants(bundle)
    if not variants:
        raise HalftoneError(
            f"{bundle.folder} has nothing to prove yet: export it with `python -m export --model {config.model}`"
        )
    gates = {variant: gate_for(variant, config) for variant in variants}
    code = prove_and_print(bundle, variants, data=config.data, gates=gates)
    publish({variant: asdict(current(bundle, variant)) for variant in variants})
    return code


if __name__ == "__main__":
    run(
        _main,
        ParityConfig,
        prog="python -m export.parity",
        example="--model photos --variant openvino-bf16 --data photos",
    )
