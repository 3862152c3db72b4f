"""The reference's answers under other names than the folders': a list of labels in another order than the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.statistics import sign_test_p

Classes = npt.NDArray[np.int64]

EXAMPLES = 5
"""Most classes that the figures list."""

_SEVERAL = 3


def find_renaming(answers: Classes, labels: Classes) -> dict[str, Any] | None:
    """Return what a one-to-one renaming of the answers would gain; None if the answers show no such renaming.

    A class is renamed if most of its pictures have the same wrong answer, which is that of no other class. The gain is
    measured on pictures that did not choose the renaming: a bad model's errors don't repeat under another name.

    Args:
        answers: int64 (N,) classes that the reference answers.
        labels: int64 (N,) true classes.

    Returns:
        `classes`: number of renamed classes, `gain`: accuracy gained, `p`: its one-sided p-value by the sign test, and
        `examples` with the pictures of a class, and the answer that most of them have.
    """
    renamed = _renamed(answers, labels)
    # One class that is mostly taken for another is an error like others; two that are exchanged are not.
    if len(renamed) < _SEVERAL and (len(renamed) < 2 or set(renamed) != set(renamed.values())):
        return None
    half = _halves(labels)
    better = np.zeros(len(labels), bool)
    for part in (half, ~half):
        better[part] = _apply(_renamed(answers[~part], labels[~part]), answers[part]) == labels[part]
    right = answers == labels
    won, lost = int((better & ~right).sum()), int((right & ~better).sum())
    return {
        "classes": len(renamed),
        "gain": (won - lost) / len(labels),
        "p": sign_test_p(won, lost),
        "examples": [
            {
                "class_index": label,
                "answered_as": answer,
                "images": int((labels == label).sum()),
                "answered": int((answers[labels == label] == answer).sum()),
            }
            for label, answer in list(renamed.items())[:EXAMPLES]
        ],
    }


def _renamed(answers: Classes, labels: Classes) -> dict[int, int]:
    """Return the answer of each renamed class."""
    most: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        values, counts = np.unique(answers[labels == label], return_counts=True)
        if 2 * counts.max() > counts.sum():
            most[label] = int(values[counts.argmax()])
    claims = list(most.values())
    return {label: answer for label, answer in most.items() if label != answer and claims.count(answer) == 1}


def _halves(labels: Classes) -> npt.NDArray[np.bool_]:
    """Return True for every other picture of each class."""
    half = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        half[np.flatnonzero(labels == label)[::2]] = True
    return half


def _apply(renamed: dict[int, int], answers: Classes) -> Classes:
    """Return the answers under the names of the classes; -1 for an answer whose name another one took."""
    names = {answer: label for label, answer in renamed.items()}
    return np.array([names.get(each, -1 if each in renamed else each) for each in answers.tolist()], np.int64)
