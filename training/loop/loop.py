"""The training loop, to be read in one sitting: epochs of steps, a validation after each, checkpoints in between.

A step's random numbers, order and rates come from its number alone, so what a run has to remember is the weights, the
optimiser, and the position: a run killed anywhere goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from models.graph import Normalise
from training.config.recipe import Recipe
from training.data.dataset import PictureSet
from training.data.loader import Batch, TrainingFeed, ValidationFeed
from training.data.sampling import Step, seed_step
from training.loop.checkpoints import RunFolder
from training.loop.distributed import World
from training.loop.health import bad_loss, check_gradient
from training.loop.learner import Learner, Position, Row, score
from training.loop.loggers import Logger
from training.loop.progress import Display
from training.loop.signals import StoppedError, StopRequest
from training.loop.validate import answers, figures
from training.optim.objective import Targets, correct
from training.optim.optimizers import head_rate, set_rates
from training.optim.schedule import factor

MICRO_BATCHES = 1 << 20
"""Room for the micro-batches of a step in the numbers that mixing is seeded with."""


class Loop:
    """One run from where it is to its end.

    Args:
        learner: the network and all that learns with it.
        recipe: settings.
        targets: what it is taught.
        normalise: pixels to planes, on the device.
        training: batches to learn from.
        validation: batches to judge by.
        world: the processes that train together.
        seed: the run's seed.
    """

    def __init__(
        self,
        learner: Learner,
        recipe: Recipe,
        targets: Targets,
        normalise: Normalise,
        training: TrainingFeed,
        validation: ValidationFeed,
        *,
        world: World,
        seed: int,
    ) -> None:
        self.learner, self.recipe, self.targets, self.normalise = learner, recipe, targets, normalise
        self.training, self.validation = training, validation
        self.world, self.seed = world, seed
        self.steps_per_epoch = training.plan.steps
        self.position = Position()
        # Of the present epoch: sum of losses, right answers, pictures.
        self.sums = torch.zeros(3, dtype=torch.float64, device=world.device)

    def run(
        self,
        folder: RunFolder,
        display: Display,
        loggers: Sequence[Logger],
        stop: StopRequest,
        *,
        checkpoint_seconds: float,
    ) -> None:
        """Train until the last epoch or until patience ends.

        Args:
            folder: where checkpoints go.
            display: what the user sees.
            loggers: where the curves go.
            stop: raised by Ctrl-C.
            checkpoint_seconds: longest time between two checkpoints.

        Raises:
            StoppedError: the user stopped the run.
            HalftoneError: the loss is no number, or a checkpoint can't be written.
        """
        self.log_again(loggers)
        while not self.finished():
            rows = self.train_epoch(folder, display, stop, checkpoint_seconds)
            best = self.end_epoch(rows, folder)
            display.epoch(rows, epochs=self.recipe.epochs, best=best)
            display.unreadable(self.unreadable())
            for logger in loggers:
                logger.log(rows, self.global_step())

    def log_again(self, loggers: Sequence[Logger]) -> None:
        """Log the last epoch anew where the run goes on from its end: a kill may have come before its first time."""
        position = self.position
        if position.history and position.step == 0:
            for logger in loggers:
                logger.log(position.history[-1], self.global_step())

    def finished(self) -> bool:
        """Whether all epochs are done, or no better one came for as long as patience allows."""
        position, patience = self.position, self.recipe.patience
        out_of_patience = 0 < patience <= position.epoch - position.best_epoch
        return position.epoch >= self.recipe.epochs or out_of_patience

    def global_step(self) -> int:
        """Optimiser steps since the run began."""
        return self.position.epoch * self.steps_per_epoch + self.position.step

    def train_epoch(self, folder: RunFolder, display: Display, stop: StopRequest, checkpoint_seconds: float) -> Row:
        """Learn from the pictures that are left of this epoch; its figures so far."""
        position = self.position
        self.learner.begin_epoch(position.epoch)
        clock = saved = time.monotonic()
        for step, batches in self.training.epoch(position.epoch, start=position.step):
            self.train_step(step, batches)
            position.step += 1
            now = time.monotonic()
            position.seconds, clock = position.seconds + now - clock, now
            if display.due():
                self.show(display)
            stopped, due = self.world.any(stop.raised, now - saved >= checkpoint_seconds)
            if stopped or due:
                self.save(folder)
                clock = saved = time.monotonic()
            if stopped:
                raise StoppedError
        return self.epoch_figures()

    def epoch_figures(self) -> Row:
        """The finished epoch's row of the history as far as training knows it."""
        loss, top1, pictures = self.means(self.world.total(self.sums))
        seconds = self.position.seconds
        set_rates(self.learner.optimiser, self.rate(self.global_step() - 1))
        return {
            "lr": head_rate(self.learner.optimiser),
            "train_loss": loss,
            "train_top1": top1,
            "images_per_second": pictures / seconds,
            "seconds": seconds,
        }

    def show(self, display: Display) -> None:
        """Tell the user where the run is, by this process's share of it."""
        position, (loss, top1, pictures) = self.position, self.means(self.sums)
        display.step(
            self.global_step(),
            epoch=f"epoch {position.epoch + 1}/{self.recipe.epochs}",
            loss=loss,
            top1=top1,
            images_per_second=pictures * self.world.size / position.seconds,
        )

    def rate(self, number: int) -> float:
        """The schedule's factor at a global step."""
        return factor(self.recipe.schedule, number, steps_per_epoch=self.steps_per_epoch, epochs=self.recipe.epochs)

    def train_step(self, step: Step, batches: Sequence[Batch]) -> None:
        """One optimiser step over its micro-batches."""
        number = self.global_step()
        seed_step(self.seed, number, self.world.rank)
        set_rates(self.learner.optimiser, self.rate(number))
        counts = []
        for index, batch in enumerate(batches):
            with self.gradients_kept_here(last=index == len(batches) - 1):
                loss, count = self.loss(batch, number, index)
                # The mean over the step's pictures: DistributedDataParallel divides by the number of processes.
                mean: Any = self.learner.scaler.scale(loss * self.world.size / step.pictures)
                mean.backward()
            counts.append(count)
        gradient = self.learner.clip_gradient()
        # The one moment of a step in which the processor waits for the GPU: before, it only hands over work.
        norm, *losses = torch.stack((gradient, *(count[0] for count in counts))).tolist()
        self.check_losses(losses, batches, number)
        self.learner.update(number, finite=math.isfinite(norm))
        if not math.isfinite(norm):
            scale = self.learner.scaler.get_scale() if self.learner.scaler.is_enabled() else None
            check_gradient(norm, where=self.where(), scale=scale)
        self.sums += torch.stack(counts).sum(dim=0, dtype=torch.float64)

    def inputs(self, batch: Batch, number: int, index: int) -> Batch:
        """The network's input and its targets, of a micro-batch on the device; the same each time."""
        precision, mixing = self.learner.precision, self.targets.mixing
        pixels, labels = (values.to(precision.device, non_blocking=True) for values in batch)
        images = self.normalise(pixels).contiguous(memory_format=precision.memory_format)
        return (images, labels) if mixing is None else mixing(images, labels, number * MICRO_BATCHES + index)

    def loss(self, batch: Batch, number: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the losses over a micro-batch, and float32 (3,): the same, right answers, pictures."""
        targets, learner = self.targets, self.learner
        images, labels = self.inputs(batch, number, index)
        with learner.precision.autocast():
            logits = learner.forward(images)
            answer = targets.teacher.answer(images) if targets.teacher is not None else None
        logits = logits.float()
        loss = targets.loss(logits, labels, answer)
        # Filled in on the device: a number that is copied there would be waited for.
        pictures = torch.full_like(loss, len(logits), requires_grad=False)
        return loss, torch.stack((loss.detach(), correct(logits, labels), pictures))

    def check_losses(self, losses: Sequence[float], batches: Sequence[Batch], number: int) -> None:
        """Stop where the loss of a micro-batch is no number."""
        for index, value in enumerate(losses):
            if not math.isfinite(value):
                raise bad_loss(
                    value,
                    where=self.where(),
                    module=self.learner.module,
                    images=self.inputs(batches[index], number, index)[0],
                    dtype=self.learner.precision.dtype,
                    previous=self.means(self.sums)[0],
                )

    def gradients_kept_here(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Between processes gradients are averaged once a step, with its last micro-batch."""
        if last or self.world.size == 1:
            return contextlib.nullcontext()
        keep: contextlib.AbstractContextManager[None] = self.learner.forward.no_sync()
        return keep

    def end_epoch(self, row: Row, folder: RunFolder) -> bool:
        """Judge the network, complete the epoch's figures and save; whether it is the best epoch so far."""
        learner, position = self.learner, self.position
        self.world.align(learner.judged())
        judged = answers(learner.judged(), self.normalise, self.validation, learner.precision, self.world)
        self.sums.zero_()
        position.epoch, position.step, position.seconds = position.epoch + 1, 0, 0.0
        row |= {"epoch": position.epoch} | figures(judged.logits, judged.targets)
        best = score(row) > position.best()
        position.history.append(row)
        if best:
            position.best_epoch = position.epoch
            if self.world.main:
                folder.save_best(position.epoch, learner.judged().state_dict())
        self.save(folder)
        return best

    def unreadable(self) -> dict[str, list[str]]:
        """Names of the pictures that could not be read so far, by part; the same answer in every process."""
        return {part: self.sets[part].names(marks) for part, marks in self.broken().items()}

    def broken(self) -> dict[str, torch.Tensor]:
        """bool (N,) by part: the pictures that could not be read so far; the same answer in every process."""
        return {part: self.world.union(pictures.broken()) for part, pictures in self.sets.items()}

    @property
    def sets(self) -> dict[str, PictureSet]:
        """The pictures by part."""
        return {"train": self.training.pictures, "val": self.validation.pictures}

    def save(self, folder: RunFolder) -> None:
        """Make the present state the one to resume from."""
        sums, broken = self.world.total(self.sums), self.broken()
        if self.world.main:
            state = self.learner.resume_state() | {
                "position": asdict(self.position),
                "sums": sums.cpu(),
                "broken": broken,
            }
            folder.save_last(
                self.position.name, self.learner.module.state_dict(), state, best_epoch=self.position.best_epoch
            )
        self.world.wait()

    def restore(self, folder: RunFolder) -> bool:
        """Go to the last checkpoint; False where there is none."""
        checkpoint = folder.load_last()
        if checkpoint is None:
            return False
        weights, state = checkpoint
        self.learner.restore(weights, state)
        self.position = Position(**state["position"])
        for part, marks in state["broken"].items():
            self.sets[part].mark_broken(marks)
        # The sums are those of all processes: one of them carries them on.
        if self.world.main:
            self.sums.copy_(state["sums"])
        return True

    def where(self) -> str:
        """The present place in words."""
        return f"epoch {self.position.epoch + 1}, step {self.position.step + 1} of {self.steps_per_epoch}"

    @staticmethod
    def means(sums: torch.Tensor) -> tuple[float, float, float]:
        """Mean loss, share of right answers, number of pictures; NaN before the first."""
        loss, right, pictures = sums.tolist()
        return (loss / pictures, right / pictures, pictures) if pictures else (math.nan, math.nan, 0.0)
