"""Progress display of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.common.text import printable
from training.data.dataset import listed

PLAIN_SECONDS = 30.0
REFRESH_SECONDS = 0.2


class Display:
    """Progress display of one process.

    Args:
        steps: steps of the whole run.
        done: steps already done by a resumed run.
        quiet: True to show nothing, in every process but the main one.
    """

    def __init__(self, *, steps: int, done: int = 0, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal and not quiet
        self.steps, self.first, self.started = steps, done, time.monotonic()
        self.shown = self.started
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps · {task.fields[numbers]} · ETA"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.warned = 0
        self.task: TaskID = self.progress.add_task("training", total=steps, completed=done, numbers="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def due(self) -> bool:
        """Return True if it is time to show a step; the caller computes its metrics only then."""
        return time.monotonic() - self.shown >= (REFRESH_SECONDS if self.live else PLAIN_SECONDS)

    def step(self, done: int, *, epoch: str, loss: float, top1: float, images_per_second: float) -> None:
        """Show the current step.

        Args:
            done: finished steps.
            epoch: such as `epoch 3/10`.
            loss: mean over the epoch so far.
            top1: accuracy over the epoch so far, in [0, 1].
            images_per_second: over all processes, in the epoch so far.
        """
        self.shown = time.monotonic()
        numbers = f"loss {loss:.3f} · top-1 {top1:.1%} · {images_per_second:.0f} images/s"
        if self.live:
            self.progress.update(self.task, completed=done, description=epoch, numbers=numbers)
            return
        left = (self.steps - done) * (self.shown - self.started) / max(1, done - self.first)
        self.say(f"{epoch} · step {done}/{self.steps} · {numbers} · ETA {left / 60:.1f} min")

    def epoch(self, row: dict[str, float], *, epochs: int, best: bool) -> None:
        """Print one line for a finished epoch.

        Args:
            row: as in the history.
            epochs: length of the run.
            best: True for the best epoch so far.
        """
        self.say(
            f"epoch {row['epoch']:.0f}/{epochs} · train loss {row['train_loss']:.3f} · "
            f"val loss {row['val_loss']:.3f} · val top-1 {row['val_top1']:.2%}{' (best)' if best else ''} · "
            f"{row['images_per_second']:.0f} images/s · {row['seconds']:.1f} s"
        )

    def warn_unreadable(self, names: dict[str, list[str]]) -> None:
        """Warn of unreadable images; again only if their number has changed.

        Args:
            names: of the unreadable images, by part (`train` and `val`).
        """
        count = sum(map(len, names.values()))
        if count == self.warned:
            return
        self.warned = count
        if names["train"]:
            self.say(
                f"warning: {len(names['train'])} training pictures can't be read, so others of their class replace "
                f"them: {listed(names['train'])}"
            )
        if names["val"]:
            self.say(
                f"warning: {len(names['val'])} validation pictures can't be read and are left out of all metrics: "
                f"{listed(names['val'])}"
            )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        # rich would interpret the brackets of class names and paths as markup.
        self.console.print(printable(line), markup=False)
