import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.bundle.bundle import WEIGHTS, Bundle
from models.catalog import architecture
from models.checkpoint import build
from tests.servers import ROOT, free_port
from tests.training.runs import timeless
from training.loop.build import synchronised

SCRIPT = Path(__file__).parents[1] / "runs.py"


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The bundles of one process and of two, and what all three runs printed."""
    folder = tmp_path_factory.mktemp("distributed")
    result = python(SCRIPT, "distributed", folder)
    assert result.returncode == 0, result.stderr
    return [Bundle.open(folder / count) for count in ("1", "2")], result.stdout.split("---\n")[1:]


def test_two_processes_train_the_same_weights_as_one(runs):
    bundles, printed = runs
    assert [text.count("recipe test") for text in printed] == [1, 1, 1]
    alone, together = (safetensors.torch.load(bundle.read(WEIGHTS)) for bundle in bundles)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-4, msg=name)
    for one, two in zip(*(timeless(bundle) for bundle in bundles), strict=True):
        assert two == pytest.approx(one, rel=1e-3)
        assert (two["val_top1"], two["val_top5"]) == (one["val_top1"], one["val_top5"])


def test_the_saved_weights_are_the_validated_ones(runs):
    _, printed = runs
    validated, again = json.loads(printed[-1].splitlines()[-1])
    assert again == pytest.approx(validated, abs=1e-5)


def test_a_lost_node_comes_back_and_the_run_ends_with_the_same_weights(runs, tmp_path):
    """Two nodes of one process each under torchrun's elastic agents; one is killed after a checkpoint."""
    result = python(SCRIPT, "nodes", tmp_path / "nodes")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "resuming after" in result.stdout
    bundles = [runs[0][1], Bundle.open(tmp_path / "nodes")]
    whole, lost = (safetensors.torch.load(bundle.read(WEIGHTS)) for bundle in bundles)
    assert whole.keys() == lost.keys()
    for name, tensor in whole.items():
        assert torch.equal(lost[name], tensor), name
    assert timeless(bundles[0]) == timeless(bundles[1])


def test_a_refused_run_ends_in_every_process_with_one_message(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "something").touch()
    port = str(free_port())
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port)
    result = python(*launcher, SCRIPT, "run", tmp_path / "photos")
    assert result.returncode != 0
    assert result.stderr.count(f"{tmp_path / 'photos'} is not empty") == 1
    assert "[rank1]: Traceback" not in result.stderr
    assert "last-" not in str(sorted(tmp_path.rglob("*")))


@pytest.mark.parametrize("name", ["mobilenetv3_small", "efficientnet_lite0", "resnet18"])
def test_synchronised_batch_norms_keep_the_activations(name):
    module = build(architecture(name), classes=4).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = module(images)
        after = synchronised(module)
        assert any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in after.modules())
        torch.testing.assert_close(after.eval()(images), before)
