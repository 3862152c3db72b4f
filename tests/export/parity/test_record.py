"""A parity record is valid only for the files, the library and the arithmetic that it names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from export.cuda.device import Gpu
from export.parity.record import (
    DamagedRecordError,
    ParityRecord,
    UnprovenError,
    check_runtime,
    current,
    proof,
    record_name,
    valid_record,
    verdict,
)
from export.runtimes.onnxruntime import OnnxRuntime
from export.variants import runtime_class
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import SymlinkError
from models.common.errors import HalftoneError
from tests.samples import small_bundle

GRAPH = "model.fp32.onnx"
VARIANT = "onnxruntime-fp32"
COMMAND = "`python -m export.parity --model tiny --variant onnxruntime-fp32`"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with an empty graph and a made-up record."""
    made = small_bundle(tmp_path / "tiny")
    made.write(GRAPH, b"", made_by="`make graph`", made_from=[WEIGHTS])
    write(made, record(made))
    return made


def record(bundle: Bundle) -> ParityRecord:
    files = bundle.manifest.files
    return ParityRecord(
        variant=VARIANT,
        verdict="PASSED",
        reasons=[],
        notes=[],
        version=bundle.manifest.version,
        weights_sha256=files[WEIGHTS].sha256,
        source=GRAPH,
        source_sha256=files[GRAPH].sha256,
        runtime={"name": "onnxruntime", "version": "1.2.3", "executed_as": "fp32 on CPU"},
        reference="torch-fp32 2.0.0",
        data={"description": "pictures", "labelled": False, "unreadable": []},
        gate={"min_agreement": 0.98},
        figures={"images": 320},
        host={"cpu": "x", "cores": 2},
        date="2026-01-01T00:00:00+00:00",
    )


def write(bundle: Bundle, changed: ParityRecord | bytes, variant: str = VARIANT) -> None:
    data = changed if isinstance(changed, bytes) else changed.to_json()
    bundle.write(record_name(variant), data, made_by=COMMAND, made_from=[WEIGHTS, GRAPH])


def test_a_record_reads_back(bundle: Bundle) -> None:
    assert proof(bundle, VARIANT) == current(bundle, VARIANT) == record(bundle)
    assert json.loads(bundle.read("parity/onnxruntime-fp32.json"))["schema"] == 2


def test_a_record_of_an_older_version_is_made_again(bundle: Bundle) -> None:
    older = json.loads(record(bundle).to_json()) | {"schema": 1}
    del older["notes"]
    bundle.write(record_name(VARIANT), json.dumps(older).encode(), made_by="an older version")

    with pytest.raises(UnprovenError, match=f"of an older version, which did not judge every output.*{COMMAND}"):
        proof(bundle, VARIANT)
    assert valid_record(bundle, VARIANT) is None


def test_no_record(bundle: Bundle) -> None:
    with pytest.raises(UnprovenError, match=r"tiny has no proof that openvino-fp32 answers .*--variant openvino-fp32`"):
        proof(bundle, "openvino-fp32")


def test_a_record_that_the_manifest_does_not_list_is_none(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    (bundle.folder / "parity").mkdir()
    (bundle.folder / record_name(VARIANT)).write_text("{}")

    with pytest.raises(UnprovenError, match="has no proof"):
        proof(bundle, VARIANT)


def test_a_failed_record_gives_its_reasons(bundle: Bundle) -> None:
    write(bundle, replace(record(bundle), verdict="FAILED", reasons=["too far off", "too few"]))

    assert current(bundle, VARIANT).verdict == "FAILED"
    with pytest.raises(UnprovenError) as caught:
        proof(bundle, VARIANT)
    assert "failed its parity gate (too far off; too few): serve another variant" in str(caught.value)
    assert COMMAND in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS, GRAPH])
def test_a_record_for_another_file(bundle: Bundle, name: str) -> None:
    bundle.write(name, b"changed since", made_by="a test")

    with pytest.raises(UnprovenError) as caught:
        proof(bundle, VARIANT)
    assert str(caught.value) == f"the proof of {VARIANT} is for other files than tiny has now: run {COMMAND}"


def test_a_record_of_another_variant_in_its_place(bundle: Bundle) -> None:
    write(bundle, record(bundle), variant="openvino-fp32")

    with pytest.raises(UnprovenError, match="for other files"):
        proof(bundle, "openvino-fp32")


def test_a_record_for_a_file_that_is_not_listed(bundle: Bundle) -> None:
    write(bundle, replace(record(bundle), source="model.fp16.onnx"))

    with pytest.raises(UnprovenError, match="for other files"):
        proof(bundle, VARIANT)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'"x"', b"{}", b'{"schema": 1}', b'{"schema": 2}', b'{"schema": 1, "x": 1}']
)
def test_what_is_no_record_is_one_error(bundle: Bundle, content: bytes) -> None:
    write(bundle, content)

    with pytest.raises(UnprovenError, match=r"onnxruntime-fp32\.json can't be used: not a parity record.*run `python"):
        proof(bundle, VARIANT)
    with pytest.raises(HalftoneError):
        ParityRecord.from_json(content)


def test_a_record_that_was_edited(bundle: Bundle) -> None:
    path = bundle.locate(record_name(VARIANT))
    path.write_text(path.read_text().replace('"images": 320', '"images": 999'))

    with pytest.raises(
        DamagedRecordError, match=r"onnxruntime-fp32\.json differs from .*python -m export --model tiny`"
    ):
        proof(bundle, VARIANT)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=r"onnxruntime-fp32\.json is missing"):
        proof(bundle, VARIANT)
    assert valid_record(bundle, VARIANT) is None
    path.symlink_to(bundle.folder / "manifest.json")
    with pytest.raises(SymlinkError):
        proof(bundle, VARIANT)


@pytest.mark.parametrize(("version", "executed_as"), [("1.2.4", "fp32 on CPU"), ("1.2.3", "bf16 on CPU")])
def test_another_library_or_arithmetic(bundle: Bundle, version: str, executed_as: str) -> None:
    proved = proof(bundle, VARIANT)

    check_runtime(proved, "1.2.3", "fp32 on CPU", "tiny")
    with pytest.raises(UnprovenError) as caught:
        check_runtime(proved, version, executed_as, "tiny")
    message = str(caught.value)
    assert "was proved with onnxruntime 1.2.3 (fp32 on CPU)" in message
    assert f"here it would run on {version} ({executed_as})" in message
    assert COMMAND in message


def test_the_record_says_everything(default: Bundle) -> None:
    record = proof(default, VARIANT)
    files = default.manifest.files

    assert record.version == default.manifest.version
    assert record.source_sha256 == files[GRAPH].sha256
    assert record.weights_sha256 == files["weights.safetensors"].sha256
    assert record.runtime == {
        "name": "onnxruntime",
        "version": runtime_class("onnxruntime").version(),
        "executed_as": "fp32 on CPU",
    }
    assert record.reference == f"torch-fp32 {runtime_class('torch').version()}"
    assert record.gate["min_agreement"] == 0.99
    assert record.host["cores"]
    assert files["parity/onnxruntime-fp32.json"].made_from == {
        GRAPH: files[GRAPH].sha256,
        "weights.safetensors": files["weights.safetensors"].sha256,
    }


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library version of the record."""
    monkeypatch.setattr(OnnxRuntime, "version", classmethod(lambda cls: "1.2.3"))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("reasons", "expected"), [([], "PASSED"), (["too far off"], "FAILED")])
def test_the_verdict_of_a_valid_record(bundle: Bundle, reasons: list[str], expected: str) -> None:
    changed = replace(record(bundle), verdict=expected, reasons=reasons)
    write(bundle, changed)

    assert valid_record(bundle, VARIANT) == changed
    assert verdict(bundle, VARIANT) == expected


@pytest.mark.usefixtures("installed")
def test_no_verdict_without_a_record_for_these_files(bundle: Bundle) -> None:
    assert valid_record(bundle, "openvino-fp32") is verdict(bundle, "openvino-fp32") is None

    bundle.write(GRAPH, b"changed since", made_by="a test")

    assert valid_record(bundle, VARIANT) is verdict(bundle, VARIANT) is None


def test_no_verdict_by_another_library_version(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntime, "version", classmethod(lambda cls: "1.2.4"))

    assert proof(bundle, VARIANT).verdict == "PASSED"
    assert valid_record(bundle, VARIANT) is verdict(bundle, VARIANT) is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "expected"), [("NVIDIA A", "PASSED"), ("NVIDIA B", None), (None, "PASSED")])
def test_the_gpu_of_the_record(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str | None, expected: str | None
) -> None:
    def gpu() -> Gpu:
        if name is None:
            raise HalftoneError("no GPU")
        return Gpu(name=name, compute_capability="8.9")

    monkeypatch.setattr("export.parity.record.gpu", gpu)
    runtime = {"name": "onnxruntime", "version": "1.2.3", "executed_as": "fp32 on NVIDIA A"}
    write(bundle, replace(record(bundle), runtime=runtime))

    assert verdict(bundle, VARIANT) == expected


def test_a_record_of_a_library_that_is_not_installed_is_valid(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(variant: str) -> None:
        raise HalftoneError(f"{variant} needs a package")

    monkeypatch.setattr("export.parity.record.runtime_of", missing)

    assert verdict(bundle, VARIANT) == "PASSED"


def test_a_record_of_the_graph_is_valid_and_no_verdict_on_the_variant(bundle: Bundle) -> None:
    changed = replace(record(bundle), verified_on="graph")
    write(bundle, changed)

    assert valid_record(bundle, VARIANT) == changed
    assert verdict(bundle, VARIANT) is None
