"""`python -m export.push --model NAME --to FOLDER` or `--to bentoml`: publish a model for others to fetch.

A folder gets the checkpoint in Hugging Face layout, which timm loads and a hub accepts:
`timm.create_model("local-dir:FOLDER", pretrained=True)`. The model store of BentoML (`--to bentoml`) gets the whole
bundle, with exported graphs and parity records, as `NAME:VERSION`. About 10 s; a failure leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.bundle.store import open_bundle
from models.common.cli import DONE, run
from models.common.files import check_writable
from models.common.text import printable

STORE = "bentoml"


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Write a bundle to a folder in Hugging Face layout, or to the model store of BentoML."""

    model: str
    """Bundle under artifacts/."""

    to: str
    """A new folder, or `bentoml` for the model store (use ./bentoml for a folder of that name)."""


def _main(config: PushConfig) -> int:
    if config.to != STORE:
        check_writable(Path(config.to), "--to")
    bundle = open_bundle(config.model)
    # Imported here: one loads torch, the other BentoML.
    if config.to == STORE:
        from export.exchange.bentoml_store import push_bento

        tag = push_bento(bundle)
        print(
            f"stored {tag}: `bentoml models get {tag}` shows it, `python -m export.pull --from bentoml:{tag}` gets it"
        )
        return DONE
    from export.exchange.hf_write import push_folder

    push_folder(bundle, Path(config.to))
    print(
        f'wrote {printable(config.to)}: timm.create_model("local-dir:{printable(config.to)}", pretrained=True) loads it'
    )
    return DONE


if __name__ == "__main__":
    run(_main, PushConfig, prog="python -m export.push", example="--model photos --to published/photos")
