"""The compiled form that OpenVINO imports: for every stream, and from the bundle's folder at the next start."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from export.runtime import Runtime
from export.variants import load
from models.bundle.bundle import Bundle
from tests.export.conftest import Exported

FILE = "compiled-openvino-fp32.bin"
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 96, 96, 3), np.uint8)


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Bundle:
    source = exported("mobilenetv3_small", 96)
    return Bundle.open(shutil.copytree(source.folder, tmp_path / source.name))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with each graph that is compiled."""
    made: list[object] = []
    compile_model = openvino.Core.compile_model

    def counted(core: openvino.Core, model: object, *arguments: object, **options: object) -> object:
        made.append(model)
        return compile_model(core, model, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return made


def opened(bundle: Bundle, *, threads: int = 2, streams: int = 2) -> Runtime:
    return load(bundle, "openvino-fp32", threads=threads, streams=streams)


def test_two_streams_are_compiled_once_and_answer_as_one_does(bundle: Bundle, compilations: list[object]) -> None:
    runtime = opened(bundle)

    assert len(compilations) == 1
    np.testing.assert_array_equal(runtime.run(PIXELS), opened(bundle, threads=1, streams=1).run(PIXELS))


@pytest.mark.parametrize("streams", [1, 2])
def test_the_next_start_compiles_nothing(bundle: Bundle, compilations: list[object], streams: int) -> None:
    first = opened(bundle, threads=streams, streams=streams)
    first.keep_compiled()
    logits = first.run(PIXELS[:1])
    compilations.clear()

    second = opened(bundle, threads=streams, streams=streams)

    np.testing.assert_array_equal(second.run(PIXELS[:1]), logits)
    assert not compilations


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def without_its_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[4096:])


def no_number_of_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"bytes": ', b'"bytes":-', 1))


@pytest.mark.parametrize("damage", [cut, longer, changed, without_its_header, no_number_of_bytes, Path.unlink])
def test_a_damaged_file_is_made_again(
    bundle: Bundle, compilations: list[object], damage: Callable[[Path], object]
) -> None:
    first = opened(bundle)
    first.keep_compiled()
    damage(bundle.folder / FILE)
    compilations.clear()

    second = opened(bundle)
    second.keep_compiled()

    assert len(compilations) == 1
    # The file has the form for single images.
    np.testing.assert_array_equal(second.run(PIXELS[:1]), first.run(PIXELS[:1]))
    # It is whole again. Its length may differ: the names of layers have numbers that count on in a process.
    opened(bundle)
    assert len(compilations) == 1


def test_it_counts_for_its_options_and_library_only(
    bundle: Bundle, compilations: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(bundle).keep_compiled()
    compilations.clear()

    opened(bundle, streams=1)
    monkeypatch.setattr(openvino, "__version__", "2099.1.0-1")
    opened(bundle)

    assert len(compilations) == 2


def test_what_openvino_can_not_import_is_compiled(
    bundle: Bundle, compilations: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(bundle).keep_compiled()
    expected = opened(bundle).run(PIXELS)
    compilations.clear()
    import_model, fails = openvino.Core.import_model, iter([False, True])

    def fails_once(*arguments: object, **options: object) -> object:
        if next(fails, False):
            raise RuntimeError("made for another processor")
        return import_model(*arguments, **options)  # type: ignore[arg-type]

    # At the second stream: the first one has its form then.
    monkeypatch.setattr(openvino.Core, "import_model", fails_once)
    runtime = opened(bundle)

    assert len(compilations) == 1
    np.testing.assert_array_equal(runtime.run(PIXELS), expected)


def test_sizes_come_and_go_while_threads_run(bundle: Bundle) -> None:
    runtime = opened(bundle)
    expected = {size: runtime.run(PIXELS[:size]) for size in (1, 2)}
    failures: list[int] = []
    done = threading.Event()

    def work(number: int) -> None:
        size = 1 + number % 2
        while not done.is_set():
            size = 3 - size
            if not np.allclose(runtime.run(PIXELS[:size]), expected[size], atol=1e-4):
                failures.append(size)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for kept in ((1,), (1, 2), (1,)):
        runtime.keep(kept)
    done.set()
    for each in threads:
        each.join()

    assert failures == []
