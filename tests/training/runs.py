"""Short runs for the tests, and a script for other processes: `python tests/training/runs.py ACTION FOLDER …`."""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from models.bundle.bundle import WEIGHTS, Bundle
from models.checkpoint import load_module
from models.graph import ServingGraph
from models.preprocess.transform import fit
from tests.servers import free_port
from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer
from training.config.train import Running, TrainConfig
from training.loop.resume import request_with
from training.loop.run import train

sys.path.insert(0, str(Path(__file__).parent))
from memory import crops

TINY = Recipe(
    epochs=2,
    batch=8,
    amp="off",
    transfer=Transfer(size=32),
    schedule=Schedule(schedule="cosine"),
    objective=Objective(smoothing=0.1),
)

# Everything that has a state or draws random numbers.
STATEFUL = replace(
    TINY,
    epochs=3,
    transfer=Transfer(size=32, dropout=0.2, drop_path=0.1),
    optimisation=Optimisation(ema=0.9, accumulate=2),
    schedule=Schedule(schedule="onecycle"),
    objective=Objective(mixup=0.2, cutmix=1.0, smoothing=0.1),
)


def config(output, recipe=TINY, *, model="mobilenetv3_small", weights="random", **options):
    """A request for a run on the CPU that logs nowhere."""
    running = Running(
        device="cpu", workers=options.pop("workers", 0), checkpoint_minutes=options.pop("minutes", 5.0), log=()
    )
    return TrainConfig(
        data="crops",
        model=model,
        output=output,
        weights=weights,
        recipe="test",
        settings=recipe,
        running=running,
        **options,
    )


def run(output, recipe=TINY, *, data=None, **options):
    """Train on crops of photographs and return the bundle; the drawings of its report are empty files.

    Drawing takes half the time of a run this small; `tests/training/test_report.py` looks at drawings.
    """
    with mock.patch("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(b"drawing")):
        return train(request_with(config(output, recipe, **options), data or crops()))


def forked(task, *arguments, **environment):
    """Run a task in a child process and return its id.

    The parent has everything imported and has computed nothing yet: a new interpreter would import for seconds.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ.update(environment)
            task(*arguments)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def done(child):
    """Wait for a child process; return False if it was killed."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, status
    return not os.WIFSIGNALED(status)


def together(count, task, *arguments):
    """Run a task in processes that train together, with the variables that torchrun sets."""
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    assert all([done(child) for child in [forked(task, *arguments, **group, **rank) for rank in ranks]])


def distributed(folder):
    """Train the same in one process and in two, then print figures of a run of two; a line of dashes begins each."""
    for name, count, task in (("1", 1, transformer), ("2", 2, transformer), ("statistics", 2, statistics)):
        print("---")
        together(count, task, folder / name)


def node(number, output, endpoint, **environment):
    """Start a node of two, with a training process, and return its id."""
    # A node that is silent for six seconds is lost, instead of 15.
    rendezvous = {"keep_alive_interval": 2, "keep_alive_max_attempt": 3, "is_host": number == 0}
    config = LaunchConfig(
        min_nodes=2, max_nodes=2, nproc_per_node=1, run_id="nodes", rdzv_backend="c10d", rdzv_endpoint=endpoint,
        rdzv_configs=rendezvous, max_restarts=3, start_method="fork",
    )  # fmt: skip
    return forked(elastic_launch(config, member), output, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1", **environment)


def nodes(output):
    """Train in two nodes under torchrun's elastic agents; the second one is killed after a checkpoint, and comes back.

    The agents fork their training processes, which torchrun starts as new interpreters.
    """
    endpoint = f"127.0.0.1:{free_port()}"
    first, second = node(0, output, endpoint), node(1, output, endpoint, KILLED="1")
    assert not done(second)
    again = node(1, output, endpoint)
    assert done(first)
    assert done(again)


def member(output):
    """Train as a process of a node, which is killed as a whole after the first checkpoint if KILLED is set."""
    if os.environ.get("KILLED"):
        threading.Thread(target=_end_node, args=(output.with_name(f".{output.name}.training"),), daemon=True).start()
    transformer(output, minutes=0.0)


def _end_node(checkpoints):
    while not list(checkpoints.glob("last-*")):
        time.sleep(0.001)
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.SIGKILL)


def transformer(output, **options):
    """Train a ViT with two micro-batches a step."""
    run(output, replace(TINY, optimisation=Optimisation(accumulate=2)), model="vit_ti16", **options)


def kill_points(folder, kills, seed):
    """Train once undisturbed, then with SIGKILLs at random moments; both runs must end in the same weights."""
    started = time.monotonic()
    assert done(forked(stateful, folder / "whole"))
    length, generator, killed, finished = time.monotonic() - started, random.Random(seed), 0, False
    while not finished:
        child = forked(stateful, folder / "killed")
        if killed < kills:
            time.sleep(generator.uniform(0.0, length))
            os.kill(child, signal.SIGKILL)
        if not done(child):
            killed += 1
            continue
        assert done(forked(compare, folder))
        finished = killed >= kills
        if not finished:
            shutil.rmtree(folder / "killed")
    print(f"killed {killed} times")


def stateful(output):
    """The run that is killed: two epochs, a checkpoint after every step, a loader process."""
    run(output, replace(STATEFUL, epochs=2), workers=1, minutes=0.0)


def compare(folder):
    """Fail unless both runs ended in the same weights and the same history."""
    bundles = [Bundle.open(folder / name) for name in ("whole", "killed")]
    whole, killed = (safetensors.torch.load(bundle.read(WEIGHTS)) for bundle in bundles)
    assert whole.keys() == killed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, killed[name]), name
    assert timeless(bundles[0]) == timeless(bundles[1])


def statistics(output):
    """Train a network with batch norms; print the last epoch's validation loss, and the kept weights' own."""
    bundle = run(output, replace(TINY, epochs=1))
    if bundle is None:
        return
    pictures, spec = crops().val, bundle.manifest.input
    graph = ServingGraph(load_module(bundle), spec).eval()
    with torch.inference_mode():
        pixels = torch.stack([torch.tensor(fit(pictures.read(index), spec)) for index in range(len(pictures))])
        loss = torch.nn.functional.cross_entropy(graph(pixels), torch.as_tensor(pictures.targets))
    print(json.dumps([bundle.manifest.training["history"][-1]["val_loss"], float(loss)]))


def timeless(bundle):
    """The history without what depends on the machine's mood."""
    history = bundle.manifest.training["history"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


if __name__ == "__main__":
    action, folder, *arguments = sys.argv[1:]
    if action == "kill":
        kill_points(Path(folder), int(arguments[0]), int(arguments[1]))
    elif action == "distributed":
        distributed(Path(folder))
    elif action == "nodes":
        nodes(Path(folder))
    else:
        transformer(Path(folder))
