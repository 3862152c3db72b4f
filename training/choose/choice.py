"""Choice among candidates: the served speed of each, a screening on frozen features, runs, and comparisons of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rich.console import Console

from models.bundle.bundle import Bundle
from models.common.host import host
from models.common.text import printable
from models.spec import Architecture
from training.choose.config import ChooseConfig
from training.choose.report import NOTE, Row, accuracy_of, rows_of
from training.choose.rungs import Run, Rungs, affordable, finalists, in_words
from training.choose.screen import Right, Screen
from training.choose.speed import measured
from training.choose.state import State
from training.config.train import TrainConfig
from training.data.batches.loader import default_workers
from training.data.pictures import Data
from training.loop.distributed import joined
from training.loop.resume import request_with
from training.loop.run import train

FASTER = 1.1
"""Ratio of speeds from which it is mentioned."""


class Choice:
    """One choice, from its state to the bundle.

    Args:
        config: the request.
        networks: the candidates by name.
        data: with the test part, if there is one.
        state: what was found before.
        console: gets a line before each piece of work.
    """

    def __init__(
        self, config: ChooseConfig, networks: dict[str, Architecture], data: Data, state: State, console: Console
    ) -> None:
        self._config, self._networks, self._data, self._state = config, networks, data, state
        self._console = console
        self.rows = {name: Row(name=name, size=config.size or network.input.size) for name, network in networks.items()}
        self.reasons: list[str] = []

    def say(self, line: str) -> None:
        """Print a line of progress."""
        self._console.print(printable(line), markup=False)

    def within_budget(self) -> list[str]:
        """Measure all candidates and return those that keep the budget.

        Raises:
            HalftoneError: one can't be exported.
        """
        for name, row in self.rows.items():
            row.speed = measured(self._networks[name], row.size, self._config.output.parent, say=self.say)
            figures = {key: value for key, value in asdict(row.speed).items() if key != "variant"}
            row.verdict = self._config.budget.broken_by(**figures) or ""
        # The speeds are known next time: the time is that of screening and training.
        self._state.start_clock()
        return [name for name, row in self.rows.items() if not row.verdict]

    def screen(self, names: list[str]) -> tuple[dict[str, Right], dict[str, float]]:
        """Return the right answers with frozen features, and the seconds of a picture, by candidate.

        Raises:
            HalftoneError: the weights of a candidate are not available, or the pictures are too few.
        """
        config, known = self._config, self._state.get("screened") or {}
        workers = default_workers(1) if config.workers is None else config.workers
        with joined(config.device) as world:
            screen = Screen(
                self._data.train, size=config.size, seed=config.seed, device=world.device, workers=workers,
                groups=self._state.get("groups"),
            )  # fmt: skip
            for name in names:
                if name in known:
                    continue
                self.say(f"screening {name} on frozen features")
                found = screen.answers(self._networks[name])
                known |= {name: {"right": found.right.astype(int).tolist(), "seconds": found.seconds}}
                self._state.set("groups", screen.groups)
                self._state.set("screened", known)
        right = {name: np.array(known[name]["right"], dtype=bool) for name in names}
        for name in names:
            self.rows[name].screened = accuracy_of(right[name])
        return right, {name: known[name]["seconds"] for name in names}

    def train(self, screened: dict[str, Right], forward: dict[str, float]) -> Bundle:
        """Train the best few for more and more epochs, and the best of them in full; return its bundle.

        Raises:
            HalftoneError, StoppedError: as `training.loop.run.train`.
        """
        names = finalists(screened, self._rate)
        self._compare_screened(screened, names)
        pictures = len(self._data.train)
        full = {
            name: self._config.request(self._networks[name], pictures, self._config.output).settings.epochs
            for name in names
        }
        rungs = Rungs(
            self._run, replace(self._data, test=None), self._state, minutes=self._config.minutes, say=self.say
        )
        runs = rungs.climb(names, full, forward)
        chosen = self._compare_trained(runs, names)
        seconds = (self._state.get("seconds per epoch") or {}).get(chosen, rungs.guess(forward[chosen]))
        if self._state.get("epochs") is None:
            self._state.set("epochs", affordable(full[chosen], seconds, rungs.left()))
        epochs = self._state.get("epochs")
        self.say(f"training {chosen} for {epochs} epoch(s), {rungs.left() / 60:.0f} min left")
        request = self._config.request(self._networks[chosen], pictures, self._config.output, epochs)
        bundle = train(request_with(request, self._data))
        if bundle is None:
            raise RuntimeError("a choice runs in one process")
        self.rows[chosen].verdict = "chosen"
        return bundle

    def _run(self, name: str, epochs: int, rung: int) -> TrainConfig:
        folder = f"{rung}-{name}".replace(":", "-").replace("/", "-")
        return self._config.request(
            self._networks[name], len(self._data.train), self._state.folder / "runs" / folder, epochs
        )

    def _rate(self, name: str) -> float:
        speed = self.rows[name].speed
        return speed.images_per_second if speed else 0.0

    def _compare_screened(self, screened: dict[str, Right], kept: list[str]) -> None:
        best = kept[0]
        for name in sorted(screened, key=lambda name: -int(screened[name].sum())):
            if name == best:
                continue
            words = in_words(best, name, screened[best], screened[name], "training pictures, cross-validated")
            self.reasons.append(f"on frozen features, {words}")
            if name not in kept:
                self.rows[name].verdict = "screened out"

    def _compare_trained(self, runs: dict[str, Run], names: list[str]) -> str:
        """Record the results of the runs and return the best candidate."""
        if not runs:
            return names[0]
        # Those of the last rung, then the most accurate; the screening has put equal ones in order.
        order = sorted(names, key=lambda name: (-runs[name].rung, -int(runs[name].right.sum())))
        chosen = order[0]
        for name in order:
            row, its = self.rows[name], runs[name]
            row.epochs, row.trained = its.epochs, accuracy_of(its.right)
            if name == chosen:
                continue
            row.verdict = f"fell behind after {its.epochs} epoch(s)"
            words = in_words(chosen, name, runs[chosen].right, its.right, "validation pictures")
            faster = self._rate(name) / max(self._rate(chosen), 1e-9)
            speed = f"; {name} serves {faster:.1f} times as many pictures/s" if faster >= FASTER else ""
            self.reasons.append(f"after {runs[chosen].epochs} and {its.epochs} epochs, {words}{speed}")
        return chosen

    def document(self, chosen: str | None, final: dict[str, Any]) -> dict[str, Any]:
        """Return the result, JSON-ready.

        Args:
            chosen: the candidate; None if none keeps the budget.
            final: figures of its bundle.
        """
        return {
            "chosen": chosen,
            "data": self._data.description,
            "train": len(self._data.train),
            "val": len(self._data.val),
            "budget": asdict(self._config.budget),
            "reasons": self.reasons,
            "candidates": rows_of(list(self.rows.values())),
            **final,
            "seconds": self._state.seconds,
            "host": host(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "note": NOTE,
        }

    def held(self, tested: dict[str, Any], p99_ms: float) -> str:
        """Record the result of the load test; return what is wrong with it, empty if nothing is."""
        rate, error = tested["highest_rate"], tested["error"]
        if rate is None:
            self.reasons.append(f"the load test could not be made ({error}): run `python -m loadtest.sweep` yourself")
            return ""
        if not rate:
            self.reasons.append(f"as served, no rate holds {p99_ms:g} ms at the 99th percentile")
            return "the load test"
        self.reasons.append(f"as served, it holds {p99_ms:g} ms at the 99th percentile up to {rate:.0f} requests/s")
        return ""
