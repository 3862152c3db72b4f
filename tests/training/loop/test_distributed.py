import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.bundle.bundle import WEIGHTS, Bundle
from models.catalog import architecture
from models.checkpoint import build
from tests.servers import ROOT
from tests.training.runs import timeless
from training.loop.build import synchronised

SCRIPT = Path(__file__).parents[1] / "runs.py"


def processes(count, action, output):
    """Run the script in so many processes that train together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", str(port)]
    return subprocess.run(
        [sys.executable, *launcher, SCRIPT, action, output], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip


def test_two_processes_learn_what_one_learns(tmp_path):
    bundles = []
    for count in (1, 2):
        result = processes(count, "run", tmp_path / str(count))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("recipe test") == 1
        bundles.append(Bundle.open(tmp_path / str(count)))
    alone, together = (safetensors.torch.load(bundle.read(WEIGHTS)) for bundle in bundles)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-4, msg=name)
    for one, two in zip(*(timeless(bundle) for bundle in bundles), strict=True):
        assert two == pytest.approx(one, rel=1e-3)
        assert (two["val_top1"], two["val_top5"]) == (one["val_top1"], one["val_top5"])


def test_the_kept_weights_are_the_ones_that_were_judged(tmp_path):
    result = processes(2, "statistics", tmp_path / "photos")
    assert result.returncode == 0, result.stderr
    judged, again = json.loads(result.stdout.splitlines()[-1])
    assert again == pytest.approx(judged, abs=1e-5)


def test_a_refused_run_ends_in_every_process_with_one_message(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "something").touch()
    result = processes(2, "run", tmp_path / "photos")
    assert result.returncode != 0
    assert result.stderr.count(f"{tmp_path / 'photos'} holds something already") == 1
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
