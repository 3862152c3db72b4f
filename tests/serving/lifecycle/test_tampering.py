"""A bundle that was tampered with is refused before any file of it is deserialised or a file outside it is opened."""

import importlib
import json
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import export.runtimes
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from serving.decoding.pool import Decoders
from serving.lifecycle.loading import load_model
from serving.lifecycle.served_model import ServedModel
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from tests.samples import edit_manifest, small_bundle
from tests.serving.lifecycle.tampering import CARD, GRAPH, RECORD, Tampering, bomb, outside, proved
from tests.serving.lifecycle.tampering_cases import TAMPERINGS

RUNTIME = '''
"""A runtime for any graph that counts how many it has opened."""
import numpy as np
from export.runtime import Runtime

class Double(Runtime):
    name = "double"
    precisions = ("fp32", "fp16")
    opened = 0

    @classmethod
    def source(cls, precision):
        return f"model.{precision}.onnx"

    @classmethod
    def version(cls):
        return "1"

    executed_as = "fp32 on CPU"

    def _open(self, source, bundle, threads, streams):
        Double.opened += 1
        self.given = source

    def _infer(self, pixels):
        return np.zeros((len(pixels), 2), np.float32)

RUNTIME = Double
'''
SETTINGS = Settings(model="tiny", batch=1, threads=1)
WATCHED: list[tuple[str, tuple[Any, ...]]] = []
_EVENTS = {"open", "pickle.find_class", "os.system", "subprocess.Popen"}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS:
        WATCHED.append((event, arguments))


@pytest.fixture(scope="module", autouse=True)
def audit() -> None:
    """Record the files that the interpreter opens and the programs that it runs; a hook can't be removed."""
    sys.addaudithook(_hook)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Add a runtime that counts the graphs that it opens."""
    (tmp_path / "runtimes").mkdir()
    (tmp_path / "runtimes" / "double.py").write_text(RUNTIME)
    monkeypatch.setattr(export.runtimes, "__path__", [*export.runtimes.__path__, str(tmp_path / "runtimes")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield importlib.import_module("export.runtimes.double").RUNTIME
    del sys.modules["export.runtimes.double"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a proven bundle of a few bytes."""
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "artifacts"))
    bundle = small_bundle(tmp_path / "artifacts" / "tiny", source="a test")
    bundle.write(CARD, b"a model", made_by="a test")
    bundle.write(GRAPH, graph(), made_by="a test", made_from=[WEIGHTS])
    files = bundle.manifest.files
    proof = {
        "schema": 2,
        "variant": "double-fp32",
        "verdict": "PASSED",
        "reasons": [],
        "notes": [],
        "version": bundle.manifest.version,
        "weights_sha256": files[WEIGHTS].sha256,
        "source": GRAPH,
        "source_sha256": files[GRAPH].sha256,
        "runtime": {"name": "double", "version": "1", "executed_as": "fp32 on CPU"},
        "reference": "torch-fp32",
        "data": {},
        "gate": {},
        "figures": {"images": 320},
        "host": {},
        "date": "2026-11-24",
    }
    bundle.write(RECORD, json.dumps(proof).encode(), made_by="a test", made_from=[GRAPH])
    return bundle.folder


def graph(value: float = 1) -> bytes:
    weight = numpy_helper.from_array(np.full(4, value, np.float32), "weight")
    node = helper.make_node("Identity", ["weight"], ["logits"])
    out = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [4])
    return bytes(helper.make_model(helper.make_graph([node], "g", [], [out], [weight])).SerializeToString())


def load(replaces: ServedModel | None = None) -> ServedModel:
    return load_model("tiny", SETTINGS, Recorder(), Decoders(0), replaces=replaces)


def test_the_bundle_is_served_as_it_is(folder: Path, double: Any) -> None:
    model = load()
    again = load(model)

    assert (double.opened, model.variant, again.version) == (2, "double-fp32", Bundle.open(folder).manifest.version)
    model.close()
    again.close()


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_tampering_is_refused_before_anything_is_deserialised(folder: Path, double: Any, tamper: Tampering) -> None:
    model = load()
    secret = outside(folder)
    tamper(folder)
    WATCHED.clear()

    try:
        with pytest.raises(HalftoneError) as refused:
            load(model)
    finally:
        model.close()

    assert double.opened == 1
    assert str(refused.value).strip()
    opened = {str(arguments[0]) for event, arguments in WATCHED if event == "open"}
    assert not opened & {str(secret), str(folder.parent / "moved"), "/etc/hostname", "/dev/zero"}
    assert {event for event, _ in WATCHED} <= {"open"}


def test_there_are_enough_kinds_of_tampering() -> None:
    assert len(TAMPERINGS) >= 40


def test_files_that_are_not_listed_are_never_opened(folder: Path, double: Any) -> None:
    model = load()
    extra = ["weights.pt", "model.fp32.onnx.data", "parity/double-fp16.json", "sitecustomize.py", "model.fp16.onnx"]
    for name in extra:
        (folder / name).write_bytes(bomb())
    WATCHED.clear()

    again = load(model)

    opened = {str(arguments[0]) for event, arguments in WATCHED if event == "open"}
    assert not opened & {str(folder / name) for name in extra}
    assert {event for event, _ in WATCHED} <= {"open"}
    model.close()
    again.close()


def test_a_folder_that_is_overwritten_meanwhile_gives_no_mixed_model(folder: Path, double: Any, tmp_path: Path) -> None:
    """Files are overwritten one by one, as by a copy: in any order, a load must never mix two bundles."""
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    proved(folder, graph(2))
    edit_manifest(folder, lambda manifest: manifest.update(temperature=2.0))
    new = tmp_path / "new"
    shutil.copytree(folder, new)
    model, stop = load(), threading.Event()

    def overwrite() -> None:
        order = random.Random(0)
        names = [GRAPH, RECORD, WEIGHTS, "manifest.json"]
        while not stop.is_set():
            for source in (old, new):
                for name in order.sample(names, len(names)):
                    (folder / name).write_bytes((source / name).read_bytes())
                    time.sleep(0.0005)
                time.sleep(0.005)

    writer = threading.Thread(target=overwrite)
    writer.start()
    loaded: Counter[tuple[float, bytes]] = Counter()
    refused = 0
    try:
        for _ in range(5000):
            try:
                other = load(model)
            except HalftoneError:
                refused += 1
                continue
            loaded[other.manifest.temperature, other.runtime.given] += 1  # type: ignore[attr-defined]
            other.close()
            if min(len(loaded), *loaded.values(), refused) > 1:
                break
    finally:
        stop.set()
        writer.join()
        model.close()

    assert set(loaded) == {(1.0, graph(1)), (2.0, graph(2))}
    assert refused
