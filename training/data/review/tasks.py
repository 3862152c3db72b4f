"""Tasks for Label Studio: collected pictures in the order that teaches most, with the model's answer as suggestion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from models.bundle.store import has_bundle, open_bundle
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.preprocess.collected import Answer, collected_pictures, read_answer
from models.preprocess.decode import decode
from training.data.review.order import spread_order, uncertainty

PICTURES = "pictures"
"""Folder beside the tasks with copies of the pictures: the server's folder deletes its own after a while."""

SERVED = "/data/local-files/?d="
"""Beginning of the address at which Label Studio serves the files below its LOCAL_FILES_DOCUMENT_ROOT."""

POOL = 5
"""Features are computed of this many times as many pictures as are wanted, the most uncertain ones."""

CONTROL, OBJECT = "label", "image"
"""Names in the labelling interface."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    tasks: int
    collected: int
    """Pictures in the folder."""

    labels: tuple[str, ...]
    """Classes that annotators choose from."""


def write_tasks(folder: Path, file: Path, *, most: int) -> Written:
    """Write tasks, the labelling interface beside them as `.xml`, and copies of the pictures.

    Args:
        folder: of collected pictures.
        file: JSON, to be imported into a project of Label Studio.
        most: tasks.

    Raises:
        HalftoneError: there is no such folder, it has no collected pictures, or `file` exists.
    """
    answers = {path: read_answer(path) for path in collected_pictures(folder)}
    if not answers:
        raise HalftoneError(f"{folder} holds no collected pictures: name the folder of HALFTONE_COLLECT")
    if file.exists():
        raise HalftoneError(f"{file} exists, and may be labelled already: name another file with --to")
    chosen = _chosen(answers, most)
    (file.parent / PICTURES).mkdir(parents=True, exist_ok=True)
    for path in chosen:
        shutil.copyfile(path, file.parent / PICTURES / path.name)
    labels = _labels(list(answers.values()))
    write_atomic(file.with_suffix(".xml"), _interface(labels).encode())
    tasks = [_task(path.name, answers[path]) for path in chosen]
    write_atomic(file, (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode())
    return Written(tasks=len(tasks), collected=len(answers), labels=labels)


def _chosen(answers: dict[Path, Answer], most: int) -> list[Path]:
    # Imported here: it needs PyTorch, which takes seconds to load.
    from training.data.check.features import Extractor

    pool = sorted(answers, key=lambda path: -uncertainty(answers[path]))[: POOL * most]
    extractor = Extractor()
    for path in pool:
        extractor.add(decode(path.read_bytes()))
    uncertain = np.array([uncertainty(answers[path]) for path in pool])
    return [pool[index] for index in spread_order(uncertain, extractor.components(), most=most)]


def _labels(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Return the classes of the models that answered; of a model that is not here, those that it answered."""
    known = {
        label
        for model in {answer.model for answer in answers}
        if has_bundle(model)
        for label in open_bundle(model).manifest.labels
    }
    return tuple(sorted(known | {label for answer in answers for label, _ in answer.predictions}))


def _interface(labels: Sequence[str]) -> str:
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Image name="{OBJECT}" value="${OBJECT}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{OBJECT}" choice="single" showInline="true">\n{choices}\n  </Choices>\n'
        "</View>\n"
    )


def _task(name: str, answer: Answer) -> dict[str, Any]:
    label, probability = answer.predictions[0]
    return {
        "data": {OBJECT: f"{SERVED}{quote(f'{PICTURES}/{name}')}", "reason": answer.reason, "time": answer.time},
        "predictions": [
            {
                "model_version": f"{answer.model} {answer.version} {answer.variant}",
                "score": probability,
                "result": [{"from_name": CONTROL, "to_name": OBJECT, "type": "choices", "value": {"choices": [label]}}],
            }
        ],
    }
