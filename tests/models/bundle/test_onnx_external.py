"""Test that the scanner finds external data everywhere in a graph, against files that the `onnx` package writes."""

import contextlib

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError


def outer(location: str) -> onnx.TensorProto:
    """Return a tensor whose content is in another file."""
    tensor = onnx.TensorProto(name=location, data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(location: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=outer(f"{location}.values"), indices=outer(f"{location}.indices"))


def node(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Anything", [], ["x"], **attributes)


def graph(*nodes: onnx.NodeProto, location: str = "") -> onnx.GraphProto:
    return helper.make_graph(nodes, "g", [], [], initializer=[outer(location)] if location else [])


def model(main: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(main)


def in_a_function() -> onnx.ModelProto:
    function = helper.make_function("d", "F", [], ["x"], [node(value=outer("function"))], [])
    function.attribute_proto.append(helper.make_attribute("default", outer("default")))
    made = model(graph())
    made.functions.append(function)
    return made


def in_training() -> onnx.ModelProto:
    made = model(graph())
    made.training_info.add(initialization=graph(location="init"), algorithm=graph(location="step"))
    return made


def in_a_sparse_initializer() -> onnx.ModelProto:
    made = model(graph())
    made.graph.sparse_initializer.append(sparse("s"))
    return made


PLACES = {
    "nowhere": (model(graph(node(alpha=1.0, name="n"))), []),
    "initializer": (model(graph(location="w.bin")), ["w.bin"]),
    "attribute": (model(graph(node(value=outer("../a")))), ["../a"]),
    "attribute list": (model(graph(node(values=[outer("a"), outer("b"), outer("a")]))), ["a", "b"]),
    "branch of a branch": (model(graph(node(then=graph(node(then=graph(location="deep")))))), ["deep"]),
    "list of graphs": (model(graph(node(bodies=[graph(location="1"), graph(location="2")]))), ["1", "2"]),
    "sparse initializer": (in_a_sparse_initializer(), ["s.values", "s.indices"]),
    "sparse attribute": (model(graph(node(value=sparse("s")))), ["s.values", "s.indices"]),
    "sparse attribute list": (model(graph(node(value=[sparse("s")]))), ["s.values", "s.indices"]),
    "function": (in_a_function(), ["function", "default"]),
    "training": (in_training(), ["init", "step"]),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_searched(place: str) -> None:
    made, expected = PLACES[place]

    assert external_locations(made.SerializeToString()) == expected


def test_the_places_are_all_that_onnx_has() -> None:
    """Fail if a later version of ONNX has a new field that can contain a tensor."""
    known = {
        "ModelProto": {"graph", "training_info", "functions"},
        "TrainingInfoProto": {"initialization", "algorithm"},
        "FunctionProto": {"node", "attribute_proto"},
        "GraphProto": {"node", "initializer", "sparse_initializer"},
        "NodeProto": {"attribute"},
        "AttributeProto": {"t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors"},
        "SparseTensorProto": {"values", "indices"},
    }
    holders = {*known, "TensorProto"}

    found = {
        message: {
            field.name
            for field in getattr(onnx, message).DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in holders
        }
        for message in known
    }

    assert found == known


ALL = b"".join(made.SerializeToString() for made, _ in PLACES.values())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_parsed_or_a_halftone_error(data: st.DataObject) -> None:
    damaged = bytearray(ALL)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    # Any other exception would fail the test.
    with contextlib.suppress(HalftoneError):
        external_locations(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@pytest.mark.parametrize("data", [b"\x07", b"\x3a\xff", b"\x3a" + b"\xff" * 11, b"not a graph"])
def test_bytes_that_are_not_a_graph_are_a_halftone_error(data: bytes) -> None:
    with pytest.raises(HalftoneError, match=r"not an ONNX model.*python -m export\.onnx"):
        external_locations(data)


def test_deep_nesting_is_a_halftone_error() -> None:
    data = b""
    for _ in range(3000):
        for field in (6, 5, 1):
            length, head = len(data), bytes([field << 3 | 2])
            while length > 0x7F:
                head += bytes([length & 0x7F | 0x80])
                length >>= 7
            data = head + bytes([length]) + data
    size = len(data)
    prefix = bytes([7 << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])

    with pytest.raises(HalftoneError, match="not an ONNX model"):
        external_locations(prefix + data)
