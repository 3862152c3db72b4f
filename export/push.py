"""`python -m export.push --model NAME --to FOLDER` (or `bentoml`, `triton:FOLDER`, `ovms:FOLDER`): publish a model.

A folder gets the checkpoint in Hugging Face layout, which timm loads and a hub accepts:
`timm.create_model("local-dir:FOLDER", pretrained=True)`. The model store of BentoML (`--to bentoml`) gets the whole
bundle, with exported graphs and parity records, as `NAME:VERSION`. NVIDIA Triton (`--to triton:FOLDER`) and OpenVINO
Model Server (`--to ovms:FOLDER`) get a model repository with the fastest variant that is proven for their runtime.
About 10 s; a failure leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import check_writable
from models.common.text import printable

STORE = "bentoml"
SERVERS = ("triton", "ovms")


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Write a bundle to a folder in Hugging Face layout, to the model store of BentoML, or for another server."""

    model: str
    """Bundle under artifacts/."""

    to: str
    """A new folder, `bentoml` for the model store, or `triton:FOLDER` or `ovms:FOLDER` for the model repository of
    Triton or OpenVINO Model Server (use ./bentoml for a folder of such a name)."""


def _main(config: PushConfig) -> int:
    kind, folder = _destination(config.to)
    if kind != STORE:
        check_writable(folder, "--to")
    bundle = open_bundle(config.model)
    # Imported in the functions: each destination needs other heavy packages.
    if kind == STORE:
        print(_to_store(bundle))
    elif kind in SERVERS:
        print(_to_server(bundle, kind, folder))
    else:
        print(_to_folder(bundle, folder))
    return DONE


def _destination(to: str) -> tuple[str, Path]:
    """Return the kind of destination, empty for a folder, and the folder.

    Raises:
        HalftoneError: a server's folder is not named.
    """
    if to == STORE:
        return STORE, Path()
    kind, _, folder = to.partition(":")
    if kind not in SERVERS:
        return "", Path(to)
    if not folder:
        raise HalftoneError(
            f"--to {to} names no folder: write --to {kind}:FOLDER with a new folder, or --to ./{kind} for one in "
            "Hugging Face layout"
        )
    return kind, Path(folder)


def _to_store(bundle: Bundle) -> str:
    from export.exchange.bentoml_store import push_bento

    tag = push_bento(bundle)
    pull = f"python -m export.pull --from bentoml:{tag} --name {bundle.name}"
    return f"stored {tag}: `bentoml models get {tag}` shows it, `{pull}` gets it"


def _to_folder(bundle: Bundle, folder: Path) -> str:
    from export.exchange.hf_write import push_folder

    push_folder(bundle, folder)
    name = printable(folder)
    return f'wrote {name}: timm.create_model("local-dir:{name}", pretrained=True) loads it'


def _to_server(bundle: Bundle, kind: str, folder: Path) -> str:
    if kind == "triton":
        from export.exchange.triton_repository import push_triton as push
    else:
        from export.exchange.ovms_repository import push_ovms as push

    variants = ", ".join(push(bundle, folder))
    return f"wrote {printable(folder)} with {variants}: its README.md says how to start the server and what clients do"


if __name__ == "__main__":
    run(_main, PushConfig, prog="python -m export.push", example="--model photos --to published/photos")
