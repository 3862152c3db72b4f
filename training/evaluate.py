"""`python -m training.evaluate --model NAME --data DIR`: how good a trained model is, or several together.

    python -m training.evaluate --model photos --data photos
    python -m training.evaluate --model photos --model photos_vit --data photos --output both.json --report both

Accuracy with its 95 % interval, top-5, calibration error and per-class figures are printed and written as JSON. Several
models are judged alone and as an ensemble, whose probabilities are the mean of theirs. Only the FP32 checkpoints are
run: what is exported from them is judged by `python -m export.parity`. 10,000 pictures at 64 px with efficientnet_lite0
take about 20 s on two cores.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from models.bundle.store import open_bundle
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.statistics import Probabilities, mcnemar_p
from models.spec import InputSpec
from training.data.pictures import Pictures
from training.data.subsets import SelectedPictures
from training.evaluation.leakage import Part, check_same_classes, choose_pictures
from training.evaluation.metrics import classification_metrics, in_best

if TYPE_CHECKING:
    import torch

PROG = "python -m training.evaluate"
HARDEST = 5


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Judge the FP32 checkpoints of bundles on labelled pictures.

    Exported variants are judged by `python -m export.parity --model NAME --variant V --data DIR`.
    """

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Bundle under artifacts/; several (`--model A --model B`) are also judged as an ensemble."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME; its classes must bear the model's names."""

    part: Part = "auto"
    """`val`: the held-out pictures; `all`: every picture; `auto`: `val` where the data has such a part or the model was
    trained on this very data, else every picture. Pictures that a model has learnt are left out, but for `all`."""

    output: Path = Path("evaluation.json")
    """Where every figure goes."""

    report: Path | None = None
    """Folder for an HTML report on these pictures."""

    batch: int = 64
    """Pictures per forward pass."""

    workers: int | None = None
    """Processes that read pictures; default one a core, at most 16."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    max_corrupt_share: float = 0.01
    """Share of unreadable pictures above which the evaluation stops."""

    def __post_init__(self) -> None:
        if not self.model:
            raise HalftoneError(f"--model is missing: name a bundle, as in `{PROG} --model photos --data photos`")
        if len(set(self.model)) != len(self.model):
            raise HalftoneError("the same --model is given twice: an ensemble needs different ones")
        if self.batch < 1:
            raise HalftoneError(f"--batch must be 1 or more, not {self.batch}")
        if self.workers is not None and self.workers < 0:
            raise HalftoneError(f"--workers must be 0 or more, not {self.workers}")
        if not 0 <= self.max_corrupt_share <= 1:
            raise HalftoneError(f"--max-corrupt-share must lie in [0, 1], not {self.max_corrupt_share}")


def evaluate(config: EvaluateConfig, progress: Progress) -> dict[str, Any]:
    """Judge every model, and several as an ensemble; writes the report if one is asked for.

    Args:
        config: the request.
        progress: where to show how far it is.

    Returns:
        JSON-ready: `data`, `part`, `left_out_as_learnt`, `pictures`, `unreadable`, `models` (name to the figures of
        `training.evaluation.metrics.classification_metrics`) and, for several, `ensemble` with the same figures and the comparison with its best
        member.

    Raises:
        HalftoneError: a bundle or the data can't be used, or their classes differ.
    """
    bundles = [open_bundle(name) for name in config.model]
    check_same_classes(bundles)
    choice = choose_pictures(config.data, config.part, bundles)
    pictures = choice.pictures
    given, readable = _ask(config, pictures, progress)
    judged = SelectedPictures(pictures, np.flatnonzero(readable))
    result: dict[str, Any] = {
        "data": config.data,
        "part": choice.what,
        "left_out_as_learnt": choice.learnt,
        "pictures": len(judged),
        "unreadable": [pictures.name(int(index)) for index in np.flatnonzero(~readable)],
        "models": {
            name: classification_metrics(values, judged.targets, judged.labels) for name, values in given.items()
        },
    }
    together = np.mean(list(given.values()), axis=0)
    if len(given) > 1:
        figures = classification_metrics(together, judged.targets, judged.labels)
        result["ensemble"] = figures | {"against_best_member": _against_best(given, together, judged.targets)}
    if config.report is not None:
        _write_report(config.report, config, together, judged, bundles[0].manifest.input)
    return result


def _ask(
    config: EvaluateConfig, pictures: Pictures, progress: Progress
) -> tuple[dict[str, Probabilities], npt.NDArray[np.bool_]]:
    """Every model's probabilities for the pictures that could be read, and which those are."""
    # Imported here, as it takes seconds, after what can be refused without PyTorch.
    from training.data.loader import default_workers
    from training.evaluation.predict import probabilities

    answers, readable = {}, np.ones(len(pictures), dtype=bool)
    for name in config.model:
        answers[name], could = probabilities(
            open_bundle(name),
            pictures,
            batch=config.batch,
            workers=default_workers(1) if config.workers is None else config.workers,
            device=_device(config.device),
            max_corrupt_share=config.max_corrupt_share,
            progress=progress,
        )
        readable &= could
    return {name: values[readable] for name, values in answers.items()}, readable


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise HalftoneError("--device cuda: torch finds no GPU here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _against_best(
    given: dict[str, Probabilities], together: Probabilities, targets: npt.NDArray[np.int64]
) -> dict[str, Any]:
    right = {name: in_best(values, targets, 1) for name, values in given.items()}
    best = max(right, key=lambda name: int(right[name].sum()))
    ours = in_best(together, targets, 1)
    return {
        "model": best,
        "top1_difference": float(ours.mean() - right[best].mean()),
        "mcnemar_p": mcnemar_p(int((right[best] & ~ours).sum()), int((~right[best] & ours).sum())),
    }


def _write_report(
    folder: Path, config: EvaluateConfig, together: Probabilities, judged: Pictures, spec: InputSpec
) -> None:
    from training.report.page import write_report

    # They are calibrated already: as logits they need no temperature any more.
    logits = np.log(np.maximum(together, np.finfo(np.float32).tiny)).astype(np.float32)
    title = " + ".join(config.model)
    write_report(
        folder,
        history=[],
        logits=logits,
        targets=judged.targets,
        labels=judged.labels,
        pictures=judged,
        spec=spec,
        temperature=1.0,
        fitted_here=False,
        title=title,
        config={"model": title, "data": config.data},
    )


def _table(result: dict[str, Any]) -> Table:
    title = f"{result['data']}: {result['pictures']:,} pictures, {result['part']}"
    # As text: what the user calls the data may hold square brackets, which are rich's markup.
    table = Table(title=Text(title), title_justify="left")
    for heading in ("model", "top-1", "95 % interval", "top-5", "macro F1", "NLL", "ECE"):
        table.add_column(heading, no_wrap=heading != "model")
    rows = result["models"] | ({"ensemble": result["ensemble"]} if "ensemble" in result else {})
    for name, figures in rows.items():
        top1 = figures["top1"]
        table.add_row(
            Text(name),
            f"{top1['value']:.2%}",
            f"{top1['low']:.2%} to {top1['high']:.2%}",
            f"{figures['top5']['value']:.2%}",
            f"{figures['macro_f1']:.3f}",
            f"{figures['nll']:.4f}",
            f"{figures['ece']:.2%}",
        )
    return table


def _hardest(result: dict[str, Any]) -> str:
    """The classes with the lowest F1 of the ensemble, or of the one model."""
    figures = result.get("ensemble") or next(iter(result["models"].values()))
    seen = sorted((entry for entry in figures["classes"] if entry["images"]), key=lambda entry: entry["f1"])
    return "hardest classes: " + ", ".join(f"{entry['label']} (F1 {entry['f1']:.3f})" for entry in seen[:HARDEST])


def _main(config: EvaluateConfig) -> int:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = evaluate(config, progress)
    write_atomic(config.output, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    Console(width=None if sys.stdout.isatty() else 120).print(_table(result))
    print(_hardest(result))
    if result["unreadable"]:
        print(f"left out, unreadable: {', '.join(result['unreadable'])}")
    print(f"wrote {config.output}" + (f" and {config.report / 'index.html'}" if config.report else ""))
    return DONE


if __name__ == "__main__":
    run(_main, EvaluateConfig, prog=PROG)
