import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.manifest import Manifest
from models.bundle.promises import fit_promises, write_promises
from models.catalog import architecture
from models.checkpoint import build, load_module, save_weights
from models.common.conformal import quantile, set_sizes
from models.common.errors import HalftoneError
from models.common.statistics import softmax
from models.dataset import TRAINING_PICTURES, training_digests
from models.graph import ServingGraph
from models.preprocess.transform import fit
from models.spec import InputSpec
from tests import commands
from tests.training.memory import crops
from tests.training.runs import TINY, run
from tests.training.samples import class_folders, png
from training.__main__ import _summary
from training.data.check.duplicates import digests
from training.data.load import load_data
from training.evaluate import EvaluateConfig, evaluate
from training.evaluation.leakage import encoded_digests

SPEC = InputSpec(size=32)
HELD_OUT = "the pictures that training held out, and that chose its epoch and temperature"


def make_bundle(
    folder: Path, name: str, *, labels=("cat", "dog", "emu"), seed=0, training=None, temperature=1.0, trained_on=None
) -> Bundle:
    torch.manual_seed(seed)
    module = build(architecture("mobilenetv3_small"), classes=len(labels))
    manifest = Manifest(
        name=name, architecture="mobilenetv3_small", input=SPEC, labels=labels, trained=True, source="a test",
        license="apache-2.0", training=training or {}, temperature=temperature,
    )  # fmt: skip
    with Bundle.creating(folder / name, manifest) as bundle:
        save_weights(bundle, module, made_by="a test")
        if trained_on is not None:
            bundle.write(TRAINING_PICTURES, encoded_digests(trained_on), made_by="a test", made_from=[WEIGHTS])
    return bundle


@pytest.fixture
def artifacts(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture
def photos(tmp_path) -> Path:
    class_folders(tmp_path / "photos" / "train", {"cat": 2, "dog": 2, "emu": 2})
    class_folders(tmp_path / "photos" / "val", {"cat": 4, "dog": 4, "emu": 4}, first_seed=50)
    return tmp_path / "photos"


@pytest.fixture
def undivided(tmp_path) -> Path:
    return class_folders(tmp_path / "undivided", {"cat": 10, "dog": 10, "emu": 10})


def evaluated(*names: str, data: Path, **options) -> dict:
    config = EvaluateConfig(model=names, data=str(data), workers=0, device="cpu", **options)
    with Progress(disable=True) as progress:
        return evaluate(config, progress)


def reference(bundle: Bundle, pictures, order=None) -> np.ndarray:
    pixels = np.stack([fit(pictures.read(index), SPEC) for index in range(len(pictures))])
    graph = ServingGraph(load_module(bundle), SPEC).eval()
    with torch.inference_mode():
        logits = graph(torch.from_numpy(pixels)).numpy()
    return softmax(logits if order is None else logits[:, order], bundle.manifest.temperature)


def test_one_model(artifacts, photos, tmp_path):
    bundle = make_bundle(artifacts, "one", temperature=2.0)
    result = evaluated("one", data=photos)
    val = load_data(str(photos)).val
    expected = (reference(bundle, val).argmax(axis=1) == val.targets).mean()
    assert (result["pictures"], result["excluded_training_pictures"]) == (12, 0)
    assert result["part"] == "the held-out part of the data (the training pictures of one are not recorded)"
    assert result["models"]["one"]["top1"]["value"] == pytest.approx(expected)
    assert result["models"]["one"]["top5"]["value"] == 1
    assert result["models"]["one"]["promises"]["bundle"] is None
    assert result["models"]["one"]["promises"]["halves"]["images"] == 6
    assert "ensemble" not in result


def test_an_ensemble_averages_probabilities_class_by_class(artifacts, photos):
    one = make_bundle(artifacts, "one", seed=1, temperature=0.01)
    two = make_bundle(artifacts, "two", labels=("emu", "cat", "dog"), seed=2, temperature=0.02)
    result = evaluated("one", "two", data=photos)
    val = load_data(str(photos)).val
    mean = (reference(one, val) + reference(two, val, order=[1, 2, 0])) / 2
    assert result["ensemble"]["top1"]["value"] == pytest.approx((mean.argmax(axis=1) == val.targets).mean())
    true = mean[np.arange(len(val)), val.targets]
    assert result["ensemble"]["nll"] == pytest.approx(-np.log(np.maximum(true, 1e-300)).mean(), rel=1e-3)
    best = result["ensemble"]["against_best_member"]
    assert best["model"] in ("one", "two")
    assert 0 <= best["mcnemar_p"] <= 1
    (pair,) = result["pairs"]
    tops = [result["models"][pair[role]]["top1"]["value"] for role in ("model", "other")]
    assert {pair["model"], pair["other"]} == {"one", "two"}
    assert pair["top1_difference"] == pytest.approx(tops[0] - tops[1])
    assert pair["top1_difference"] >= 0
    assert 0 <= pair["mcnemar_p"] <= 1


def test_the_data_may_have_fewer_classes_than_the_model(artifacts, tmp_path):
    make_bundle(artifacts, "wide", labels=("zebra", "emu", "dog", "cat"))
    data = class_folders(tmp_path / "fewer", {"cat": 3, "dog": 3})
    result = evaluated("wide", data=data)
    entries = {entry["label"]: entry["images"] for entry in result["models"]["wide"]["classes"]}
    assert entries == {"zebra": 0, "emu": 0, "dog": 3, "cat": 3}


def test_a_model_of_unknown_training_is_evaluated_on_all_data(artifacts, undivided):
    make_bundle(artifacts, "one")
    assert evaluated("one", data=undivided)["pictures"] == 30
    assert evaluated("one", data=undivided, part="val")["pictures"] == 6


def training_on(location: Path, **how) -> dict:
    data = load_data(str(location), **how)
    return {"config": how, "data": {"fingerprint": data.fingerprint()}}


def test_a_model_is_evaluated_on_the_held_out_part_of_its_own_data(artifacts, undivided):
    make_bundle(artifacts, "one", training=training_on(undivided, val_share=0.3, seed=5, limit=None))
    result = evaluated("one", data=undivided)
    assert (result["pictures"], result["part"]) == (9, HELD_OUT)


def test_models_trained_on_different_splits_are_not_compared(artifacts, undivided):
    for seed, name in enumerate(("one", "two")):
        make_bundle(artifacts, name, training=training_on(undivided, val_share=0.3, seed=seed, limit=None))
    with pytest.raises(HalftoneError, match="trained on different splits"):
        evaluated("one", "two", data=undivided)
    assert evaluated("one", "two", data=undivided, part="all")["pictures"] == 30


def make_trained(folder: Path, name: str, location: Path, **how) -> Bundle:
    split = {"val_share": 0.3, "seed": 5, "limit": None} | how
    return make_bundle(
        folder, name, training=training_on(location, **split), trained_on=load_data(str(location), **split).train
    )


def test_training_pictures_are_excluded_from_data_that_has_changed(artifacts, undivided):
    make_trained(artifacts, "one", undivided)
    trained = load_data(str(undivided), val_share=0.3, seed=5).train
    (undivided / trained.name(0)).rename(undivided / "cat" / "renamed.png")
    (undivided / trained.name(1)).unlink()
    (undivided / "dog" / "new.png").write_bytes(png(99))
    result = evaluated("one", data=undivided)
    # 21 of the 30 pictures were training pictures: one of them is gone, and a new picture is there.
    assert (result["pictures"], result["excluded_training_pictures"]) == (10, 20)
    assert result["part"] == "all pictures, without 20 training pictures"
    result = evaluated("one", data=undivided, part="val")
    assert result["pictures"] + result["excluded_training_pictures"] == 9
    assert evaluated("one", data=undivided, part="all")["pictures"] == 30


def test_all_pictures_include_those_that_a_model_was_trained_on_and_that_is_said(artifacts, undivided, tmp_path):
    trained = make_trained(artifacts, "one", undivided)
    make_bundle(artifacts, "two")
    result = evaluated("one", "two", data=undivided, part="all")
    unknown = " (the training pictures of two are not recorded)"
    assert result["part"] == f"all pictures, 21 training pictures among them{unknown}"
    assert result["warnings"] == [
        "21 of the 30 pictures are among those that one was trained on, so its figures flatter it: omit --part all to "
        "leave them out"
    ]
    assert evaluated("one", data=undivided)["pictures"] == 9
    new = class_folders(tmp_path / "new", {"cat": 2, "dog": 2, "emu": 2}, first_seed=500)
    assert evaluated("one", data=new, part="all")["warnings"] == []
    seen = load_data(str(undivided), val_share=0.3, seed=5).train
    for index in range(len(seen)):
        target = tmp_path / "seen" / seen.name(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((undivided / seen.name(index)).read_bytes())
    (told,) = evaluated("one", data=tmp_path / "seen", part="all")["warnings"]
    assert told.endswith("flatter it: name other pictures with --data")
    assert len(training_digests(trained)) == 21


def test_a_model_without_recorded_training_pictures_is_evaluated_on_its_split(artifacts, undivided):
    make_bundle(artifacts, "one", training=training_on(undivided, val_share=0.3, seed=5, limit=None))
    (undivided / "dog" / "new.png").write_bytes(png(99))
    result = evaluated("one", data=undivided)
    assert result["pictures"] == 9
    assert result["part"] == (
        "the part that the model's --val-share and --seed hold out (the training pictures of one are not recorded)"
    )


def test_held_out_pictures_may_have_the_names_of_training_pictures(artifacts, photos):
    make_trained(artifacts, "one", photos)
    (photos / "train" / "cat" / "new.png").write_bytes(png(99))
    (photos / "val" / "cat" / "copy.png").write_bytes(png(0))
    result = evaluated("one", data=photos)
    assert (result["pictures"], result["excluded_training_pictures"]) == (12, 1)


def test_no_member_of_an_ensemble_is_evaluated_on_its_training_pictures(artifacts, undivided, tmp_path):
    make_trained(artifacts, "one", undivided)
    few = class_folders(tmp_path / "few", {"cat": 4, "dog": 4, "emu": 4})
    for file in (undivided / "emu").iterdir():
        (few / "emu" / file.name).write_bytes(file.read_bytes())
    make_trained(artifacts, "two", few)
    pictures = load_data(str(undivided), val_share=0.3, seed=5).val
    trained = load_data(str(few), val_share=0.3, seed=5).train
    twice = {pictures.digest(i) for i in range(9)} & {trained.digest(i) for i in range(len(trained))}
    assert twice
    result = evaluated("one", "two", data=undivided)
    assert (result["pictures"], result["excluded_training_pictures"]) == (9 - len(twice), len(twice))
    assert result["part"].startswith(f"{HELD_OUT}, without")


def test_data_of_training_pictures_only_is_refused(artifacts, undivided, tmp_path):
    make_trained(artifacts, "one", undivided)
    trained = load_data(str(undivided), val_share=0.3, seed=5).train
    for index in range(len(trained)):
        target = tmp_path / "seen" / trained.name(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((undivided / trained.name(index)).read_bytes())
    with pytest.raises(HalftoneError, match=r"were trained on every picture of --data .*seen .* or .*--part all"):
        evaluated("one", data=tmp_path / "seen")


def test_training_records_the_hashes_of_its_pictures(tmp_path):
    bundle = run(tmp_path / "crops", replace(TINY, epochs=1), data=crops(train=16, val=8))
    pictures = crops(train=16, val=8).train
    assert np.array_equal(training_digests(bundle), np.unique(digests(pictures)))
    assert len(training_digests(bundle)) == 16
    assert list(bundle.manifest.files[TRAINING_PICTURES].made_from) == [WEIGHTS]


def test_square_brackets_in_the_data_s_name_are_shown(artifacts, photos, tmp_path):
    make_bundle(artifacts, "one")
    data = photos.rename(tmp_path / "[bold]photos")
    result = commands.run("training.evaluate", "--model", "one", "--data", data.name, "--workers", "0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "[bold]photos: 12 pictures" in result.stdout


def test_broken_pictures_are_left_out_and_named(artifacts, photos):
    make_bundle(artifacts, "one")
    (photos / "val" / "dog" / "001.png").write_bytes(b"no picture")
    result = evaluated("one", data=photos)
    assert (result["pictures"], result["unreadable"]) == (11, ["dog/001.png"])
    (photos / "val" / "dog" / "002.png").write_bytes(b"no picture")
    with pytest.raises(HalftoneError, match="2 of 12 pictures can't be read"):
        evaluated("one", data=photos)


def test_classes_that_the_model_does_not_have(artifacts, photos):
    make_bundle(artifacts, "one", labels=("cat", "dog"))
    with pytest.raises(HalftoneError, match="the class 'emu', which one does not have"):
        evaluated("one", data=photos)


def test_models_of_different_classes(artifacts, photos):
    make_bundle(artifacts, "one")
    make_bundle(artifacts, "two", labels=("cat", "dog"))
    with pytest.raises(HalftoneError, match="one and two have different classes"):
        evaluated("one", "two", data=photos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ()}, "--model is missing"),
        ({"model": ("a", "a")}, "given twice"),
        ({"model": ("a",), "batch": 0}, "--batch"),
        ({"model": ("a",), "workers": -1}, "--workers"),
        ({"model": ("a",), "max_corrupt_share": 2.0}, "--max-corrupt-share"),
    ],
)
def test_unusable_requests(options, message):
    with pytest.raises(HalftoneError, match=message):
        EvaluateConfig(data="photos", **options)


def test_the_command_writes_json_and_a_report(artifacts, photos, tmp_path):
    make_bundle(artifacts, "one", seed=1)
    make_bundle(artifacts, "two", seed=2)
    output, report = tmp_path / "both.json", tmp_path / "report"
    options = ("--data", photos, "--output", output, "--report", report, "--workers", "0", "--json")
    result = commands.run("training.evaluate", "--model", "one", "--model", "two", *options)
    assert result.returncode == 0, result.stderr
    assert "ensemble" in result.stderr
    assert re.search(r"hardest classes: (\w+ \(F1 \d\.\d{3} of 4 pictures\)(, )?){3}\n", result.stderr)
    assert "by chance" in result.stderr
    assert "chose the epoch" not in result.stderr
    assert json.loads(result.stdout) == json.loads(output.read_text())
    assert set(json.loads(result.stdout)["models"]) == {"one", "two"}
    assert "one + two" in (report / "index.html").read_text()


def test_the_accuracy_on_pictures_that_chose_the_epoch_is_said_to_flatter(artifacts, photos, tmp_path):
    make_trained(artifacts, "one", photos)
    options = ("--data", photos, "--output", tmp_path / "one.json", "--report", tmp_path, "--workers", "0")
    result = commands.run("training.evaluate", "--model", "one", *options)
    assert result.returncode == 0, result.stderr
    assert (
        "warning: these pictures chose the epoch and the temperature, so the figures are a little too" in result.stderr
    )
    page = (tmp_path / "index.html").read_text()
    assert "also chose the epoch and the temperature" in page
    assert "nothing was fitted" not in page


def test_the_help_names_the_command_for_exported_variants():
    result = commands.run("training.evaluate", "--help")
    assert result.returncode == 0
    assert "python -m export.parity" in " ".join(result.stdout.split())


def test_the_test_part_is_evaluated_on_if_asked_for(artifacts, photos):
    class_folders(photos / "Test", {"cat": 1, "dog": 2}, first_seed=200)
    (photos / "Test" / "dog" / "seen.png").write_bytes(png(0))
    make_trained(artifacts, "one", photos)
    assert evaluated("one", data=photos)["part"] == HELD_OUT
    result = evaluated("one", data=photos, part="test")
    assert (result["pictures"], result["excluded_training_pictures"]) == (3, 1)
    assert result["part"] == "the part test of the data, without 1 training pictures"
    assert result["models"]["one"]["majority"] == {"label": "dog", "value": pytest.approx(2 / 3)}
    assert evaluated("one", data=photos, part="all")["pictures"] == 6 + 12 + 4
    (photos / "val").rename(photos / "extra")
    with pytest.raises(HalftoneError, match="has no test part beside its training and validation parts"):
        evaluated("one", data=photos, part="test")


@pytest.mark.parametrize("part", ["auto", "val", "all"])
def test_a_folder_with_only_a_validation_part_is_evaluated_on(artifacts, tmp_path, part):
    make_bundle(artifacts, "one")
    class_folders(tmp_path / "new" / "val", {"cat": 1, "dog": 3})
    result = evaluated("one", data=tmp_path / "new", part=part)
    assert [entry["images"] for entry in result["models"]["one"]["classes"]] == [1, 3, 0]


def test_a_folder_with_only_held_out_parts(artifacts, tmp_path):
    make_bundle(artifacts, "one")
    class_folders(tmp_path / "new" / "Test", {"dog": 2, "emu": 3})
    for part in ("auto", "test", "all"):
        assert evaluated("one", data=tmp_path / "new", part=part)["pictures"] == 5
    with pytest.raises(HalftoneError, match="has no validation part, and can't be split into one: omit --part val"):
        evaluated("one", data=tmp_path / "new", part="val")

    class_folders(tmp_path / "new" / "valid", {"cat": 4}, first_seed=50)
    counts = {part: evaluated("one", data=tmp_path / "new", part=part)["pictures"] for part in ("auto", "test", "all")}
    assert counts == {"auto": 4, "test": 5, "all": 9}

    class_folders(tmp_path / "new" / "cat", {"inner": 1})
    with pytest.raises(HalftoneError, match=r"new has Test/ but no train/: name \S+Test with --data to evaluate on it"):
        evaluated("one", data=tmp_path / "new")


@pytest.mark.parametrize("how", [{}, {"val_share": 0.3, "seed": 5, "limit": None}])
def test_one_picture_of_each_class_is_evaluated_on(artifacts, tmp_path, undivided, how):
    make_bundle(artifacts, "one", training=training_on(undivided, **how) if how else None)
    data = class_folders(tmp_path / "single", {"cat": 1, "dog": 1, "emu": 1})
    for part in ("auto", "all"):
        result = evaluated("one", data=data, part=part)
        assert (result["pictures"], result["warnings"]) == (3, [])
        assert result["part"].startswith("all pictures")
    with pytest.raises(HalftoneError, match="omit --part val"):
        evaluated("one", data=data, part="val")

    table = tmp_path / "single.csv"
    table.write_text("path,label\n" + "".join(f"single/{name}/000.png,{name}\n" for name in ("cat", "dog", "emu")))
    assert evaluated("one", data=table)["pictures"] == 3


def test_figures_of_one_picture_have_no_minus_before_a_zero(artifacts, tmp_path):
    make_bundle(artifacts, "one", temperature=0.001)
    data = class_folders(tmp_path / "single", {"cat": 1, "dog": 1, "emu": 1})
    options = ("--output", tmp_path / "one.json", "--report", tmp_path / "r", "--workers", "0")
    result = commands.run("training.evaluate", "--model", "one", "--data", data, *options)
    assert result.returncode == 0, result.stderr
    texts = result.stdout, (tmp_path / "one.json").read_text(), (tmp_path / "r" / "metrics.json").read_text()
    assert not any(re.search(r"(?<![\w.])-0(\.0+)?(?![\d.e])", text) for text in texts)
    assert re.search(r"\(F1 \d\.\d{3} of 1 picture\)", result.stdout)


def test_what_the_data_s_reader_left_out_is_said(artifacts, photos, tmp_path):
    make_bundle(artifacts, "one")
    (photos / "val" / "cat" / "x.gif").write_bytes(b"GIF89a")
    options = ("--output", tmp_path / "one.json", "--workers", "0")
    result = commands.run("training.evaluate", "--model", "one", "--data", photos, *options)
    assert result.returncode == 0, result.stderr
    assert "warning: 1 files are left out because they are not JPEG, PNG or WebP: val/cat/x.gif (GIF)" in result.stderr
    assert "always answering 'cat' would have a top-1 of 33.33%" in result.stdout


def test_a_test_part_chooses_nothing_and_is_the_headline(artifacts, undivided):
    shares = {"val_share": 0.2, "test_share": 0.3}
    data = load_data(str(undivided), **shares)
    assert (len(data.train), len(data.val), len(data.test)) == (15, 6, 9)
    alone, tested = (
        run(artifacts / name, data=replace(data, test=test), **shares) for name, test in (("a", None), ("b", data.test))
    )

    metrics = tested.manifest.training["metrics"]
    weights = [load_module(bundle).state_dict() for bundle in (alone, tested)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert "test_top1" not in alone.manifest.training["metrics"]
    assert (metrics["test_pictures"], metrics["val_pictures"]) == (9, 6)
    again = evaluated("b", data=undivided, part="test")
    assert again["models"]["b"]["top1"]["value"] == metrics["test_top1"]
    # Their shares are recorded: the part is the same when the data is read again.
    assert (again["pictures"], again["part"]) == (9, "the part test of the data, no training pictures among them")
    summary = _summary(tested, done=False)
    assert f"test top-1 {metrics['test_top1']:.2%} (95 % interval" in summary
    assert "9 test pictures, which chose nothing" in summary
    assert "validation top-1" not in summary
    assert "9 test pictures, which chose nothing" in tested.read("README.md").decode()
    assert "9 test pictures, which chose nothing" in tested.read("report/index.html").decode()


@pytest.mark.parametrize(("share", "message"), [(0.8, "less than 1 with --val-share"), (-0.1, "must be 0 or more")])
def test_shares_that_leave_nothing_to_train_on(undivided, share, message):
    with pytest.raises(HalftoneError, match=message):
        load_data(str(undivided), test_share=share)


def test_data_with_parts_is_not_divided_again(photos):
    with pytest.raises(HalftoneError, match="has parts, so --test-share divides nothing: omit it"):
        load_data(str(photos), test_share=0.2)


def test_promises_of_a_bundle_on_pictures_that_did_not_fit_them(artifacts, photos, tmp_path):
    bundle = make_bundle(artifacts, "one")
    val = load_data(str(photos)).val
    fitted = fit_promises(np.random.default_rng(0).normal(0, 3, (40, 3)), np.zeros(40, dtype=np.int64), 1.0)
    write_promises(bundle, fitted, made_by="a test")
    class_folders(tmp_path / "foreign", {"bus": 3})

    result = evaluated("one", data=photos, foreign=tmp_path / "foreign")["models"]["one"]["promises"]

    sets = result["bundle"]
    assert (sets["images"], sets["fitted_on"], sets["answered"], sets["error"]) == (12, 40, None, None)
    logits = np.log(reference(bundle, val))
    order = np.argsort(-logits, axis=1, kind="stable")
    sizes = set_sizes(np.take_along_axis(np.exp(logits), order, axis=1), quantile(fitted.quantiles, 0.95))
    covered = [target in row[:size] for target, row, size in zip(val.targets, order, sizes, strict=True)]
    assert sets["coverage"]["value"] == pytest.approx(np.mean(covered))
    assert sets["set_size"] == pytest.approx(sizes.mean())
    assert (result["foreign"]["images"], 0 <= result["foreign"]["auroc"] <= 1) == (3, True)


def test_what_becomes_of_promises_is_printed(artifacts, photos, tmp_path):
    make_bundle(artifacts, "one")
    class_folders(tmp_path / "foreign", {"bus": 3})
    (tmp_path / "none").mkdir()
    options = ["--data", photos, "--workers", "0", "--device", "cpu", "--output", tmp_path / "e.json", "--foreign"]

    result = commands.run("training.evaluate", "--model", "one", *options, tmp_path / "foreign")
    empty = commands.run("training.evaluate", "--model", "one", *options, tmp_path / "none")
    missing = commands.run("training.evaluate", "--model", "one", *options, tmp_path / "nowhere")

    assert "one, promises fitted on half of the pictures (6), on 6 others:" in result.stdout
    assert "6 pictures are too few to promise anything" in result.stdout
    assert re.search(r"one: AUROC 0\.\d{3} against 3 pictures|one: AUROC 1\.000", result.stdout)
    assert (empty.returncode, "none of the foreign pictures can be read" in empty.stderr) == (2, True)
    assert (missing.returncode, "no such folder" in missing.stderr) == (2, True)
