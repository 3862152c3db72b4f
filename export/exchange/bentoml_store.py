"""Bundles in the BentoML model store: the whole bundle as `name:version`, with its parity records.

The bundle is a sub-folder of the stored model, with the bundle's name, so that it can be served from the store:
`HALFTONE_ARTIFACTS=$(bentoml models get NAME:VERSION -o path) HALFTONE_MODEL=NAME bentoml serve`.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.bundle.bundle import Bundle
from models.bundle.manifest import FILE_NAME, Manifest
from models.common.errors import HalftoneError
from models.common.files import write_atomic

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

# Imported after the line above, which it reads.
import bentoml
from bentoml.exceptions import BentoMLException, NotFound


def push_bento(bundle: Bundle) -> str:
    """Store the whole bundle, with every file checked against its hash, and return the tag `name:version`.

    Raises:
        HalftoneError: the tag exists, or BentoML does not accept the name.
        BundleError: a file is missing or differs from the manifest.
    """
    manifest = bundle.manifest
    tag = _tag(manifest.name, manifest.version)
    with contextlib.suppress(NotFound):
        bentoml.models.get(tag)
        raise HalftoneError(f"the model store has {tag} already: remove it with `bentoml models delete {tag}`")
    try:
        with bentoml.models.create(tag, labels=_labels(manifest), metadata=_metadata(manifest)) as stored:
            copy(bundle, Path(stored.path) / manifest.name, manifest)
    except BentoMLException as error:
        raise HalftoneError(f"the model store did not take {tag} ({error}): see `bentoml models list`") from None
    except KeyboardInterrupt:
        # BentoML removes a partial copy after an error, but not after Ctrl-C.
        with contextlib.suppress(BentoMLException):
            bentoml.models.delete(tag)
        raise
    return str(tag)


def pull_bento(tag: str, target: Path) -> Bundle:
    """Make a bundle from a stored one, with every file checked against its hash.

    Args:
        tag: `NAME` for the latest version, or `NAME:VERSION`.
        target: folder of the new bundle, missing or empty; its name becomes the bundle's.

    Raises:
        HalftoneError: there is no such model, or it holds no bundle.
        BundleError: a file is missing or differs from the manifest, or the target is not empty.
    """
    name = target.name
    try:
        stored = bentoml.models.get(_tag(*tag.split(":", maxsplit=1)))
    except NotFound:
        raise HalftoneError(f"the model store has no {tag}: `bentoml models list` shows what it has") from None
    except BentoMLException as error:
        raise HalftoneError(
            f"the model store can't give {tag} ({error}): name one version of `bentoml models list`"
        ) from None
    folders = [path.parent for path in Path(stored.path).glob(f"*/{FILE_NAME}")]
    if len(folders) != 1:
        raise HalftoneError(
            f"{stored.tag} of the model store is not a bundle of Halftone: choose a model that was stored with "
            "`python -m export.push --to bentoml`"
        )
    source = Bundle.open(folders[0])
    copy(source, target, _renamed(source.manifest, name, f"`python -m export.pull --from bentoml:{tag} --name {name}`"))
    return Bundle.open(target)


def copy(source: Bundle, folder: Path, manifest: Manifest) -> None:
    """Write a new bundle with the checked bytes of every file, all of them or nothing.

    Args:
        source: the opened bundle.
        folder: must be missing or empty.
        manifest: of the new bundle; lists the same files.
    """
    with Bundle.creating(folder, manifest) as bundle:
        for name in manifest.files:
            write_atomic(bundle.folder / name, source.read(name))


def _tag(name: str, version: str | None = None) -> Any:
    """Return BentoML's tag; its names are lower case."""
    try:
        return bentoml.Tag(name.lower(), version)
    except ValueError as error:
        raise HalftoneError(f"{name!r} can't be a name in the model store ({error})") from None


def _labels(manifest: Manifest) -> dict[str, str]:
    """Return the labels by which `bentoml models list` filters."""
    return {"made-by": "halftone", "architecture": manifest.architecture}


def _metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata that `bentoml models get` shows."""
    return {
        "architecture": manifest.architecture,
        "classes": len(manifest.labels),
        "source": manifest.source,
        "license": manifest.license,
        "trained": manifest.trained,
        "proofs": [name for name in manifest.files if name.startswith("parity/")],
    }


def _renamed(manifest: Manifest, name: str, command: str) -> Manifest:
    """Return the manifest under another name, with the repair commands (`made_by`) for that name.

    Exporting again repairs an exported file; pulling again (`command`) repairs the others.
    """
    option = re.compile(rf"--model {re.escape(manifest.name)}(?=[ `])")

    def repair(made_by: str) -> str:
        exports = made_by.startswith("`python -m export") and "--weights" not in made_by
        return option.sub(f"--model {name}", made_by) if exports else command

    files = {file: replace(record, made_by=repair(record.made_by)) for file, record in manifest.files.items()}
    return replace(manifest, name=name, files=files)
