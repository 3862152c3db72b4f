"""`python -m serving.collect --folder FOLDER`: count the pictures that a server has collected, or delete them all.

    python -m serving.collect --folder collected
    python -m serving.collect --folder collected --delete

The folder is the one of HALFTONE_COLLECT. A running service goes on collecting into it. Takes less than a second.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from models.common.cli import DONE, JsonOutput, publish, run
from models.common.text import printable
from models.preprocess.collected import collected_pictures, read_answer
from serving.collect.store import UNLIMITED, Store


@dataclass(frozen=True, kw_only=True)
class CollectConfig(JsonOutput):
    """Count the pictures that a server has collected, by reason, or delete them."""

    folder: Path
    """Folder of HALFTONE_COLLECT."""

    delete: bool = False
    """Delete all pictures; other files in the folder stay."""


def _main(config: CollectConfig) -> int:
    pictures, folder = collected_pictures(config.folder), printable(config.folder)
    store = Store(config.folder, UNLIMITED)
    if config.delete:
        deleted = store.clear()
        publish({"deleted": deleted})
        print(f"deleted {deleted:,} pictures from {folder}")
        return DONE
    reasons = Counter(read_answer(path).reason for path in pictures)
    contents = store.contents().description() | {"reasons": dict(reasons)}
    publish(contents)
    print(f"{folder}: {contents['pictures']:,} pictures, {contents['bytes'] / 2**20:.1f} MiB")
    if contents["oldest"]:
        by_reason = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        print(f"{by_reason}; the oldest is of {contents['oldest']}")
    return DONE


if __name__ == "__main__":
    run(_main, CollectConfig, prog="python -m serving.collect", example="--folder collected")
