"""Watched bundles: a change is loaded once it is steady, and neither a refusal nor a rollback is undone."""

from pathlib import Path

import pytest

from models.bundle.store import DEFAULT_MODEL
from models.common.errors import HalftoneError
from serving.lifecycle.watcher import Watcher
from tests.samples import edit_manifest
from tests.serving.lifecycle.stand_in_service import Factory, refused, service, version


@pytest.fixture
def watched(load: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the bundle of the stand-ins: a manifest and one file."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
    edit_manifest(folder, lambda manifest: manifest.update(files={"README.md": manifest["files"]["README.md"]}))
    (folder / "README.md").write_text("half of it")
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    return folder


def test_the_watcher_does_not_undo_a_rollback(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        watcher = Watcher(api.models, swaps, seconds=60)
        watcher.poll("first")
        swaps.load("first")
        swaps.rollback("first")
        for _ in range(3):
            watcher.poll("first")
        assert version(api) == "v1"


def test_a_copy_that_writes_the_manifest_first_is_loaded_once_it_is_complete(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        watcher = Watcher(api.models, swaps, seconds=60)
        load.error = HalftoneError("a file does not fit its hash")
        for _ in range(3):
            watcher.poll("first")
        load.error = None
        assert version(api) == "v1"
        (watched / "README.md").write_text("all of it")
        for _ in range(2):
            watcher.poll("first")
        assert version(api) == "v2"


def test_a_lack_of_memory_is_not_the_fault_of_the_bundle(load: Factory, watched: Path) -> None:
    with service(load) as (api, swaps):
        load.folder = watched
        load.error = RuntimeError("std::bad_alloc")
        assert (refused(lambda: swaps.load("first")).status, version(api)) == (503, "v1")
        watcher = Watcher(api.models, swaps, seconds=60)
        for _ in range(2):
            watcher.poll("first")
        load.error = None
        watcher.poll("first")
        assert version(api) == "v2"


def test_a_watched_bundle_is_loaded_once_it_has_changed_and_is_steady(
    load: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
    edit_manifest(folder, lambda manifest: manifest.update(files={}))
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    with service(load) as (api, swaps):
        watcher = Watcher(api.models, swaps, seconds=60)
        load.folder = folder

        def versions(polls: int) -> list[str]:
            seen = []
            for _ in range(polls):
                watcher.poll("first")
                seen.append(version(api))
            return seen

        assert versions(3) == ["v1", "v2", "v2"]
        edit_manifest(folder, lambda manifest: manifest.update(temperature=2.0))
        load.error = HalftoneError("it is damaged")
        assert versions(3) == ["v2", "v2", "v2"]
        load.error = None
        assert versions(2) == ["v2", "v2"]
        (folder / "manifest.json").write_text("{")
        assert versions(2) == ["v2", "v2"]
        (folder / "manifest.json").write_bytes((load.artifacts / DEFAULT_MODEL / "manifest.json").read_bytes())
        edit_manifest(folder, lambda manifest: manifest.update(files={}, temperature=3.0))
        assert versions(2) == ["v2", "v3"]
        swaps.rollback("first")
        assert versions(3) == ["v2", "v2", "v2"]


def test_a_bundle_that_becomes_a_link_to_elsewhere_is_not_loaded(
    load: Factory, watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "first").symlink_to(watched)
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "bundles"))
    with service(load) as (api, swaps):
        load.folder = watched
        watcher = Watcher(api.models, swaps, seconds=60)
        for _ in range(3):
            watcher.poll("first")
        assert version(api) == "v1"
    lines = [record.getMessage() for record in caplog.records if "symbolic link" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("first keeps serving what it has: ")
