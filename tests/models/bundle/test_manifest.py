"""Test that `manifest.json` reads back exactly, rejects invalid values, and has a meaningful version."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle.manifest import FileRecord, Manifest
from models.common.errors import HalftoneError
from models.spec import InputSpec
from tests.samples import manifest

RECORD = FileRecord(sha256="0" * 64, size=7, made_by="`make it`", made_from={"weights.safetensors": "1" * 64})
FULL = manifest(label_ids=("n1", "n2"), training={"epochs": 3}, temperature=1.25).with_file("a/b.onnx", RECORD)
VALUES: dict[str, Any] = json.loads(FULL.to_json())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -1, 0, 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    *((key,) for key in VALUES),
    *(("input", key) for key in VALUES["input"]),
    ("files", "a/b.onnx"),
    *(("files", "a/b.onnx", key) for key in VALUES["files"]["a/b.onnx"]),
]


def changed(place: tuple[str, ...], value: object) -> bytes:
    """Return the full manifest with another value in one place."""
    values = copy.deepcopy(VALUES)
    target = values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return json.dumps(values).encode()


def test_it_reads_back() -> None:
    assert Manifest.from_json(FULL.to_json()) == FULL


def test_non_finite_metrics_become_null() -> None:
    history = [{"loss": float("nan")}, {"loss": float("inf")}, {"loss": 1.5}]

    again = Manifest.from_json(manifest(training={"history": history}).to_json())

    assert again.training == {"history": [{"loss": None}, {"loss": None}, {"loss": 1.5}]}


def test_names_stay_readable() -> None:
    labels = ("Löwe", "猫", "🐕")

    data = manifest(labels=labels).to_json()

    assert "Löwe" in data.decode()
    assert Manifest.from_json(data).labels == labels


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_is_accepted_or_a_halftone_error(place: tuple[str, ...], value: object) -> None:
    try:
        again = Manifest.from_json(changed(place, value))
    except HalftoneError:
        return
    assert Manifest.from_json(again.to_json()).version == again.version
    assert isinstance(again.trained, bool)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_missing_field_is_named(place: tuple[str, ...]) -> None:
    optional = {"schema", "training", "temperature", "interpolation", "crop_fraction", "made_from", "a/b.onnx"}
    values = copy.deepcopy(VALUES)
    target = values
    for key in place[:-1]:
        target = target[key]
    del target[place[-1]]

    if place[-1] in optional - {"schema"}:
        assert Manifest.from_json(json.dumps(values).encode()).name == FULL.name
    else:
        with pytest.raises(HalftoneError, match=place[-1]):
            Manifest.from_json(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("schema",), "1"),
        (("name",), None),
        (("architecture",), 5),
        (("source",), ["x"]),
        (("license",), {}),
        (("trained",), "false"),
        (("trained",), 1),
        (("training",), []),
        (("labels",), "ab"),
        (("labels",), {"a": 1, "b": 2}),
        (("labels",), ["a", 5]),
        (("labels",), ["a", ""]),
        (("label_ids",), ["n1"]),
        (("label_ids",), ["n1", "n1"]),
        (("temperature",), 0),
        (("temperature",), 10**400),
        (("temperature",), 5e-324),
        (("labels", 0), "\ud800"),
        (("source",), "\udfff"),
        (("input", "crop_fraction"), 1e-300),
        (("files", "a/b.onnx", "made_by"), "`one`\nERROR: two"),
        (("temperature",), "1"),
        (("temperature",), float("nan")),
        (("temperature",), float("inf")),
        (("input", "size"), 0),
        (("input", "size"), 224.0),
        (("input", "size"), 10**9),
        (("input", "interpolation"), "nearest"),
        (("input", "crop_fraction"), 0),
        (("input", "crop_fraction"), 1.01),
        (("input", "crop_fraction"), float("nan")),
        (("input", "mean"), [0.5, 0.5]),
        (("input", "mean"), [10**400] * 3),
        (("input", "std"), [0.5, 0.5, float("inf")]),
        (("input", "std"), [0.5, 0.5, -0.5]),
        (("input", "surprise"), 1),
        (("files", "a/b.onnx"), "0" * 64),
        (("files", "a/b.onnx", "sha256"), "0" * 63),
        (("files", "a/b.onnx", "sha256"), "G" * 64),
        (("files", "a/b.onnx", "size"), 7.5),
        (("files", "a/b.onnx", "made_by"), None),
        (("files", "a/b.onnx", "made_from"), ["weights.safetensors"]),
        (("files", "a/b.onnx", "made_from"), {"weights.safetensors": "latest"}),
    ],
)
def test_invalid_values_are_rejected(place: tuple[str, ...], value: object) -> None:
    with pytest.raises(HalftoneError):
        Manifest.from_json(changed(place, value))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b"[1]", b'"text"', b"[" * 99_999, b'{"a":' * 99_999])
def test_data_that_is_not_a_json_object_is_a_halftone_error(data: bytes) -> None:
    with pytest.raises(HalftoneError, match=r"not a JSON object|not JSON"):
        Manifest.from_json(data)


WEIGHTED = manifest().with_file("weights.safetensors", RECORD)


@pytest.mark.parametrize(
    "other",
    [
        manifest(),
        manifest().with_file("weights.safetensors", FileRecord(sha256="2" * 64, size=7, made_by="x")),
        manifest(labels=("dog", "cat")).with_file("weights.safetensors", RECORD),
        manifest(architecture="resnet34").with_file("weights.safetensors", RECORD),
        manifest(temperature=1.1).with_file("weights.safetensors", RECORD),
        manifest(input=InputSpec(size=33)).with_file("weights.safetensors", RECORD),
        manifest(input=InputSpec(size=32, crop_fraction=1.0)).with_file("weights.safetensors", RECORD),
        manifest(input=InputSpec(size=32, mean=(0.5, 0.5, 0.5))).with_file("weights.safetensors", RECORD),
    ],
)
def test_the_version_changes_with_everything_that_changes_a_prediction(other: Manifest) -> None:
    assert other.version != WEIGHTED.version


@pytest.mark.parametrize(
    "same",
    [
        manifest(name="other").with_file("weights.safetensors", RECORD),
        manifest(source="elsewhere", license="mit").with_file("weights.safetensors", RECORD),
        WEIGHTED.with_file("model.fp32.onnx", RECORD),
    ],
)
def test_the_version_does_not_depend_on_anything_else(same: Manifest) -> None:
    assert same.version == WEIGHTED.version
    assert len(same.version) == 12
    assert int(same.version, 16) >= 0
