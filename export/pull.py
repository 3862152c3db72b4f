"""`python -m export.pull --from FOLDER --name NAME` or `--from bentoml:MODEL[:VERSION]`: make a bundle of a model.

The folder is in Hugging Face layout (`config.json`, `model.safetensors`): written by `export.push` or by timm's
`save_for_hf`, or downloaded from a hub. Its checkpoint becomes `artifacts/NAME`, to be exported and proved with
`python -m export --model NAME`. The model store of BentoML gives the whole bundle, with its parity records. About 10 s;
a failure leaves nothing behind. The command executes nothing of what it pulls, and never opens pickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.bundle.bundle import Bundle
from models.bundle.store import bundle_folder
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.text import printable

STORE = "bentoml:"


@dataclass(frozen=True, kw_only=True)
class PullConfig:
    """Make a bundle from a folder in Hugging Face layout, or from the model store of BentoML."""

    from_: Annotated[str, tyro.conf.arg(name="from")]
    """The folder, or `bentoml:MODEL` for the latest version, or `bentoml:MODEL:VERSION`."""

    name: str
    """Name of the new bundle under artifacts/."""

    labels: Path | None = None
    """For a folder without class names: a file with one name per line, in the order of the outputs."""

    def __post_init__(self) -> None:
        if self.labels is not None and self.from_.startswith(STORE):
            raise HalftoneError("--labels is for folders: omit it, a bundle of the model store has its class names")


def pull(config: PullConfig) -> Bundle:
    """Make the bundle and return it.

    Raises:
        HalftoneError: a bundle of that name exists, or as `pull_folder` and `pull_bento`.
    """
    target = bundle_folder(config.name)
    if target.exists():
        raise HalftoneError(f"{target} exists already: remove it, or choose another name with --name")
    # Imported here: one loads torch, the other BentoML.
    if config.from_.startswith(STORE):
        from export.exchange.bentoml_store import pull_bento

        return pull_bento(config.from_.removeprefix(STORE), target)
    from export.exchange.hf_read import pull_folder

    return pull_folder(Path(config.from_), target, config.labels)


def _main(config: PullConfig) -> int:
    bundle = pull(config)
    manifest = bundle.manifest
    what = f"{manifest.architecture}, {len(manifest.labels)} classes, version {manifest.version}"
    print(f"made {printable(bundle.folder)}: {what}")
    if not any(name.startswith("parity/") for name in manifest.files):
        print(f"export and prove it with `python -m export --model {bundle.name}`")
    return DONE


if __name__ == "__main__":
    run(_main, PullConfig, prog="python -m export.pull", example="--from published/photos --name photos2")
