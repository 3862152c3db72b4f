import pytest

from models.common.statistics import rate
from training.evaluation.baseline import warning


def record(right: int, pictures: int, *losses: tuple[float, float]) -> dict:
    """The manifest's record of a run with these losses of training and validation, by epoch; half are cats."""
    top1 = rate(right, pictures)
    metrics = {
        "val_top1": top1["value"], "val_pictures": pictures, "val_top1_interval": [top1["low"], top1["high"]],
        "val_majority": {"label": "cat", "value": 0.5},
    }  # fmt: skip
    history = [{"train_loss": train, "val_loss": val} for train, val in losses]
    return {"config": {"data": "my photos"}, "metrics": metrics, "history": history}


def test_an_accuracy_above_the_baseline_for_certain_needs_no_warning():
    assert warning(record(16, 20, (0.7, 0.6), (0.3, 0.5)), classes=2) == ""


def test_an_accuracy_that_may_be_the_baseline_s_by_chance_is_doubted():
    assert warning(record(13, 20, (0.7, 0.69), (0.5, 0.6)), classes=2) == (
        "this may be no better than always answering 'cat' (50.00%), which the 95 % interval includes; more pictures "
        "make it narrower: train again to another --output, with more --epochs, or look for wrong labels with "
        "`python -m training.data --data 'my photos' --check --report checked`"
    )


@pytest.mark.parametrize(
    ("losses", "too_fast"),
    [
        ([(2975.8, 17161.5)], True),
        ([(0.7, 0.7), (1.1, 1.2)], True),
        ([(0.7, 0.7), (float("nan"), 0.7)], True),
        ([(0.69, 0.69), (0.70, 0.69)], False),
        ([(0.7, 0.7), (0.01, 9.0)], False),
    ],
    ids=["huge", "grown", "nan", "flat", "overfitted"],
)
def test_the_losses_decide_what_to_try(losses, too_fast):
    text = warning(record(10, 20, *losses), classes=2)
    assert text.startswith("this is no better than always answering 'cat' (50.00%): ")
    assert ("a learning rate that is too high" in text, "more --epochs" in text) == (too_fast, not too_fast)


def test_a_bundle_of_an_earlier_version_has_no_interval():
    assert warning({"metrics": {"val_top1": 0.1}, "history": [], "config": {"data": ""}}, classes=2) == ""
