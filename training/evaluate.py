"""`python -m training.evaluate --model NAME --data DIR`: metrics of trained models and of their ensemble.

    python -m training.evaluate --model photos --data photos
    python -m training.evaluate --model photos --model photos_vit --data photos --output both.json --report both

The command prints accuracy with its 95 % interval, top-5 accuracy, calibration error and per-class metrics, and writes
them as JSON. It measures what serving promises on pictures that fitted none of it, with `--foreign DIR` also on
pictures of another kind. It evaluates several models separately and as an ensemble, whose probabilities are the mean of
theirs. It runs the FP32 checkpoints only; `python -m export.parity` evaluates exported variants. 10,000 images at 64 px
with efficientnet_lite0 take about 20 s on two cores.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from models.bundle.bundle import Bundle
from models.bundle.promises import read_promises
from models.bundle.store import open_bundle
from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.statistics import Probabilities, mcnemar_p, softmax
from models.common.text import printable
from models.dataset import is_picture
from models.spec import InputSpec
from training.config.columns import Columns
from training.config.train import check_workers
from training.data.pictures import Pictures
from training.data.subsets import SelectedPictures
from training.evaluation.leakage import Part, check_same_classes, choose_pictures
from training.evaluation.metrics import classification_metrics, in_best
from training.evaluation.promises import in_words, measure, measure_foreign, measure_on_half

if TYPE_CHECKING:
    import torch

Logits = npt.NDArray[np.float32]

PROG = "python -m training.evaluate"
HARDEST = 5


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JsonOutput):
    """Evaluate the FP32 checkpoints of bundles on labelled pictures.

    `python -m export.parity --model NAME --variant V --data DIR` evaluates exported variants.
    """

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Bundle under artifacts/; several (`--model A --model B`) are also evaluated as an ensemble."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME, with the model's class names."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    part: Part = "auto"
    """`val`: the held-out pictures. `test`: those that training left alone. `all`: every picture. `auto`: `val` if the
    data has such a part or the model was trained on this very data, else every picture. All but `all` exclude the
    training pictures of the models."""

    output: Path = Path("evaluation.json")
    """JSON file for the metrics."""

    report: Path | None = None
    """Folder for an HTML report; default: no report."""

    batch: int = 64
    """Pictures per forward pass."""

    workers: int | None = None
    """Processes that read pictures; default: one per core, at most 16."""

    foreign: Path | None = None
    """Folder of pictures that are unlike those of the model: how well each model notices them is measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses a GPU if there is one."""

    max_corrupt_share: float = 0.01
    """Largest share of unreadable pictures; above it, the evaluation stops."""

    def __post_init__(self) -> None:
        if not self.model:
            raise HalftoneError(f"--model is missing: name a bundle, as in `{PROG} --model photos --data photos`")
        if len(set(self.model)) != len(self.model):
            raise HalftoneError("the same --model is given twice: an ensemble needs different ones")
        if self.output.is_dir():
            raise HalftoneError(f"--output {self.output} is a folder: name a file, such as evaluation.json")
        if self.foreign is not None and not self.foreign.is_dir():
            raise HalftoneError(f"--foreign {self.foreign}: no such folder; it must contain pictures")
        if self.batch < 1:
            raise HalftoneError(f"--batch must be 1 or more, not {self.batch}")
        check_workers(self.workers)
        if not 0 <= self.max_corrupt_share <= 1:
            raise HalftoneError(f"--max-corrupt-share must lie in [0, 1], not {self.max_corrupt_share}")


def evaluate(config: EvaluateConfig, progress: Progress) -> dict[str, Any]:
    """Evaluate every model, and several as an ensemble; write the report if requested.

    Args:
        config: the request.
        progress: shows the progress.

    Returns:
        JSON-ready: `data`, `part`, `excluded_training_pictures`, `pictures`, `warnings`, `unreadable`, `models` (name
        to the result of `classification_metrics`, and `promises`) and, for several models, `pairs` with McNemar's test
        of every two, and `ensemble` with the same metrics and a comparison with its best member. `promises` holds the
        results of `training.evaluation.promises`: `halves` for promises that are fitted on one half and measured on
        the other, `bundle` for those of the bundle unless these images fitted them, and `foreign`.

    Raises:
        HalftoneError: a bundle or the data can't be used, or their classes differ.
    """
    bundles = [open_bundle(name) for name in config.model]
    check_same_classes(bundles)
    choice = choose_pictures(config.data, config.part, bundles, config.table)
    pictures = choice.pictures
    logits, readable = _predict(config, pictures, progress)
    by_model = {
        name: softmax(logits[name], bundle.manifest.temperature)
        for name, bundle in zip(config.model, bundles, strict=True)
    }
    evaluated = SelectedPictures(pictures, np.flatnonzero(readable))
    result: dict[str, Any] = {
        "data": config.data,
        "part": choice.description,
        "excluded_training_pictures": choice.excluded,
        "pictures": len(evaluated),
        "warnings": list(choice.warnings),
        "unreadable": [pictures.name(int(index)) for index in np.flatnonzero(~readable)],
        "models": {
            name: classification_metrics(values, evaluated.targets, evaluated.labels)
            for name, values in by_model.items()
        },
    }
    for name, bundle in zip(config.model, bundles, strict=True):
        result["models"][name]["promises"] = _promises(config, bundle, logits[name], evaluated, choice.chose_the_epoch)
    ensemble = np.mean(list(by_model.values()), axis=0)
    if len(by_model) > 1:
        metrics = classification_metrics(ensemble, evaluated.targets, evaluated.labels)
        result["pairs"] = _pairs(by_model, evaluated.targets)
        result["ensemble"] = metrics | {"against_best_member": _against_best(by_model, ensemble, evaluated.targets)}
    if config.report is not None:
        spec = bundles[0].manifest.input
        promised = result["models"][config.model[0]]["promises"]["halves"] if len(by_model) == 1 else None
        _write_report(
            config.report, config, ensemble, evaluated, spec, choice.description, choice.chose_the_epoch, promised
        )
    return result


def _predict(
    config: EvaluateConfig, pictures: Pictures, progress: Progress
) -> tuple[dict[str, Logits], npt.NDArray[np.bool_]]:
    """Return every model's logits for the readable images, and bool (N,): True for a readable image."""
    # Importing PyTorch takes seconds: requests that can be refused without it are refused first.
    from training.data.batches.loader import default_workers
    from training.data.dataset import CorruptDataError
    from training.evaluation.predict import predict

    by_model, readable = {}, np.ones(len(pictures), dtype=bool)
    try:
        for name in config.model:
            by_model[name], readable_here = predict(
                open_bundle(name),
                pictures,
                batch=config.batch,
                workers=default_workers(1) if config.workers is None else config.workers,
                device=_device(config.device),
                max_corrupt_share=config.max_corrupt_share,
                progress=progress,
            )
            readable &= readable_here
    except CorruptDataError as error:
        check = f"python -m training.data --data {shlex.quote(config.data)} --check"
        raise HalftoneError(f"{error}; `{check}` lists all of them at once") from None
    return {name: values[readable] for name, values in by_model.items()}, readable


def _promises(
    config: EvaluateConfig, bundle: Bundle, logits: Logits, pictures: Pictures, fitted_here: bool
) -> dict[str, Any]:
    """Return how the bundle's promises, and those fitted on one half of the images, hold on the others."""
    temperature, promises = bundle.manifest.temperature, read_promises(bundle)
    result: dict[str, Any] = {
        "halves": measure_on_half(logits, pictures.targets, temperature),
        "bundle": measure(promises, logits, pictures.targets, temperature) if promises and not fitted_here else None,
        "foreign": None,
    }
    if config.foreign is not None:
        from training.evaluation.predict import predict_files

        files = sorted(path for path in config.foreign.rglob("*") if path.is_file() and is_picture(path))
        foreign = predict_files(bundle, files, batch=config.batch, device=_device(config.device))
        result["foreign"] = measure_foreign(promises, logits, foreign)
    return result


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise HalftoneError("--device cuda: this machine has no CUDA GPU that torch can use; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _against_best(
    by_model: dict[str, Probabilities], ensemble: Probabilities, targets: npt.NDArray[np.int64]
) -> dict[str, Any]:
    correct = {name: in_best(values, targets, 1) for name, values in by_model.items()}
    best = max(correct, key=lambda name: int(correct[name].sum()))
    ours = in_best(ensemble, targets, 1)
    return {
        "model": best,
        "top1_difference": float(ours.mean() - correct[best].mean()),
        "mcnemar_p": mcnemar_p(int((correct[best] & ~ours).sum()), int((~correct[best] & ours).sum())),
    }


def _pairs(by_model: dict[str, Probabilities], targets: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Compare every two models on the same images, the more accurate one first."""
    correct = {name: in_best(values, targets, 1) for name, values in by_model.items()}
    order = sorted(correct, key=lambda name: -int(correct[name].sum()))
    return [
        {
            "model": one,
            "other": two,
            "top1_difference": float(correct[one].mean() - correct[two].mean()),
            "mcnemar_p": mcnemar_p(
                int((correct[two] & ~correct[one]).sum()), int((~correct[two] & correct[one]).sum())
            ),
        }
        for one, two in combinations(order, 2)
    ]


def _write_report(
    folder: Path,
    config: EvaluateConfig,
    probabilities: Probabilities,
    pictures: Pictures,
    spec: InputSpec,
    part: str,
    chosen_here: bool,
    promises: dict[str, Any] | None,
) -> None:
    from training.report.page import write_report

    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    title = " + ".join(config.model)
    write_report(
        folder,
        history=[],
        logits=logits,
        targets=pictures.targets,
        labels=pictures.labels,
        pictures=pictures,
        spec=spec,
        calibration=None,
        promises=promises,
        chosen_here=chosen_here,
        title=title,
        config={"model": title, "data": config.data, "part": part},
    )


def _table(result: dict[str, Any]) -> Table:
    title = f"{result['data']}: {result['pictures']:,} pictures, {result['part']}"
    # As text: rich would interpret square brackets in the data's name as markup.
    table = Table(title=Text(printable(title)), title_justify="left")
    for heading in ("model", "top-1", "95 % interval", "top-5", "macro F1", "NLL", "ECE", "by chance"):
        table.add_column(heading, no_wrap=heading != "model")
    rows = result["models"] | ({"ensemble": result["ensemble"]} if "ensemble" in result else {})
    for name, metrics in rows.items():
        top1 = metrics["top1"]
        table.add_row(
            Text(printable(name)),
            f"{top1['value']:.2%}",
            f"{top1['low']:.2%} to {top1['high']:.2%}",
            f"{metrics['top5']['value']:.2%}",
            f"{metrics['macro_f1']:.3f}",
            f"{metrics['nll']:.4f}",
            f"{metrics['ece']:.2%}",
            f"{metrics['ece_by_chance']:.2%}",
        )
    return table


def _hardest(result: dict[str, Any]) -> str:
    """List the classes with the lowest F1 of the ensemble, or of the only model."""
    metrics = result.get("ensemble") or next(iter(result["models"].values()))
    seen = sorted((entry for entry in metrics["classes"] if entry["images"]), key=lambda entry: entry["f1"])
    return "hardest classes: " + ", ".join(
        f"{printable(entry['label'])} (F1 {entry['f1']:.3f} of {_pictures(entry['images'])})"
        for entry in seen[:HARDEST]
    )


def _kept(name: str, promises: dict[str, Any]) -> list[str]:
    """Return lines about the promises of one model."""
    lines = []
    for kind, origin in (("bundle", "the bundle's promises"), ("halves", "promises fitted on half of the pictures")):
        if result := promises[kind]:
            lines.append(f"{printable(name)}, {origin} ({result['fitted_on']:,}), on {result['images']:,} others:")
            lines += [f"  {each}" for each in in_words(result)]
    if foreign := promises["foreign"]:
        flagged = foreign["unfamiliar"]
        share = f", {flagged['value']:.1%} of them flagged as unfamiliar" if flagged else ""
        lines.append(f"{printable(name)}: AUROC {foreign['auroc']:.3f} against {_pictures(foreign['images'])}{share}")
    return lines


def _in_pairs(pair: dict[str, Any]) -> str:
    return (
        f"{printable(pair['model'])} against {printable(pair['other'])}: {100 * pair['top1_difference']:+.2f} points, "
        f"McNemar's p = {pair['mcnemar_p']:.2g}"
    )


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _majority(result: dict[str, Any]) -> str:
    majority = next(iter(result["models"].values()))["majority"]
    return f"always answering {printable(majority['label'])!r} would have a top-1 of {majority['value']:.2%}"


def _main(config: EvaluateConfig) -> int:
    console = Console(stderr=True)
    # A progress bar that is piped into a file would leave an empty line there.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        result = evaluate(config, progress)
    publish(result)
    write_atomic(config.output, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    Console(width=None if sys.stdout.isatty() else 120).print(_table(result))
    print(_hardest(result))
    print(_majority(result))
    for pair in result.get("pairs", []):
        print(_in_pairs(pair))
    for name, metrics in result["models"].items():
        print("\n".join(_kept(name, metrics["promises"])))
    for warning in result["warnings"]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    if result["unreadable"]:
        print(f"excluded because they can't be read: {printable(', '.join(result['unreadable']))}")
    print(printable(f"wrote {config.output}" + (f" and {config.report / 'index.html'}" if config.report else "")))
    return DONE


if __name__ == "__main__":
    run(_main, EvaluateConfig, prog=PROG, example="--model photos --data photos")
