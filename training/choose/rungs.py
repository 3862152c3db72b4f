"""Successive halving (Jamieson and Talwalkar 2016): all are trained for a few epochs, the better half for more.

Each run has a whole schedule of its own. All are evaluated on the validation pictures, which choose the candidate and
each run's epoch; a test part is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.common.statistics import mcnemar_p
from training.ablation.runs import run_once
from training.choose.screen import Right
from training.choose.state import State
from training.config.train import TrainConfig
from training.data.pictures import Data

MOST = 3
"""Candidates that are trained."""

SIGNIFICANT = 0.05

TRAINING = 5.0
"""Time of a training step by that of a forward pass, until a run has measured it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of the longest run of a candidate."""

    rung: int
    epochs: int
    right: Right
    """(N,): right answers on the validation pictures."""


def finalists(screened: dict[str, Right], fastest: Callable[[str], float]) -> list[str]:
    """Return the candidates that are not significantly worse than the best, the best first, at most `MOST`.

    Args:
        screened: right answers to the same pictures, by candidate.
        fastest: images/s, which decides between equal ones.
    """
    order = sorted(screened, key=lambda name: (-int(screened[name].sum()), -fastest(name)))
    best = screened[order[0]]
    return [name for name in order if p_value(best, screened[name]) >= SIGNIFICANT][:MOST]


def p_value(one: Right, other: Right) -> float:
    """Return the p-value of McNemar's test of two candidates on the same pictures."""
    return mcnemar_p(int((one & ~other).sum()), int((other & ~one).sum()))


class Rungs:
    """Runs of the finalists.

    Args:
        request: returns the run of a candidate by name, epochs and number of the rung.
        data: without a test part.
        state: what was found before.
        minutes: time of the whole choice.
        say: gets a line before each run.
    """

    def __init__(
        self,
        request: Callable[[str, int, int], TrainConfig],
        data: Data,
        state: State,
        *,
        minutes: float,
        say: Callable[[str], None],
    ) -> None:
        self._request, self._data, self._state = request, data, state
        self._minutes, self._say = minutes, say

    def climb(self, names: list[str], epochs: dict[str, int], forward: dict[str, float]) -> dict[str, Run]:
        """Train until one candidate is left and return each one's longest run.

        Args:
            names: the finalists.
            epochs: of the recipe, by candidate.
            forward: seconds of a forward pass of a picture, by candidate.

        Raises:
            HalftoneError, StoppedError: as `training.loop.run.train`.
        """
        found: dict[str, Run] = {}
        seconds = {name: self.guess(forward[name]) for name in names}
        rungs = math.ceil(math.log2(len(names)))
        for rung in range(rungs):
            share, shrink = self.left() / (rungs - rung + 1), 2 ** (rungs - rung)
            # The same for all: more epochs of a faster network would be another comparison.
            whole = sum(seconds[name] for name in names)
            planned: dict[str, int] = self._once(
                f"rung {rung}",
                {name: affordable(math.ceil(epochs[name] / shrink), whole, share) for name in names},
            )
            for name in names:
                self._say(f"training {name} for {planned[name]} epoch(s), {self.left() / 60:.0f} min left")
                result = run_once(self._request(name, planned[name], rung), self._data)
                found[name] = Run(rung=rung, epochs=planned[name], right=result.right)
                seconds[name] = result.seconds_per_epoch
            names = sorted(names, key=lambda name: -int(found[name].right.sum()))[: math.ceil(len(names) / 2)]
        self._state.set("seconds per epoch", seconds)
        return found

    def guess(self, forward: float) -> float:
        """Return the seconds of an epoch, from those of a forward pass of a picture."""
        return forward * (TRAINING * len(self._data.train) + len(self._data.val))

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, 60 * self._minutes - self._state.seconds)

    def _once(self, name: str, value: Any) -> Any:
        """Return what an earlier process has decided, or the value, which is recorded."""
        if self._state.get(name) is None:
            self._state.set(name, value)
        return self._state.get(name)


def affordable(epochs: int, seconds: float, share: float) -> int:
    """Return the number of epochs that fit into a time, at least 1 and at most those planned.

    Args:
        epochs: planned.
        seconds: of an epoch.
        share: the time in seconds.
    """
    return max(1, min(epochs, int(share / max(seconds, 1e-6))))


def in_words(one: str, other: str, first: Right, second: Right, pictures: str) -> str:
    """Return how much better a candidate is than another, and whether that is more than chance."""
    difference, p = 100 * float(first.mean() - second.mean()), p_value(first, second)
    verdict = "significant" if p < SIGNIFICANT else "not significant"
    return f"{one} over {other}: {difference:.1f} points, {verdict} on {len(first):,} {pictures} (p = {p:.2g})"
