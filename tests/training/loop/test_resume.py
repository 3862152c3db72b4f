import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from tests import commands
from tests.servers import ROOT
from tests.training.memory import crops
from tests.training.runs import STATEFUL, TINY, config, run, timeless
from training.config.recipe import Optimisation, Recipe
from training.config.train import Running, TrainConfig, load_recipe
from training.loop.checkpoints import LOCK, RunFolder
from training.loop.resume import request_with, resolve

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

SLOW = (
    "--data", "training/sample", "--model", "mobilenetv3_small", "--weights", "random", "--size", "32", "--limit", "40",
    "--batch", "4", "--epochs", "3", "--amp", "off", "--device", "cpu", "--recipe", "quick",
    "--freeze", "full",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole") / "photos")


def command(*flags):
    return subprocess.Popen(
        [sys.executable, "-m", "training", *map(str, flags)], cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finished(process):
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def weights(bundle):
    return safetensors.torch.load(bundle.read(WEIGHTS))


def assert_equal(one, two):
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert timeless(one) == timeless(two)


def stopped_after(monkeypatch, output, saves, **options):
    """Start a run that ends, as if killed, after this number of checkpoints."""
    save_last, count = RunFolder.save_last, 0

    def save(folder, name, state, resume, **options):
        nonlocal count
        save_last(folder, name, state, resume, **options)
        count += 1
        if count == saves:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_last", save)
        with pytest.raises(InterruptedError):
            run(output, minutes=0.0, **options)


def checkpoints(output):
    return sorted(path.name for path in RunFolder(output).path.glob("last-*"))


@pytest.mark.timeout(900)
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path):
    script = Path(__file__).parents[1] / "runs.py"
    result = subprocess.run(
        [sys.executable, script, "kill", tmp_path, "5", "0"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "killed 5 times" in result.stdout


def interrupted(output, number):
    """Send the signal to the command after its first checkpoint; check its end."""
    process = command(*SLOW, "--workers", "1", "--output", output, "--checkpoint-minutes", "0")
    while not checkpoints(output) and process.poll() is None:
        time.sleep(0.02)
    # To the whole group, as a terminal does: only the training process must handle the signal.
    os.killpg(process.pid, number)
    code, _, err = finished(process)
    assert code == 130, err
    assert err == f"stopped and saved: continue with `python -m training --output {output} --resume`\n"
    assert len(checkpoints(output)) == 1


@pytest.mark.timeout(900)
def test_ctrl_c_saves_and_names_the_command_to_resume(tmp_path):
    output = tmp_path / "photos"
    interrupted(output, signal.SIGINT)
    resumed = commands.run("training", "--output", output, "--resume", "--workers", "0")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after " in resumed.stdout
    whole = commands.run("training", *SLOW, "--workers", "0", "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert_equal(Bundle.open(output), Bundle.open(tmp_path / "whole"))
    assert [path.name for path in RunFolder(output).path.iterdir()] == ["tensorboard"]


def test_termination_saves_too(tmp_path):
    interrupted(tmp_path / "photos", signal.SIGTERM)


# The sixth is the last step of the first epoch, the seventh its end.
@pytest.mark.parametrize("saves", [1, 6, 7])
def test_a_repeated_command_continues_a_stopped_run(tmp_path, monkeypatch, whole, saves):
    stopped_after(monkeypatch, tmp_path / "photos", saves)
    assert_equal(run(tmp_path / "photos"), whole)


def test_changed_settings_are_refused_with_both_ways_to_continue(tmp_path, monkeypatch):
    output = tmp_path / "photos"
    stopped_after(monkeypatch, output, 2)
    with pytest.raises(HalftoneError) as caught:
        run(output, replace(TINY, batch=16))
    assert str(caught.value) == (
        f"an unfinished run of {output} was started with other settings (batch: 8, now 16): continue it with "
        f"`python -m training --output {output} --resume`, or discard it with --restart"
    )
    with pytest.raises(HalftoneError, match=r"data\.train: 48, now 40"):
        run(output, data=crops(train=40))
    assert checkpoints(output) == ["last-00000-000000002"]


def test_restart_discards_the_unfinished_run(tmp_path, monkeypatch, whole):
    output = tmp_path / "photos"
    stopped_after(monkeypatch, output, 3, seed=5)
    assert_equal(run(output, restart=True), whole)


def test_a_run_killed_between_its_bundle_and_the_removal_of_its_checkpoints(tmp_path, monkeypatch):
    output = tmp_path / "photos"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda folder: None)
        made = weights(run(output))
    assert checkpoints(output)
    again = run(output)
    assert made.keys() == weights(again).keys()
    assert not RunFolder(output).path.exists()


def test_a_finished_run_is_finished_for_the_same_request_alone(tmp_path, whole):
    output = tmp_path / "photos"
    shutil.copytree(whole.folder, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert_equal(run(output), whole)
    fix = f"remove it (`rm -r {output}`) and repeat the command, or choose another --output"
    for other in ({"recipe": replace(TINY, epochs=1)}, {"data": crops(train=40)}, {"seed": 1}, {"restart": True}):
        with pytest.raises(HalftoneError) as caught:
            run(output, **other)
        kept = ", which --restart does not discard" if "restart" in other else ""
        assert str(caught.value) == f"{output} holds the model of a finished run{kept}: {fix}"
    (output / "manifest.json").write_text("{")
    with pytest.raises(
        HalftoneError, match="photos is not empty: remove it to train again, or choose another --output"
    ):
        run(output)
    (output / "manifest.json").write_bytes((whole.folder / "manifest.json").read_bytes())
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} == {output / "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_command_killed_after_its_last_line_is_finished(tmp_path):
    output = tmp_path / "photos"
    flags = (*SLOW, "--workers", "0", "--output", output, "--limit", "16", "--epochs", "1", "--log")
    with command(*flags) as first:
        for line in first.stdout:
            if line.startswith("wrote "):
                first.kill()
    for again in (flags, ("--output", output, "--resume")):
        result = commands.run("training", *again)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"this run is finished, {output} has its model: validation top-1 ")
        assert len(result.stdout.splitlines()) == 3
        assert "\nwarning: this is no better than always answering" in result.stdout
        assert "16 validation pictures, which chose the epoch, so it flatters; always answering" in result.stdout
        assert re.search(
            r"calibration error \S+% \(\S+% by chance\); temperature .*fitted on 16 held-out", result.stdout
        )


def test_only_the_main_process_of_several_refuses_the_output_and_records_the_lineage(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "something").touch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert request_with(config(tmp_path / "photos"), crops()).lineage == {}
    monkeypatch.setenv("RANK", "0")
    assert request_with(config(tmp_path / "new"), crops()).lineage["data"]["train"] == 48
    with pytest.raises(HalftoneError, match="photos is not empty: remove it to train again"):
        request_with(config(tmp_path / "photos"), crops())


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(HalftoneError) as caught:
        resolve(TrainConfig(output=tmp_path / "nothing", resume=True))
    assert str(caught.value) == (
        f"{tmp_path / 'nothing'} has no unfinished run to resume: start one with --data and --model"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["weights", "resume"])
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, whole, where):
    output = tmp_path / "photos"
    stopped_after(monkeypatch, output, 2)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((safetensors.torch, "save_file") if where == "weights" else (torch, "save")), full)
        with pytest.raises(HalftoneError) as caught:
            run(output, minutes=0.0)
    assert str(caught.value) == (
        f"the disk is full: no checkpoint could be saved in {RunFolder(output).path}; the previous checkpoint is "
        "intact (last-00000-000000002): free some space, then repeat the command"
    )
    assert {path.name for path in RunFolder(output).path.iterdir()} == {"lock", "run.json", "last-00000-000000002"}
    assert_equal(run(output), whole)


@contextlib.contextmanager
def files_of_at_most(size):
    """Limit the size of files: a write is interrupted in the middle, as by a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [1_000_000, 8_000_000], ids=["weights", "resume"])
def test_a_write_that_is_cut_off_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, size):
    output = tmp_path / "photos"
    stopped_after(monkeypatch, output, 2)
    with files_of_at_most(size), pytest.raises(HalftoneError, match=r"writing failed \(") as caught:
        run(output, minutes=0.0)
    assert "the previous checkpoint is intact (last-00000-000000002)" in str(caught.value)
    assert checkpoints(output) == ["last-00000-000000002"]
    assert RunFolder(output).load_last() is not None


# Record locks hold between processes only.
HOLDING = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(); input()"


def test_a_second_process_with_the_same_output_is_refused(tmp_path):
    output = tmp_path / "photos"
    folder = RunFolder(output).path
    folder.mkdir()
    arguments = [sys.executable, "-c", HOLDING, folder / LOCK]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(HalftoneError) as caught:
            run(output)
        other.communicate("\n")
    assert str(caught.value) == f"another process is training {output}: wait until it ends, or choose another --output"
    run(output)


@pytest.mark.parametrize("name", ["weights.safetensors", "resume.pt"])
def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch, name):
    output = tmp_path / "photos"
    stopped_after(monkeypatch, output, 2)
    damaged = RunFolder(output).path / "last-00000-000000002"
    (damaged / name).write_bytes((damaged / name).read_bytes()[:1000])
    with pytest.raises(HalftoneError) as caught:
        run(output)
    assert str(caught.value).startswith(f"the checkpoint {damaged} is damaged (")
    assert str(caught.value).endswith("): start again with --restart")


@pytest.mark.parametrize("model", ["mobilenetv3_small", "vit_ti16"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_changed(tmp_path, model):
    output = tmp_path / "photos"
    absurd = replace(TINY, optimisation=Optimisation(optimiser="sgd", head_lr=1e30, clip=None))
    with pytest.raises(HalftoneError) as caught:
        run(output, absurd, model=model, minutes=0.0)
    message = str(caught.value)
    assert message.startswith(("the loss is nan in epoch 1, step 2 of 6", "the loss is inf in epoch 1, step 2 of 6"))
    assert (
        "stopped before the weights were changed; most likely the learning rate is too high: lower --head-lr" in message
    )
    assert message.endswith("then start again with --restart, because changed settings make another run")
    state, _ = RunFolder(output).load_last()
    assert checkpoints(output) == ["last-00000-000000001"]
    assert all(bool(torch.isfinite(value.float()).all()) for value in state.values())


def test_a_loss_of_mixed_micro_batches_that_is_not_finite_stops_too(tmp_path):
    optimisation = Optimisation(optimiser="sgd", head_lr=1e30, clip=None, accumulate=2)
    with pytest.raises(HalftoneError, match=r"the loss is (nan|inf) in epoch 1, step 2 .* rate is too high"):
        run(tmp_path / "photos", replace(STATEFUL, optimisation=optimisation), minutes=0.0)
    state, _ = RunFolder(tmp_path / "photos").load_last()
    assert all(bool(torch.isfinite(value.float()).all()) for value in state.values())


def test_damaged_initial_weights_are_named(tmp_path, whole):
    good = weights(whole)
    safetensors.torch.save_file(
        good | {"classifier.weight": good["classifier.weight"] * float("nan")}, tmp_path / "bad"
    )
    with pytest.raises(
        HalftoneError, match=r"weights already contain NaN \(first classifier.weight\): start from other"
    ):
        run(tmp_path / "photos", weights=str(tmp_path / "bad"))


def test_best_weights_of_a_later_epoch_do_not_replace_the_best_ones(tmp_path):
    folder = RunFolder(tmp_path / "photos")
    folder.path.mkdir()
    state = {"weight": torch.zeros(2)}
    folder.save_best(2, state)
    folder.save_last("00002-000000000", state, {}, best_epoch=2)
    folder.save_best(3, state)
    # Killed here and resumed: the next checkpoint comes before the third epoch ends again.
    folder.save_last("00002-000000001", state, {}, best_epoch=2)
    assert sorted(path.name for path in folder.path.iterdir()) == ["best-00002", "last-00002-000000001"]
    assert torch.equal(folder.load_best(2)["weight"], state["weight"])


def test_a_run_that_is_refused_leaves_nothing_in_the_way_of_the_corrected_one(tmp_path, whole):
    broken = crops(train=48, broken=(5, 6, 7))
    with pytest.raises(HalftoneError) as caught:
        run(tmp_path / "photos", data=broken)
    assert str(caught.value).endswith("; `python -m training.data --data crops --check` lists all of them at once")
    assert list(tmp_path.iterdir()) == []
    assert_equal(run(tmp_path / "photos"), whole)


def test_a_run_killed_before_its_first_checkpoint_is_no_obstacle(tmp_path, whole):
    folder = RunFolder(tmp_path / "photos")
    folder.path.mkdir()
    folder.begin({"config": "other settings"})
    assert_equal(run(tmp_path / "photos"), whole)


def began(output, **options):
    """An unfinished run of the recipe quick, as it is recorded."""
    folder = RunFolder(output)
    folder.path.mkdir()
    recipe = replace(load_recipe("quick"), batch=8)
    begun = replace(config(output, recipe, **options), recipe="quick")
    folder.begin({"config": begun.identity()})


def test_settings_can_not_be_changed_by_resuming(tmp_path):
    output = tmp_path / "photos"
    began(output)
    running = Running(device="cpu")
    with pytest.raises(HalftoneError) as caught:
        resolve(TrainConfig(output=output, resume=True, seed=3, settings=Recipe(epochs=2), running=running))
    assert str(caught.value) == (
        "--resume continues a run with its recorded settings, so --seed, --epochs can't be changed: leave those flags "
        "out, or start again with `python -m training --data crops --model mobilenetv3_small --recipe quick --weights "
        f"random --batch 8 --seed 3 --epochs 2 --device cpu --output {output} --restart`"
    )


def test_a_restart_without_the_flags_of_the_run_names_them(tmp_path, whole):
    began(tmp_path / "photos")
    command = "python -m training --data crops --model mobilenetv3_small --recipe quick --weights random --batch 8"
    with pytest.raises(HalftoneError) as caught:
        resolve(TrainConfig(output=tmp_path / "photos", restart=True, settings=Recipe(epochs=2)))
    assert str(caught.value) == (
        "--restart takes no settings from the run that it discards, and --data and --model are missing: start again "
        f"with `{command} --epochs 2 --output {tmp_path / 'photos'} --restart`"
    )
    with pytest.raises(HalftoneError, match=r"^--data and --model are needed, as in"):
        resolve(TrainConfig(output=tmp_path / "nothing", restart=True))
    with pytest.raises(HalftoneError) as caught:
        resolve(TrainConfig(output=whole.folder, restart=True))
    assert str(caught.value) == (
        f"{whole.folder} holds the model of a finished run, which --restart does not discard: remove {whole.folder} "
        f"(`rm -r {whole.folder}`) and start again with all flags of the run and --restart, or choose another --output"
    )


def test_the_curves_have_the_epoch_that_a_run_resumes_from(tmp_path, monkeypatch):
    rows = []

    class Rows:
        def log(self, values, step):
            rows.append((values["epoch"], step))

        def close(self):
            pass

    stopped_after(monkeypatch, tmp_path / "photos", 7)
    monkeypatch.setattr("training.loop.run.open_loggers", lambda *names, **options: [Rows()])
    run(tmp_path / "photos")
    assert rows == [(1, 6), (2, 12)]


def test_pictures_found_broken_before_a_kill_are_reported_after_it(tmp_path, monkeypatch):
    data = crops(train=48, broken=(5,))
    stopped_after(monkeypatch, tmp_path / "photos", 6, data=data)
    unreadable = run(tmp_path / "photos", data=data).manifest.training["unreadable"]
    assert unreadable["train"] == [data.train.name(5)]
