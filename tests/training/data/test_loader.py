import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.servers import ROOT

# The loader is still referenced when Python ends, for instance by the traceback of an error.
HOLDING = """
import multiprocessing.util, sys
from tests.training.memory import crops
from training.data.augment import EvaluationView
from training.data.dataset import PictureSet
from training.data.loader import ValidationFeed
from models.spec import InputSpec

feed = ValidationFeed(
    PictureSet(crops(train=16).train, EvaluationView(InputSpec(size=32)), seed=0), batch=8, workers=2, pin=False
)
batches = iter(feed.loader)
list(batches)
print("ready", flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
# As Python does at its end: it terminates its daemonic child processes and waits for them.
multiprocessing.util._exit_function()
"""


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
