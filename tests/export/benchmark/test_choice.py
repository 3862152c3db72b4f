"""Choice of the variant that serves, from recorded speeds and proofs of several processors."""

from dataclasses import replace
from typing import Any

import pytest

from export.benchmark.choice import best_first, loses
from export.parity.gate import Gate
from export.parity.record import ParityRecord

# images/s of EfficientNet-Lite0 on two cores, 2026-11.
VNNI = {
    "onnxruntime-fp32": 174,
    "onnxruntime-int8": 300,
    "openvino-bf16": 380,
    "openvino-fp32": 240,
    "openvino-int8": 475,
}
AVX2 = {"onnxruntime-fp32": 120, "onnxruntime-int8": 105, "openvino-fp32": 150, "openvino-int8": 140}


def record(variant: str, **figures: Any) -> ParityRecord:
    gate = Gate.for_precision(variant.rpartition("-")[2])
    exact = {"decided_images": 236, "decided_agreement": {"value": 1.0}}
    runtime = {"name": "a", "version": "1", "executed_as": "x on CPU"}
    texts = dict.fromkeys(("version", "weights_sha256", "source", "source_sha256", "reference", "date"), "")
    return ParityRecord(
        variant=variant, verdict="PASSED", reasons=[], notes=[], runtime=runtime, data={}, gate=vars(gate), host={},
        figures=exact | figures, **texts,
    )  # fmt: skip


def labelled(reference: float, variant: float, p: float) -> dict[str, Any]:
    return {"accuracy": {"reference": {"value": reference}, "variant": {"value": variant}, "mcnemar_p": p}}


@pytest.mark.parametrize(("rates", "chosen"), [(VNNI, "openvino-int8"), (AVX2, "openvino-fp32")])
def test_the_fastest_on_each_kind_of_processor(rates: dict[str, float], chosen: str) -> None:
    order = best_first(rates, {variant: record(variant) for variant in rates})

    assert order[0] == chosen
    assert order == sorted(rates, key=lambda variant: -rates[variant])


@pytest.mark.parametrize(
    ("figures", "lossy"),
    [
        ({}, False),
        ({"decided_agreement": {"value": 0.985}}, False),
        ({"decided_agreement": {"value": 0.975}}, True),
        ({"decided_images": 0, "decided_agreement": {"value": 0.0}}, False),
        (labelled(0.90, 0.896, 0.2), False),
        (labelled(0.90, 0.894, 0.2), True),
        (labelled(0.90, 0.897, 0.04), True),
        (labelled(0.90, 0.91, 0.001), False),
    ],
)
def test_what_counts_as_a_loss(figures: dict[str, Any], lossy: bool) -> None:
    assert loses(record("openvino-int8", **figures)) is lossy


def test_a_loss_costs_the_place_only_where_an_exact_one_is_nearly_as_fast() -> None:
    records = {variant: record(variant) for variant in VNNI}
    records["openvino-int8"] = replace(records["openvino-int8"], figures=labelled(0.9, 0.89, 0.01))

    assert best_first(VNNI, records)[0] == "openvino-int8"
    assert best_first(VNNI | {"openvino-bf16": 430}, records)[:2] == ["openvino-bf16", "openvino-int8"]


def test_without_a_speed_a_variant_comes_last() -> None:
    assert best_first({"a-fp32": 1.0}, {name: record(name) for name in ("b-fp32", "a-fp32")}) == ["a-fp32", "b-fp32"]
