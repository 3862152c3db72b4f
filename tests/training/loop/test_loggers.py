import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.common.errors import HalftoneError
from training.loop.loggers import open_loggers


def opened(*names, folder, step=0):
    return open_loggers(names, folder=folder, name="photos", config={"epochs": 2}, step=step)


def curve(folder, name):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_s_files_hold_the_curves(tmp_path):
    (logger,) = opened("tensorboard", folder=tmp_path)
    logger.log({"val_top1": 0.5, "train_loss": 1.5}, 6)
    logger.log({"val_top1": 0.75, "train_loss": 1.25}, 12)
    logger.close()
    assert curve(tmp_path, "val_top1") == [(6, 0.5), (12, 0.75)]
    assert curve(tmp_path, "train_loss") == [(6, 1.5), (12, 1.25)]


def test_a_resumed_run_hides_what_it_had_logged_beyond_its_checkpoint(tmp_path):
    (logger,) = opened("tensorboard", folder=tmp_path)
    for step in (6, 12, 18):
        logger.log({"val_top1": step / 100}, step)
    logger.close()
    (resumed,) = opened("tensorboard", folder=tmp_path, step=12)
    resumed.log({"val_top1": 0.5}, 18)
    resumed.close()
    # The loop logs the row of the checkpoint again.
    assert curve(tmp_path, "val_top1") == [(6, pytest.approx(0.06)), (18, 0.5)]


def test_a_logger_named_twice_is_opened_once(tmp_path):
    loggers = opened("tensorboard", "tensorboard", folder=tmp_path)
    assert len(loggers) == 1
    loggers[0].close()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(name, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(HalftoneError) as caught:
        opened(name, folder=tmp_path)
    assert str(caught.value) == (
        f"--log {name}: the package is not installed; `pip install {name}`, or leave it out of --log"
    )


def test_no_logger_at_all(tmp_path):
    assert opened(folder=tmp_path) == []
    assert importlib.util.find_spec("tensorboard") is not None
