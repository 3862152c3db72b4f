"""The BentoML model store: a whole bundle as `name:version`, proofs included.

The bundle lies in a folder of its own name inside the stored model, so that it can also be served from the store:
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
    """Store the whole bundle, every file checked against its hash; returns the tag, `name:version`.

    Raises:
        HalftoneError: the tag is taken, or BentoML does not accept the name.
        BundleError: a file is missing or not what the manifest says.
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
        # After an error BentoML removes what it has copied so far, after Ctrl-C it does not.
        with contextlib.suppress(BentoMLException):
            bentoml.models.delete(tag)
        raise
    return str(tag)


def pull_bento(tag: str, target: Path) -> Bundle:
    """Make a bundle from a stored one, every file checked against its hash.

    Args:
        tag: `NAME`, for the version stored last, or `NAME:VERSION`.
        target: folder of the new bundle, missing or empty; its name becomes the bundle's.

    Raises:
        HalftoneError: there is no such model, or it holds no bundle.
        BundleError: a file is missing or not what the manifest says, or the target holds something.
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
            f"{stored.tag} of the model store holds no bundle of Halftone's: choose one that "
            "`python -m export.push --to bentoml` stored"
        )
    source = Bundle.open(folders[0])
    copy(source, target, _renamed(source.manifest, name, f"`python -m export.pull --from bentoml:{tag} --name {name}`"))
    return Bundle.open(target)


def copy(source: Bundle, folder: Path, manifest: Manifest) -> None:
    """A new bundle with the checked bytes of every file, all of them or nothing.

    Args:
        source: the opened bundle.
        folder: must be missing or empty.
        manifest: the new bundle's; it lists the same files.
    """
    with Bundle.creating(folder, manifest) as bundle:
        for name in manifest.files:
            write_atomic(bundle.folder / name, source.read(name))


def _tag(name: str, version: str | None = None) -> Any:
    """BentoML's tag; its names are lower case."""
    try:
        return bentoml.Tag(name.lower(), version)
    except ValueError as error:
        raise HalftoneError(f"{name!r} can't be a name in the model store ({error})") from None


def _labels(manifest: Manifest) -> dict[str, str]:
    """What `bentoml models list` can be filtered by."""
    return {"made-by": "halftone", "architecture": manifest.architecture}


def _metadata(manifest: Manifest) -> dict[str, Any]:
    """What `bentoml models get` shows."""
    return {
        "architecture": manifest.architecture,
        "classes": len(manifest.labels),
        "source": manifest.source,
        "license": manifest.license,
        "trained": manifest.trained,
        "proofs": [name for name in manifest.files if name.startswith("parity/")],
    }


def _renamed(manifest: Manifest, name: str, command: str) -> Manifest:
    """The manifest under another name, with commands that repair the files under that name.

    An export comes back by exporting again, everything else by pulling again.
    """
    option = re.compile(rf"--model {re.escape(manifest.name)}(?=[ `])")

    def repair(made_by: str) -> str:
        exports = made_by.startswith("`python -m export") and "--weights" not in made_by
        return option.sub(f"--model {name}", made_by) if exports else command

    files = {file: replace(record, made_by=repair(record.made_by)) for file, record in manifest.files.items()}
    return replace(manifest, name=name, files=files)
