"""Any bytes of an inference request are parsed within their bounds or refused as the client's mistake."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.v2.request import InferenceRequest, parse
from serving.api.v2.tensors import Tensor, elements, images, pixels
from serving.http.errors import RequestError
from serving.http.json_body import MAX_VALUES

SHAPE = (4, 4, 3)
ONE = 4 * 4 * 3
MOST = 5

numbers = st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 2, ONE, 2 * ONE, 2**31, 2**63])
scalars = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=5) | st.just("\ud800")
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def or_anything(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for mostly valid values and sometimes others."""
    return st.one_of(strategy, strategy, strategy, anything)


parameters = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": or_anything(numbers),
        "binary_data": or_anything(st.booleans()),
        "classification": or_anything(numbers),
        "shared_memory_region": st.text(max_size=3),
    },
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": or_anything(st.sampled_from(["pixels", "image"])),
        "datatype": or_anything(st.sampled_from(["UINT8", "BYTES", "FP32"])),
        "shape": or_anything(st.lists(numbers | st.sampled_from([1, 2, 3, 4]), max_size=5)),
        "parameters": or_anything(parameters),
        "data": anything,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": or_anything(st.lists(or_anything(tensors), max_size=3))},
    optional={
        "id": or_anything(st.text(max_size=3)),
        "outputs": or_anything(st.lists(or_anything(tensors), max_size=3)),
        "parameters": or_anything(st.fixed_dictionaries({}, optional={"timeout": or_anything(numbers)})),
    },
)


def read(body: bytes, header_length: str | None) -> InferenceRequest | None:
    """Parse a request; return None if it was refused as the client's mistake."""
    try:
        request = parse(body, header_length)
        for tensor in request.inputs:
            pixels(tensor, SHAPE, MOST) if tensor.name == "pixels" else images(tensor, MOST)
    except RequestError as error:
        refused = error
    else:
        return request
    assert 400 <= refused.status < 500
    assert refused.message.encode()
    return None


@no_deadline
@given(values=or_anything(requests), tail=st.binary(max_size=2 * ONE), wrong=st.integers(-3, 3) | st.just(0))
def test_any_request_is_read_or_refused(values: Any, tail: bytes, wrong: int) -> None:
    head = json.dumps(values).encode()

    request = read(head + tail, str(len(head) + wrong))

    if request is not None:
        binary = [len(tensor.data) for tensor in request.inputs if isinstance(tensor.data, memoryview)]
        assert sum(binary) == len(tail)


@no_deadline
@given(body=st.binary(max_size=200), header_length=st.none() | st.text(max_size=5) | st.integers().map(str))
def test_any_bytes_are_read_or_refused(body: bytes, header_length: str | None) -> None:
    read(body, header_length)


@no_deadline
@given(data=st.binary(max_size=60), count=st.integers(0, 8) | st.integers(0, 2**64))
def test_elements_are_within_the_data_and_all_of_it(data: bytes, count: int) -> None:
    try:
        found = elements(memoryview(data), count)
    except RequestError:
        return

    assert b"".join(struct.pack("<I", len(each)) + each for each in found) == data
    assert len(found) == count


@no_deadline
@given(files=st.lists(st.binary(max_size=30), min_size=1, max_size=MOST))
def test_written_files_are_read_back(files: list[bytes]) -> None:
    data = b"".join(struct.pack("<I", len(each)) + each for each in files)

    assert images(Tensor("image", "BYTES", (len(files), 1), memoryview(data)), MOST) == files


@no_deadline
@given(values=st.lists(st.integers(0, 255), min_size=2 * ONE, max_size=2 * ONE))
def test_flat_nested_and_binary_pixels_are_the_same(values: list[int]) -> None:
    shape = (2, *SHAPE)
    array = np.array(values, np.uint8).reshape(shape)

    for data in (values, array.tolist(), memoryview(array.tobytes())):
        np.testing.assert_array_equal(pixels(Tensor("pixels", "UINT8", shape, data), SHAPE, MOST), array)


@pytest.mark.parametrize(
    "data",
    [
        [256] * ONE,
        [-1] * ONE,
        [1.5] * ONE,
        ["1"] * ONE,
        [None] * ONE,
        [[1]] * ONE,
        [1] * (ONE - 1),
        [1] * (ONE + 1),
        [],
        np.zeros((1, 3, 4, 4), int).tolist(),
        [[[[1, 2, 3]] * 4] * 3 + [[[1, 2, 3]] * 3 + [[1, 2]]]],
        memoryview(bytes(ONE - 1)),
        memoryview(b""),
    ],
    # The text of a memoryview holds its address, which differs in each process.
    ids=lambda data: f"{len(data)} bytes" if isinstance(data, memoryview) else str(data)[:20],
)
def test_pixels_that_do_not_fit(data: Any) -> None:
    with pytest.raises(RequestError) as caught:
        pixels(Tensor("pixels", "UINT8", (1, *SHAPE), data), SHAPE, MOST)

    assert caught.value.status == 422


@pytest.mark.parametrize("shape", [(), (1,), (0, *SHAPE), (MOST + 1, *SHAPE), (1, 3, 4, 4), (2**62, *SHAPE)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        pixels(Tensor("pixels", "UINT8", shape, memoryview(b"")), SHAPE, MOST)

    assert caught.value.status == 422


def test_json_with_too_many_values_is_refused_unread() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b'{"inputs": [' + b"0," * MAX_VALUES + b"0]}", None)

    assert (caught.value.status, "binary" in caught.value.message) == (413, True)


def test_json_nested_too_deep_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b'{"inputs": ' + b"[" * 100_000, None)

    assert caught.value.status == 400


def test_null_equals_missing() -> None:
    bare = {"inputs": [{"name": "pixels", "shape": [1], "datatype": "UINT8", "data": [7]}]}
    (member,) = bare["inputs"]
    full = {"inputs": [member | {"parameters": None}], "id": None, "parameters": None, "outputs": None}

    assert parse(json.dumps(full).encode(), None) == parse(json.dumps(bare).encode(), None)
