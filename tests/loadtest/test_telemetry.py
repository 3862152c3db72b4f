"""Parts of `python -m loadtest.telemetry`: ratios within a round, and the receiver of traces."""

import urllib.request

from loadtest.client.load import Cell
from loadtest.servers.otlp_sink import sink
from loadtest.telemetry import WITHOUT, Measurement, summary


def measurement(requests: int, cpu: float, errors: int = 0) -> Measurement:
    cell = Cell(clients=8, seconds=1.0, requests=requests, errors=errors, wrong=0, p50_ms=1.0, p99_ms=2.0)
    return Measurement(cell=cell, cpu=cpu)


def test_every_server_is_compared_with_the_one_without_telemetry_of_the_same_round() -> None:
    rounds = [
        {"traced": measurement(90, 1.0), WITHOUT: measurement(100, 1.0)},
        {"traced": measurement(45, 1.0, 2), WITHOUT: measurement(50, 0.5)},
    ]

    report = summary(rounds)

    assert report["traced"]["ratio"] == 0.9
    assert report["traced"]["cpu_ratios"] == [0.45, 0.9]
    assert report[WITHOUT]["ratio"] == 1.0
    assert report["errors"] == 2
    assert report["traced"]["interval"] == [0.9, 0.9]


def test_the_receiver_of_traces_counts_exports() -> None:
    with sink() as receiver:
        with urllib.request.urlopen(receiver.url, b"spans", timeout=10) as answer:
            assert answer.status == 200
        assert receiver.posts == 1
