"""Hugging Face layout as timm 1.0 writes it: file names, and Halftone's section of the configuration.

config.json         architecture, labels, `pretrained_cfg` (input, mean, std, …), and the section `halftone`
model.safetensors   the weights under timm's names
README.md           the model card
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.common.files import sha256

CONFIG = "config.json"
WEIGHTS_FILE = "model.safetensors"
SECTION = "halftone"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Section `halftone` of `config.json`: fields of the manifest that timm's configuration lacks."""

    weights_sha256: str
    """Hash of `model.safetensors`, to detect weights that were replaced without their description."""

    source: str
    """As `Manifest.source`."""

    trained: bool
    """As `Manifest.trained`."""

    temperature: float
    """As `Manifest.temperature`."""

    label_ids: list[str] = field(default_factory=list)
    """As `Manifest.label_ids`."""

    training: dict[str, Any] = field(default_factory=dict)
    """As `Manifest.training`."""

    @classmethod
    def of(cls, manifest: Manifest, weights: bytes) -> Self:
        """Return the section for a bundle."""
        return cls(
            weights_sha256=sha256(weights),
            source=manifest.source,
            trained=manifest.trained,
            temperature=manifest.temperature,
            label_ids=list(manifest.label_ids),
            training=manifest.training,
        )

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Parse the output of `to_dict`.

        Raises:
            HalftoneError: a field is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise HalftoneError(
                f"the section {SECTION!r} of {CONFIG} can't be used ({error}): push the bundle again, or remove the "
                "section to take labels, input and weights alone"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return asdict(self)
