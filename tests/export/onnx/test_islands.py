"""Search for the nodes that need FP32, on graphs of a few nodes."""

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.onnx.fp16.convert import emulate_fp16, to_fp16
from export.onnx.fp16.islands import Search, proposals, smallest
from export.onnx.fp16.ranges import beyond_fp16, infer, magnitudes
from export.onnx.metadata import layers, normalisation, squeeze_excite

SIZE = 8


def graph(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """The contract's graph: `planes` are the pixels on the scale 0..1, `logits` come from the nodes."""
    first = [
        helper.make_node("Cast", ["pixels"], ["float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["channels"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["channels", "scale"], ["planes"], name="scaled"),
    ]
    arrays = {"scale": np.array(1 / 255, np.float32)} | weights
    model = helper.make_model(
        helper.make_graph(
            [*first, *nodes],
            "tiny",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"{operator.lower()} {output}", **attributes)


def kernel(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def overflowing() -> onnx.ModelProto:
    """Multiplies by 1e6 and divides again, without a weight that FP16 could not hold."""
    return graph(
        node("Conv", "planes first", "a"),
        node("Relu", "a", "b"),
        node("Mul", "b thousand", "c"),
        node("Mul", "c thousand", "large"),
        node("Div", "large thousand", "d"),
        node("Div", "d thousand", "e"),
        node("Conv", "e second", "f"),
        node("ReduceMean", "f axes", "g", keepdims=0),
        node("Gemm", "g head", "logits"),
        first=kernel(4, 3, 1, 1),
        second=kernel(4, 4, 1, 1, seed=1),
        head=kernel(4, 4, seed=2),
        thousand=np.array(1000, np.float32),
        axes=np.array([2, 3]),
    )


@pytest.fixture
def cancelling() -> onnx.ModelProto:
    """Adds and subtracts 20,000: within FP16's range, and beyond its eleven digits."""
    return graph(
        node("Conv", "planes first", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b second", "c"),
        node("Add", "c offset", "d"),
        node("Sub", "d offset", "e"),
        node("Conv", "e third", "f"),
        node("ReduceMean", "f axes", "g", keepdims=0),
        node("Gemm", "g head", "logits"),
        first=kernel(4, 3, 1, 1),
        second=kernel(4, 4, 1, 1, seed=1),
        third=kernel(4, 4, 1, 1, seed=3),
        head=kernel(4, 4, seed=2),
        offset=np.array(15000, np.float32),
        axes=np.array([2, 3]),
    )


def search(model: onnx.ModelProto, pixels: np.ndarray) -> Search:
    return Search(graph=model, pixels=pixels, trained=True, temperature=1.0, report=lambda _: None)


def test_the_largest_value_of_every_tensor(overflowing: onnx.ModelProto, pixels: np.ndarray) -> None:
    largest = magnitudes(overflowing, pixels)

    assert largest["float"] == 255
    assert largest["planes"] == 1
    assert largest["large"] == pytest.approx(1e6 * largest["b"], rel=1e-5)
    assert largest["first"] == pytest.approx(np.abs(kernel(4, 3, 1, 1)).max())
    assert beyond_fp16(overflowing, largest) == {"mul large", "div d"}


def test_a_value_stays_fp32_from_one_kept_node_to_the_next(overflowing: onnx.ModelProto, pixels: np.ndarray) -> None:
    (expected,) = infer(overflowing, pixels, ["logits"])
    kept = {"mul large", "div d"} | normalisation(overflowing)

    (plain,) = infer(emulate_fp16(to_fp16(overflowing, normalisation(overflowing))), pixels, ["logits"])
    half = to_fp16(overflowing, kept)
    (repaired,) = infer(emulate_fp16(half), pixels, ["logits"])

    assert not np.isfinite(plain).any()
    np.testing.assert_allclose(repaired, expected, atol=1e-2)
    # Into the network, into the island, out of it, and out of the graph.
    assert [each.output[0] for each in half.graph.node if each.name.startswith("cast ")] == [
        "planes.fp16",
        "c.fp32",
        "d.fp16",
        "logits",
    ]
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    # One weight in two types, as it is needed inside and outside.
    assert (types["thousand"], types["thousand.fp16"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    assert "first" not in types


def test_a_graph_is_not_changed_by_halving_it(overflowing: onnx.ModelProto) -> None:
    before = overflowing.SerializeToString(deterministic=True)

    to_fp16(overflowing, set())

    assert overflowing.SerializeToString(deterministic=True) == before


def test_a_weight_too_small_for_fp16_is_found_where_it_multiplies(pixels: np.ndarray) -> None:
    model = graph(
        node("Conv", "planes tiny", "a"),
        node("Add", "a tiny_offset", "b"),
        node("ReduceMean", "b axes", "c", keepdims=0),
        node("Gemm", "c head", "logits"),
        tiny=kernel(4, 3, 1, 1) * np.float32(1e-7),
        tiny_offset=np.array(1e-9, np.float32),
        head=kernel(4, 4),
        axes=np.array([2, 3]),
    )

    assert beyond_fp16(model, magnitudes(model, pixels)) == {"conv a"}


def test_what_is_out_of_range_is_proposed_first(overflowing: onnx.ModelProto, pixels: np.ndarray) -> None:
    trials = search(overflowing, pixels)

    kept, words = next(proposals(trials))

    assert (kept, words) == ({"mul large", "div d"}, "what FP16's range can't hold")
    assert [attempt.verdict for attempt in trials.attempts] == ["PASSED"]


def test_what_ranges_do_not_explain_is_found_by_bisection(cancelling: onnx.ModelProto, pixels: np.ndarray) -> None:
    trials = search(cancelling, pixels)

    kept, words = next(proposals(trials))

    # The one layer of four whose sum loses its digits.
    assert kept == {"conv c", "add d", "sub e"}
    assert words == "3 nodes of the layers found by bisection"
    assert [attempt.verdict for attempt in trials.attempts].count("FAILED") >= 2
    assert all(attempt.reasons for attempt in trials.attempts if attempt.verdict == "FAILED")


def test_layers_start_at_kernels(cancelling: onnx.ModelProto) -> None:
    assert [layer[0] for layer in layers(cancelling)] == ["conv a", "conv c", "conv f", "gemm logits"]
    assert normalisation(cancelling) == {"cast", "transpose", "scaled"}


def test_squeeze_excite_is_distinguished_from_the_last_pooling() -> None:
    model = graph(
        node("GlobalAveragePool", "planes", "squeezed"),
        node("Conv", "squeezed first", "a"),
        node("Sigmoid", "a", "gate"),
        node("Mul", "planes gate", "b"),
        node("ReduceMean", "b axes", "c", keepdims=0),
        node("Gemm", "c head", "logits"),
        first=kernel(3, 3, 1, 1),
        head=kernel(3, 4),
        axes=np.array([2, 3]),
    )

    assert squeeze_excite(model) == {"globalaveragepool squeezed", "conv a", "sigmoid gate", "mul b"}


@given(st.integers(1, 40), st.data())
def test_bisection_finds_exactly_what_is_needed(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=3))

    assert set(smallest(range(count), lambda part: needed <= set(part), trials=10_000)) == needed


def test_bisection_keeps_to_its_trials() -> None:
    sizes: list[int] = []

    def enough(part: list[int]) -> bool:
        sizes.append(len(part))
        return {3, 60} <= set(part)

    kept = smallest(range(64), enough, trials=5)

    assert len(sizes) == 5
    assert {3, 60} <= set(kept)
