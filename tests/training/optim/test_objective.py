import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, log_softmax, one_hot

from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.catalog import architecture
from models.checkpoint import build, load_module, save_weights
from models.common.errors import HalftoneError
from models.graph import Normalise
from models.spec import InputSpec
from training.config.recipe import Objective
from training.optim.objective import Mixing, Targets, correct, label_loss, load_teacher

LABELS = ("cat", "dog", "emu")


def batch(count=8, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.arange(count) % 3


def mixed(step, *, seed=0, **options):
    images, targets = batch()
    return Mixing(Objective(**options), 3, seed)(images.clone(), targets, step)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_is_a_function_of_seed_and_step(options):
    np.random.seed(1)
    first = mixed(5, **options)
    np.random.seed(2)
    before = np.random.get_state()[1].copy()
    again = mixed(5, **options)
    assert np.array_equal(np.random.get_state()[1], before)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    others = [mixed(step, seed=seed, **options)[0] for step in (5, 6) for seed in (0, 1)]
    assert len({tuple(images.flatten().tolist()) for images in others}) == 4


def test_mixup_blends_pictures_and_labels_alike():
    images, targets = batch()
    blended, labels = mixed(3, mixup=1.0)
    share = float((blended - images.flip(0)).flatten()[0] / (images - images.flip(0)).flatten()[0])
    torch.testing.assert_close(blended, share * images + (1 - share) * images.flip(0))
    hot = one_hot(targets, 3).float()
    torch.testing.assert_close(labels, share * hot + (1 - share) * hot.flip(0))


def test_cutmix_pastes_a_rectangle_and_labels_by_its_area():
    images, targets = batch()
    cut, labels = mixed(1, cutmix=1.0)
    pasted = (cut != images).any(dim=1).float().mean(dim=(1, 2))
    assert 0 < float(pasted[0]) < 1
    assert bool(((cut == images) | (cut == images.flip(0))).all())
    hot = one_hot(targets, 3).float()
    torch.testing.assert_close(labels, (1 - pasted[0]) * hot + pasted[0] * hot.flip(0))


def test_shares_of_mixed_batches_and_of_either_kind():
    images, _ = batch()
    untouched = [bool((mixed(step, mixup=1.0, mix_prob=0.5)[0] == images).all()) for step in range(60)]
    assert 15 < sum(untouched) < 45
    pasted = [
        bool(((cut == images) | (cut == images.flip(0))).all())
        for cut in (mixed(step, mixup=1.0, cutmix=1.0, switch_prob=0.75)[0] for step in range(60))
    ]
    assert 33 < sum(pasted) < 57


def test_what_counts_as_mixing():
    assert not Objective().mixes
    assert Objective(mixup=0.1).mixes
    assert Objective(cutmix=0.1).mixes
    assert not Objective(mixup=0.1, mix_prob=0.0).mixes


LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
TARGETS = torch.tensor([0, 1, 2, 2, 0, 1])


def test_label_smoothing_is_the_formula():
    soft = one_hot(TARGETS, 3) * 0.9 + 0.1 / 3
    expected = -(soft * log_softmax(LOGITS, dim=1)).sum()
    torch.testing.assert_close(label_loss(LOGITS, TARGETS, smoothing=0.1, weights=None), expected)
    torch.testing.assert_close(label_loss(LOGITS, one_hot(TARGETS, 3).float(), smoothing=0.1, weights=None), expected)


def test_class_weights_multiply_the_loss_of_their_class():
    weights = torch.tensor([1.0, 2.0, 0.5])
    each = -log_softmax(LOGITS, dim=1)[torch.arange(6), TARGETS]
    expected = (weights[TARGETS] * each).sum()
    torch.testing.assert_close(label_loss(LOGITS, TARGETS, smoothing=0.0, weights=weights), expected)


def test_right_answers_are_counted_by_the_heaviest_label():
    logits = torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 0, 1]])
    assert int(correct(logits, torch.tensor([0, 0, 2]))) == 2
    assert int(correct(logits, torch.tensor([[0.6, 0.4, 0], [0.4, 0.6, 0], [0.6, 0, 0.4]]))) == 2


TEACHERS = InputSpec(size=32, mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
OURS = InputSpec(size=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    torch.manual_seed(0)
    module = build(architecture("resnet18"), classes=3)
    manifest = Manifest(
        name="teacher", architecture="resnet18", input=TEACHERS, labels=LABELS, trained=True, source="a test",
        license="apache-2.0",
    )  # fmt: skip
    with Bundle.creating(tmp_path / "teacher", manifest) as bundle:
        save_weights(bundle, module, made_by="a test")
    return Bundle.open(tmp_path / "teacher")


def test_a_teacher_sees_its_own_normalisation(teacher):
    same_size = InputSpec(size=32, mean=OURS.mean, std=OURS.std)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    logits = load_teacher("teacher", LABELS, same_size, Objective()).logits(Normalise(same_size)(pixels))
    with torch.no_grad():
        expected = load_module(teacher)(Normalise(TEACHERS)(pixels))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def test_a_teacher_sees_its_own_input_size(teacher):
    pixels = torch.randint(0, 256, (2, 48, 48, 3), dtype=torch.uint8)
    logits = load_teacher("teacher", LABELS, OURS, Objective()).logits(Normalise(OURS)(pixels))
    small = interpolate(Normalise(TEACHERS)(pixels), size=(32, 32), mode="bicubic", antialias=True)
    with torch.no_grad():
        expected = load_module(teacher)(small)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def test_a_teacher_is_not_trained(teacher):
    loaded = load_teacher("teacher", LABELS, OURS, Objective())
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert not loaded.module.training


TEACHER_LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))


def distilled_loss(teacher_share, **options):
    config = Objective(teacher="teacher", teacher_share=teacher_share, **options)
    targets = Targets(
        smoothing=0.0, teacher=load_teacher("teacher", LABELS, OURS, config), teacher_share=config.teacher_share
    )
    return targets.loss(LOGITS, TARGETS, TEACHER_LOGITS)


def test_soft_distillation_is_the_scaled_divergence(teacher):
    theirs, ours = (torch.softmax(values / 2, dim=1) for values in (TEACHER_LOGITS, LOGITS))
    divergence = 4 * (theirs * (theirs / ours).log()).sum()
    torch.testing.assert_close(distilled_loss(1.0, teacher_temperature=2.0), divergence)
    labels = label_loss(LOGITS, TARGETS, smoothing=0.0, weights=None)
    torch.testing.assert_close(distilled_loss(0.25, teacher_temperature=2.0), 0.75 * labels + 0.25 * divergence)


def test_hard_distillation_takes_the_teacher_s_decisions_for_labels(teacher):
    decided = label_loss(LOGITS, TEACHER_LOGITS.argmax(dim=1), smoothing=0.0, weights=None)
    torch.testing.assert_close(distilled_loss(1.0, distillation="hard"), decided)
    torch.testing.assert_close(
        distilled_loss(0.0, distillation="hard"), label_loss(LOGITS, TARGETS, smoothing=0.0, weights=None)
    )


def test_a_teacher_of_other_classes_is_refused(teacher):
    with pytest.raises(HalftoneError, match=r"--teacher teacher has the classes cat, dog, emu.*, and the data has ant"):
        load_teacher("teacher", ("ant", "bee"), OURS, Objective())
    with pytest.raises(HalftoneError, match="missing"):
        load_teacher("missing", LABELS, OURS, Objective())
