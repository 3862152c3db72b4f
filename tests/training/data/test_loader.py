import os
import signal
import subprocess
import sys
import warnings

import psutil
import pytest
import torch

from models.spec import InputSpec
from tests.servers import ROOT
from tests.training.memory import crops
from training.data.augment import EvaluationView
from training.data.batches import shared_memory
from training.data.batches.loader import ValidationFeed
from training.data.dataset import PictureSet

# The loader is still referenced when Python ends, for instance by the traceback of an error.
HOLDING = """
import multiprocessing.util, sys
from tests.training.memory import crops
from training.data.augment import EvaluationView
from training.data.dataset import PictureSet
from training.data.batches.loader import ValidationFeed
from models.spec import InputSpec

feed = ValidationFeed(
    PictureSet(crops(train=16).train, EvaluationView(InputSpec(size=32)), seed=0), batch=8, workers=2, pin=False
)
batches = iter(feed.batches.loader)
list(batches)
print("ready", flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
# As Python does at its end: it terminates its daemonic child processes and waits for them.
multiprocessing.util._exit_function()
"""


def test_more_processes_than_cores_are_no_reason_for_torch_to_warn(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    pictures = PictureSet(crops(train=16).train, EvaluationView(InputSpec(size=32)), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feed = ValidationFeed(pictures, batch=8, workers=2, pin=False)
        assert sum(len(targets) for epoch in range(2) for _, targets in feed) == 32


def holding(how):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDING, how], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.usefixtures("every_core")
def test_loader_processes_do_not_keep_python_from_ending():
    out, err = holding("end").communicate(timeout=120)
    assert (out, err) == ("ready\n", "")


def test_signals_to_the_group_do_not_reach_loader_processes():
    process = holding("wait")
    try:
        process.stdout.readline()
        loaders = [child for child in psutil.Process(process.pid).children() if os.getpgid(child.pid) == child.pid]
        assert len(loaders) == 2
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    # They end when they notice that the training process has ended.
    assert psutil.wait_procs(loaders, timeout=60)[1] == []


@pytest.mark.usefixtures("every_core")
@pytest.mark.parametrize("from_batch", [0, 3])
def test_without_enough_shared_memory_the_training_process_reads_the_rest(monkeypatch, capsys, from_batch):
    shared_memory.warn.cache_clear()
    parent, share, calls = os.getpid(), torch.Tensor.share_memory_, []

    def too_small(tensor):
        # Each loader process counts its own: three tensors a batch.
        if os.getpid() != parent:
            calls.append(0)
            if len(calls) > 3 * from_batch:
                raise RuntimeError(
                    "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
                )
        return share(tensor)

    monkeypatch.setattr(torch.Tensor, "share_memory_", too_small)
    view = EvaluationView(InputSpec(size=32))

    def epochs(workers):
        feed = ValidationFeed(PictureSet(crops(train=16).train, view, seed=0), batch=2, workers=workers, pin=False)
        return [pixels for _ in range(2) for pixels, _ in feed]

    with_workers = epochs(2)
    assert "--shm-size" in capsys.readouterr().err
    expected = epochs(0)
    assert len(with_workers) == len(expected) == 16
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(with_workers, expected, strict=True))


def test_without_any_shared_memory_no_loader_process_starts(monkeypatch, capsys):
    shared_memory.warn.cache_clear()

    def none(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", none)
    pictures = PictureSet(crops(train=16).train, EvaluationView(InputSpec(size=32)), seed=0)
    feed = ValidationFeed(pictures, batch=8, workers=2, pin=False)
    assert feed.batches.loader.num_workers == 0
    assert len(list(feed)) == 2
    assert capsys.readouterr().err.startswith("warning: the shared memory of ")
