"""Test that the parser accepts plain JSON and rejects everything that two parsers could read differently."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.common.errors import HalftoneError
from models.common.strict_json import json_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(values=st.dictionaries(st.text(), VALUES, max_size=4))
def test_plain_json_reads_back(values: dict[str, Any]) -> None:
    assert json_object(json.dumps(values).encode()) == values


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' appears twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "too large"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "decode"),
        (b'{"a": "\xff"}', "decode"),
        (b'{"a": 1} {}', "Extra data"),
        (b"[1]", "not a JSON object"),
        (b"", "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_anything_else_is_rejected(data: bytes, words: str) -> None:
    with pytest.raises(HalftoneError, match=words):
        json_object(data)


def test_non_finite_numbers_are_optional() -> None:
    assert json_object(b'{"a": Infinity}', finite=False) == {"a": float("inf")}
