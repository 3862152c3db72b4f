"""Requests, counts and figures of the comparison, without a server."""

import io
import json
import math
import statistics
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loadtest import overload
from loadtest.client.encoding import Wire, request
from loadtest.client.load import Cell, Load, Tally, class_index, percentile
from loadtest.compare.goals import failed, goals
from loadtest.compare.report import Report
from loadtest.compare.rounds import PeerResult
from loadtest.compare.summary import rows
from loadtest.reporting.intervals import ratio_interval
from loadtest.servers.catalogue import batching_baselines, batching_peers, chosen
from loadtest.servers.peer import INDEX, V2_CLASS, V2_INDEX, Peer

latencies = st.lists(st.floats(0, 1e3, allow_nan=False), min_size=1)


@settings(deadline=None)
@given(latencies, st.floats(0.1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)

    enough = math.ceil(len(values) * percent / 100)
    assert found in values
    assert sum(value <= found for value in values) >= enough
    assert sum(value < found for value in values) < max(1, enough)


@settings(deadline=None)
@given(latencies)
def test_percentiles_do_not_fall(values: list[float]) -> None:
    assert percentile(values, 50) <= percentile(values, 99) <= percentile(values, 100) == max(values)


def test_the_99th_percentile_of_a_hundred_values_is_not_their_maximum() -> None:
    assert percentile([float(value) for value in range(1, 101)], 99) == 99


def test_overload_reports_the_same_percentile() -> None:
    replies = [overload.Reply(status=200, seconds=float(second), headers={}, ended=0.0) for second in range(1, 101)]

    figures = overload._overload_figures(replies, 1.0, -200.0, overload.Overload(), 1.0)

    assert next(figure.value for figure in figures if figure.name == "p99 of accepted requests, s") == 99


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


answers = st.tuples(st.sampled_from([200, 200, 200, 404, 503]), st.integers(0, 3), st.floats(0, 1))


@settings(deadline=None)
@given(st.lists(answers))
def test_every_answer_is_counted_once(sent: list[tuple[int, int, float]]) -> None:
    tally = Tally()
    load = Load(port=1, requests=[b"a", b"b"], expected=[1, 1], answer=INDEX, clients=4, seconds=2.0)
    for turn, (status, index, seconds) in enumerate(sent):
        tally.count(status, index, seconds, turn % 2, load)
    cell = tally.cell(4, 2.0)

    good = [(index, seconds) for status, index, seconds in sent if status == 200]
    assert cell.requests == len(good)
    assert cell.errors == len(sent) - len(good)
    assert cell.wrong == sum(index != 1 for index, _ in good)
    assert cell.rate == len(good) / 2.0
    assert cell.seen == {turn % 2 for turn, (status, _, _) in enumerate(sent) if status == 200}
    assert cell.missed == {turn % 2 for turn, (status, index, _) in enumerate(sent) if status == 200 and index != 1}
    if good:
        assert cell.p99_ms >= cell.p50_ms


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (INDEX, b'{"predictions": [{"label": "a", "index": 281, "probability": 0.5}, {"label": "b", "index": 3}]}'),
        (INDEX, b'[{"predictions":[{"index":281}]}]'),
        (V2_INDEX, b'{"outputs":[{"name":"index","shape":[1,1],"datatype":"INT64","data":[281]}]}'),
        (V2_CLASS, b'{"outputs":[{"name":"logits","shape":[1,1],"datatype":"BYTES","data":["-1.5:281:a: b"]}]}'),
    ],
)
def test_the_first_class_of_an_answer_is_read(answer: str, body: bytes) -> None:
    assert class_index(answer, body) == 281


def test_an_answer_without_a_class_has_none() -> None:
    assert class_index(INDEX, b"{}") is None


@settings(deadline=None)
@given(st.sampled_from([wire for wire in Wire if wire is not Wire.V2_PIXELS]), st.binary(max_size=500))
def test_a_request_says_how_long_it_is(wire: Wire, picture: bytes) -> None:
    head, _, body = request(wire, "/classify", picture, 3000).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


@settings(deadline=None)
@given(st.binary(max_size=500))
def test_the_binary_tensor_is_found_where_its_head_says(picture: bytes) -> None:
    head, _, body = request(Wire.V2_BINARY, "/v2", picture, 3000).partition(b"\r\n\r\n")

    length = int(head.partition(b"Inference-Header-Content-Length: ")[2].partition(b"\r\n")[0])
    size = json.loads(body[:length])["inputs"][0]["parameters"]["binary_data_size"]
    assert len(body) == length + size
    assert body[length : length + 4] == len(picture).to_bytes(4, "little")
    assert body[length + 4 :] == picture


def test_pixels_are_the_middle_of_the_picture() -> None:
    halves = Image.new("RGB", (500, 300), "red")
    halves.paste("blue", (250, 0, 500, 300))
    file = io.BytesIO()
    halves.save(file, "PNG")

    head, _, body = request(Wire.V2_PIXELS, "/v2", file.getvalue(), 3000).partition(b"\r\n\r\n")

    length = int(head.partition(b"Inference-Header-Content-Length: ")[2].partition(b"\r\n")[0])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("pixels", "UINT8", [1, 224, 224, 3])
    pixels = np.frombuffer(body[length:], np.uint8).reshape(tensor["shape"][1:])
    assert pixels[:, 0].tolist() == [[255, 0, 0]] * 224
    assert pixels[:, -1].tolist() == [[0, 0, 255]] * 224


def test_a_peer_asks_for_the_model_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    (peer,) = chosen("halftone-v2")
    assert peer not in chosen("")

    monkeypatch.delenv("HALFTONE_MODEL", raising=False)
    assert peer.target == "/v2/models/efficientnet_lite0/infer"
    monkeypatch.setenv("HALFTONE_MODEL", "photos,others")
    assert peer.target == "/v2/models/photos/infer"


def test_batching_is_measured_off_on_and_automatic_and_compared_within_a_variant() -> None:
    peers = {peer.name: peer for peer in batching_peers(["openvino-fp32", "openvino-bf16"])}

    assert len(peers) == 6
    for name, peer in peers.items():
        assert peer.settings["HALFTONE_VARIANT"] == peer.engine
        assert name.startswith(peer.engine)
        assert {peers[other].engine for other in batching_baselines(name)} == {peer.engine}


def cell(rate: float) -> Cell:
    return Cell(clients=8, seconds=2.0, requests=round(2 * rate), errors=0, wrong=0, p50_ms=1.0, p99_ms=2.0)


def measured(name: str, rates: list[float]) -> PeerResult:
    peer = Peer(name=name, title=name, command=(), engine="none")
    return PeerResult(peer, cells=[{8: cell(rate)} for rate in rates])


def test_goals_are_of_our_rows_and_a_wrong_answer_fails_where_slowness_does_not() -> None:
    peer = Peer(name="v-auto", title="", command=(), engine="none", ours=True)
    good = replace(cell(10.0), seen=frozenset(range(10)))
    slow = rows([PeerResult(peer, cells=[{8: good}]), measured("v-off", [100.0])], [8], "", {})
    wrong = rows([PeerResult(peer, cells=[{8: replace(good, missed=frozenset([1]))}])], [8], "", {})
    broken = rows([PeerResult(peer, reason="ended")], [8], "", {})

    assert {goal.text.split()[0] for goal in goals("batching", slow)} == {"v-auto"}
    assert not failed(slow, goals("batching", slow), strict=False)
    assert failed(slow, goals("batching", slow), strict=True)
    assert failed(wrong, goals("batching", wrong), strict=False)
    assert failed(broken, goals("batching", broken), strict=False)


def ratio_cell(own: list[float], other: list[float]) -> tuple[str, str]:
    """Return the cell of a ratio, and the line of a goal that it is at least 0.95."""
    table = rows([measured("v-auto", own), measured("v-off", other)], [8], "", {BETTER: lambda _: ["v-off"]})
    facts = {"clients": [8]}
    report = Report(
        title="",
        date=datetime.now(UTC),
        command="",
        rows=table,
        ratios=[BETTER],
        notes=[],
        goals=[],
        behind=[],
        facts=facts,
    )
    cells = report.markdown().splitlines()[6].split(" | ")
    goal = next(goal for goal in goals("batching", [replace(table[0], ours=True)]) if "at 8 clients" in goal.text)
    return cells[4], goal.line()


BETTER = "× better of off and on"


def test_a_tie_within_the_noise_is_called_a_tie() -> None:
    noise, line = ratio_cell([102.0, 100.0], [100.0, 100.0])
    clear, clear_line = ratio_cell([202.0, 200.0], [100.0, 100.0])
    once, once_line = ratio_cell([102.0], [100.0])

    assert (noise, clear, once) == ("1.01 tie", "2.01", "1.02")
    # Ten ratios of 1.01 are more than noise, though the difference is small.
    assert ratio_cell([101.0, 101.2] * 5, [100.0] * 10)[0] == "1.01"
    assert line.startswith("reached, within the noise of the rounds (0.89 to 1.15): ")
    assert clear_line.startswith("reached: ")
    assert once_line.startswith("reached: ")


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=20))
def test_the_interval_of_a_ratio_is_scipys_and_that_of_the_inverse_is_the_inverse(ratios: list[float]) -> None:
    logarithms = np.log(ratios)
    mean, error = logarithms.mean(), logarithms.std(ddof=1) / math.sqrt(len(ratios))
    half = scipy.stats.t.ppf(0.975, len(ratios) - 1) * error
    limits = np.exp(np.clip([mean - half, mean + half], -math.log(1e6), math.log(1e6)))

    found = ratio_interval(ratios)

    assert found == pytest.approx(tuple(limits), rel=1e-3)
    inverse = ratio_interval([1 / ratio for ratio in ratios])
    assert inverse == pytest.approx((1 / found[1], 1 / found[0]), rel=1e-6)


rates = st.lists(st.integers(1, 1000).map(float), min_size=2, max_size=2)


@settings(deadline=None)
@given(rates, rates, rates)
def test_a_ratio_is_taken_within_a_round_to_the_baseline_that_is_better_over_all(
    own: list[float], one: list[float], other: list[float]
) -> None:
    results = [measured("own", own), measured("one", one), measured("other", other)]

    table = rows(results, [8], "v", {"× best": lambda _: ["one", "other"], "× none": lambda _: []})

    better = max(one, other, key=statistics.median)
    expected = statistics.median(mine / theirs for mine, theirs in zip(own, better, strict=True))
    assert table[0].levels[0].ratios["× best"] == pytest.approx(expected)
    assert table[0].levels[0].ratios["× none"] is None
    assert (table[0].levels[0].rate.low, table[0].levels[0].rate.high) == (min(own), max(own))
