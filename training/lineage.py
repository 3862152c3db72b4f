"""What a network is made from, beyond its settings: the pictures, the weights it starts from, its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import HalftoneError
from models.files import sha256_file
from models.start import BY_NAME
from models.store import open_bundle
from training.config import TrainConfig
from training.data.pictures import Data


def lineage(config: TrainConfig, data: Data) -> dict[str, Any]:
    """What the network is made from, for the manifest and to refuse going on with something else.

    Returns:
        `data`: sizes and a fingerprint of names and targets; `weights_sha256` where it starts from a file;
        `teacher_version` where it has a teacher.

    Raises:
        HalftoneError: the file or the teacher is not there.
    """
    made_from: dict[str, Any] = {
        "data": {
            "description": data.description,
            "train": len(data.train),
            "val": len(data.val),
            "fingerprint": data.fingerprint(),
        }
    }
    if config.weights not in BY_NAME:
        path = Path(config.weights)
        if not path.is_file():
            raise HalftoneError(f"--weights {path}: no such file; name a .safetensors file, `pretrained` or `random`")
        made_from["weights_sha256"] = sha256_file(path)
    if config.settings.objective.teacher is not None:
        made_from["teacher_version"] = open_bundle(config.settings.objective.teacher).manifest.version
    return made_from
