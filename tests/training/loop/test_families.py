from dataclasses import replace
from typing import get_args

import pytest
import torch

from models.bundle.bundle import Bundle
from models.bundle.promises import read_promises
from models.checkpoint import load_module
from models.graph import ServingGraph
from models.preprocess.transform import fit
from tests.training.memory import crops
from tests.training.runs import TINY, run
from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Optimisation, Schedule, ScheduleName

# Together, the runs cover every schedule and every kind of mixing.
RUNS = {
    "resnet18": (Schedule(schedule="constant", warmup_epochs=0.5), Objective(mixup=0.2)),
    "resnet18 in steps": (Schedule(schedule="step", step_epochs=2), Objective(cutmix=1.0)),
    "mobilenetv3_small": (Schedule(schedule="cosine", warmup_epochs=1), Objective(smoothing=0.1)),
    "efficientnet_b0": (Schedule(schedule="restarts", restart_epochs=2), Objective(smoothing=0.1)),
    "vit_ti16": (Schedule(schedule="onecycle"), Objective(mixup=0.8, cutmix=1.0, mix_prob=0.5)),
}
# At 32 px the last batch norms of the mobile families get one value per image: they need larger batches.
RATES = {"resnet18": 1e-3, "mobilenetv3_small": 1e-3, "efficientnet_b0": 5e-4, "vit_ti16": 5e-4}
BATCHES = {"resnet18": 8, "mobilenetv3_small": 16, "efficientnet_b0": 16, "vit_ti16": 8}


def test_the_runs_cover_every_schedule_and_every_mix():
    assert {schedule.schedule for schedule, _ in RUNS.values()} == set(get_args(ScheduleName))
    mixes = {(objective.mixup > 0, objective.cutmix > 0) for _, objective in RUNS.values()}
    assert mixes == {(False, False), (True, False), (False, True), (True, True)}
    assert any(schedule.warmup_epochs for schedule, _ in RUNS.values())


@pytest.mark.parametrize("case", RUNS)
def test_training_lowers_the_loss_of_every_family(tmp_path, case):
    (schedule, objective), model = RUNS[case], case.split()[0]
    recipe = replace(
        TINY,
        epochs=4,
        batch=BATCHES[model],
        schedule=schedule,
        objective=objective,
        optimisation=Optimisation(head_lr=RATES[model]),
        augment=AugmentConfig(crop_scale=(1.0, 1.0), brightness=0, contrast=0, saturation=0),
    )
    data = crops(train=64, val=16)
    made = run(tmp_path / "photos", recipe, model=model, data=data)
    history = made.manifest.training["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["train_loss"] < history[0]["train_loss"]

    bundle = Bundle.open(tmp_path / "photos")
    graph = ServingGraph(load_module(bundle), bundle.manifest.input).eval()
    pixels = torch.stack([torch.tensor(fit(data.val.read(index), bundle.manifest.input)) for index in range(16)])
    with torch.inference_mode():
        answers = graph(pixels).argmax(dim=1).numpy()
    promises = read_promises(bundle)
    assert promises is not None
    assert promises.images == bundle.manifest.training["metrics"]["val_pictures"]
    best = history[bundle.manifest.training["metrics"]["best_epoch"] - 1]
    assert (answers == data.val.targets).mean() == pytest.approx(best["val_top1"])
