import json
import threading

import pytest
import torch
from rich.progress import Progress

from models.common.errors import HalftoneError
from tests.servers import wait_until
from training.benchmark.__main__ import main
from training.benchmark.config import BenchmarkConfig, requested
from training.benchmark.gpu_utilization import Busy
from training.benchmark.rounds import benchmark

# timm's reader leaves closing its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")


def measured(**options):
    usual = {"model": "mobilenetv3_small", "weights": "random", "batch": 4, "steps": 6, "rounds": 2}
    options = usual | {"recipe": "fashion_mnist"} | options
    config = BenchmarkConfig(data="training/sample", size=32, workers=0, device="cpu", **options)
    with Progress(disable=True) as progress:
        return benchmark(config, *requested(config), progress)


@pytest.mark.parametrize("recipe", ["fashion_mnist", "vit"])
def test_all_loops_are_measured_in_every_round(recipe):
    # `vit` mixes, clips and averages.
    result = measured(recipe=recipe)
    assert (result["recipe"], result["batch"], result["pictures_per_round"]) == (recipe, 4, 24)
    rates = result["images_per_second"]
    assert {name: len(each) for name, each in rates.items()} == {"ours": 2, "bare": 2, "timm": 2, "no loading": 2}
    for theirs, ratio in (("bare", "ratio"), ("timm", "ratio_to_timm"), ("no loading", "ratio_to_limit")):
        ratios = [one / other for one, other in zip(rates["ours"], rates[theirs], strict=True)]
        assert result[ratio] == {"median": pytest.approx(sum(ratios) / 2), "least": min(ratios), "most": max(ratios)}
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["host"]["cores"] >= 1


def test_timms_loop_takes_part_where_it_can_do_the_same():
    # Of pictures in a table, timm's reader for folders knows nothing; and it has no frozen layers.
    assert "timm" in measured()["images_per_second"]
    assert measured(weights="pretrained", model="efficientnet_lite0", recipe="small")["ratio_to_timm"] is None


def test_the_figures_are_printed_and_written(tmp_path, monkeypatch, capsys):
    config = BenchmarkConfig(
        data="training/sample", model="mobilenetv3_small", weights="random", size=32, workers=0, device="cpu",
        batch=4, steps=4, rounds=1, recipe="fashion_mnist", output=tmp_path / "loop.json",
    )  # fmt: skip
    assert main(config) == 0
    printed = capsys.readouterr().out
    assert "ratio to a bare loop: " in printed
    assert "ratio to timm's: " in printed
    assert json.loads((tmp_path / "loop.json").read_text())["request"]["steps"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps must be 1 or more, not 0"),
        ({"rounds": 0}, "--rounds must be 1 or more, not 0"),
        ({"batch": 3}, "--batch must be an even number from 2, not 3"),
        ({"steps": 2}, "8 pictures are too few for a batch of 4 and 10 classes"),
        ({"recipe": "nothing"}, "no recipe is called 'nothing'"),
    ],
)
def test_unusable_requests(options, message):
    with pytest.raises(HalftoneError, match=message):
        measured(**options)


def test_how_busy_the_gpu_is_while_something_runs():
    with_gpu = Busy(lambda: 70.0)

    with with_gpu:
        with_gpu.during = "ours"
        wait_until(lambda: with_gpu.mean("ours") is not None, "a sample")

    assert with_gpu.mean("ours") == pytest.approx(0.7)
    assert with_gpu.mean("bare") is None


def test_a_gpu_that_does_not_say():
    asked = threading.Event()

    def fails() -> float:
        asked.set()
        raise OSError("no permission")

    silent = Busy(fails)

    with silent:
        silent.during = "ours"
        assert asked.wait(60)

    assert silent.mean("ours") is None


def test_without_a_gpu_nobody_knows():
    without = Busy(None)

    with without:
        without.during = "ours"

    assert without.mean("ours") is None
