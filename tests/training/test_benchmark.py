import json
import threading

import pytest
import torch
from rich.progress import Progress

from models.common.errors import HalftoneError
from tests import commands
from tests.servers import wait_until
from training.benchmark.__main__ import main
from training.benchmark.config import BenchmarkConfig, resolve
from training.benchmark.gpu_utilization import GpuUtilization
from training.benchmark.rounds import benchmark

# timm's reader leaves the closing of its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")


def measured(**options):
    usual = {"model": "mobilenetv3_small", "weights": "random", "batch": 4, "steps": 6, "rounds": 2}
    options = usual | {"recipe": "fashion_mnist"} | options
    config = BenchmarkConfig(data="training/sample", size=32, workers=0, device="cpu", **options)
    with Progress(disable=True) as progress:
        return benchmark(config, *resolve(config), progress)


@pytest.mark.parametrize("recipe", ["fashion_mnist", "vit"])
def test_all_loops_are_measured_in_every_round(recipe):
    # `vit` has Mixup, clipping and a weight average.
    result = measured(recipe=recipe)
    assert (result["recipe"], result["batch"], result["pictures_per_round"]) == (recipe, 4, 24)
    rates = result["images_per_second"]
    assert {name: len(each) for name, each in rates.items()} == {"ours": 2, "bare": 2, "timm": 2, "no loading": 2}
    for theirs, ratio in (("bare", "ratio"), ("timm", "ratio_to_timm"), ("no loading", "ratio_to_limit")):
        ratios = [one / other for one, other in zip(rates["ours"], rates[theirs], strict=True)]
        assert result[ratio] == {"median": pytest.approx(sum(ratios) / 2), "least": min(ratios), "most": max(ratios)}
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["host"]["cores"] >= 1


def test_timms_loop_is_not_measured_if_layers_are_frozen():
    frozen = measured(weights="pretrained", model="efficientnet_lite0", recipe="small", rounds=1)
    assert frozen["ratio_to_timm"] is None


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


def test_the_utilisation_of_a_gpu_by_task():
    with_gpu = GpuUtilization(lambda: 70.0)

    with with_gpu:
        with_gpu.task = "ours"
        wait_until(lambda: with_gpu.mean("ours") is not None, "a sample")

    assert with_gpu.mean("ours") == pytest.approx(0.7)
    assert with_gpu.mean("bare") is None


def test_a_gpu_without_a_utilisation():
    called = threading.Event()

    def fails() -> float:
        called.set()
        raise OSError("no permission")

    silent = GpuUtilization(fails)

    with silent:
        silent.task = "ours"
        assert called.wait(60)

    assert silent.mean("ours") is None


def test_no_utilisation_without_a_gpu():
    without = GpuUtilization(None)

    with without:
        without.task = "ours"

    assert without.mean("ours") is None


def test_the_interval_of_the_cross_validation_is_compared_with_other_pictures(tmp_path):
    usual = ("--data", "training/sample", "--size", "32", "--workers", "0", "--device", "cpu")
    result = commands.run(
        "training.benchmark.interval", *usual, "--pictures", "100", "--subsets", "2", "--json", "--output",
        tmp_path / "interval.json",
    )  # fmt: skip

    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "interval.json").read_text())
    assert (document["pictures"], document["others"], len(document["subsets"])) == (100, 600, 2)
    held = sum(each["low"] <= each["true"] <= each["high"] for each in document["subsets"])
    assert (document["held"], result.returncode) == (held, 0 if held == 2 else 1)
    for each in document["subsets"]:
        assert 0.3 < each["low"] < each["promised"] < each["high"] < 1
    few = commands.run("training.benchmark.interval", *usual, "--pictures", "900")
    assert (few.returncode, "leaves none of the 700 pictures to evaluate on" in few.stderr) == (2, True)
