"""Training loop: epochs of optimiser steps, a validation after each epoch, checkpoints in between.

The random numbers, the order and the learning rates of a step are functions of its number. A checkpoint therefore holds
the weights, the optimiser and the position alone, and a killed run continues exactly as if it had not been interrupted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from training.config.recipe import Recipe
from training.data.batches.loader import Batch, TrainingBatches, ValidationBatches
from training.data.batches.sampling import Step, seed_step
from training.data.dataset import PictureSet
from training.loop.checkpoints import RunFolder
from training.loop.distributed import World
from training.loop.health import bad_loss, check_gradient
from training.loop.learner import Learner, Position, Row, score
from training.loop.loggers import Logger
from training.loop.progress import Display
from training.loop.signals import StoppedError, StopRequest
from training.loop.validate import validate, validation_metrics
from training.optim.objective import Targets, correct
from training.optim.optimizers import head_rate, set_rates
from training.optim.schedule import factor

MICRO_BATCHES = 1 << 20
"""Upper bound of the micro-batches per step: the seeds of mixing are step number times this, plus the micro-batch."""


class Loop:
    """One run, from its current position to its end.

    Args:
        learner: the network with its optimiser.
        recipe: settings.
        targets: labels and loss.
        normalise: converts what the batches hold to the network's input, on the device.
        training: training batches.
        validation: validation batches.
        world: the processes that train together.
        seed: the run's seed.
    """

    def __init__(
        self,
        learner: Learner,
        recipe: Recipe,
        targets: Targets,
        normalise: torch.nn.Module,
        training: TrainingBatches,
        validation: ValidationBatches,
        *,
        world: World,
        seed: int,
    ) -> None:
        self.learner, self.recipe, self.targets, self.normalise = learner, recipe, targets, normalise
        self.training, self.validation = training, validation
        self.world, self.seed = world, seed
        self.steps_per_epoch = training.plan.steps
        self.position = Position()
        # Of the current epoch: sum of the losses, correct predictions, images.
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
        """Train until the last epoch or until early stopping.

        Args:
            folder: receives the checkpoints.
            display: shows the progress.
            loggers: receive the curves.
            stop: set by SIGINT and SIGTERM.
            checkpoint_seconds: longest time between two checkpoints.

        Raises:
            StoppedError: the user stopped the run.
            HalftoneError: the loss is not finite, or a checkpoint can't be written.
        """
        self.log_last_epoch(loggers)
        while not self.finished():
            row = self.train_epoch(folder, display, stop, checkpoint_seconds)
            best = self.end_epoch(row, folder)
            display.epoch(row, epochs=self.recipe.epochs, best=best)
            display.warn_unreadable(self.unreadable())
            for logger in loggers:
                logger.log(row, self.global_step())

    def log_last_epoch(self, loggers: Sequence[Logger]) -> None:
        """Log the last epoch again if the run resumes at its end: a kill may have prevented the first time."""
        position = self.position
        if position.history and position.step == 0:
            for logger in loggers:
                logger.log(position.history[-1], self.global_step())

    def finished(self) -> bool:
        """Return True if all epochs are done, or if early stopping ends the run."""
        position, patience = self.position, self.recipe.patience
        stop_early = 0 < patience <= position.epoch - position.best_epoch
        return position.epoch >= self.recipe.epochs or stop_early

    def global_step(self) -> int:
        """Return the number of optimiser steps since the start of the run."""
        return self.position.epoch * self.steps_per_epoch + self.position.step

    def train_epoch(self, folder: RunFolder, display: Display, stop: StopRequest, checkpoint_seconds: float) -> Row:
        """Train on the remaining images of this epoch and return its training metrics."""
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
            stopped, due = self.world.any(stop.pending, now - saved >= checkpoint_seconds)
            if stopped or due:
                self.save(folder)
                clock = saved = time.monotonic()
            if stopped:
                raise StoppedError
        return self.training_metrics()

    def training_metrics(self) -> Row:
        """Return the finished epoch's row of the history, without validation."""
        loss, top1, pictures = self.means(self.world.total(self.sums))
        seconds = self.position.seconds
        set_rates(self.learner.optimiser, self.rate_factor(self.global_step() - 1))
        return {
            "lr": head_rate(self.learner.optimiser),
            "train_loss": loss,
            "train_top1": top1,
            "images_per_second": pictures / seconds,
            "seconds": seconds,
        }

    def show(self, display: Display) -> None:
        """Display the progress, estimated from this process's share."""
        position, (loss, top1, pictures) = self.position, self.means(self.sums)
        display.step(
            self.global_step(),
            epoch=f"epoch {position.epoch + 1}/{self.recipe.epochs}",
            loss=loss,
            top1=top1,
            images_per_second=pictures * self.world.size / position.seconds,
        )

    def rate_factor(self, step: int) -> float:
        """Return the schedule's factor on the learning rates at a global step."""
        return factor(self.recipe.schedule, step, steps_per_epoch=self.steps_per_epoch, epochs=self.recipe.epochs)

    def train_step(self, step: Step, batches: Sequence[Batch]) -> None:
        """Do one optimiser step over its micro-batches."""
        number = self.global_step()
        seed_step(self.seed, number, self.world.rank)
        set_rates(self.learner.optimiser, self.rate_factor(number))
        counts = []
        for index, batch in enumerate(batches):
            with self.gradient_sync(last=index == len(batches) - 1):
                loss, count = self.loss(batch, number, index)
                # The mean over the step's images: DistributedDataParallel divides by the number of processes.
                mean: Any = self.learner.scaler.scale(loss * self.world.size / step.pictures)
                mean.backward()
            counts.append(count)
        gradient = self.learner.clip_gradient()
        # The only wait for the GPU in a step: until here the CPU only enqueues work.
        norm, *losses = torch.stack((gradient, *(count[0] for count in counts))).tolist()
        self.check_losses(losses, batches, number)
        self.learner.update(number, finite=math.isfinite(norm))
        if not math.isfinite(norm):
            scale = self.learner.scaler.get_scale() if self.learner.scaler.is_enabled() else None
            check_gradient(norm, location=self.location(), scale=scale)
        self.sums += torch.stack(counts).sum(dim=0, dtype=torch.float64)

    def inputs(self, batch: Batch, number: int, index: int) -> Batch:
        """Return input and targets of a micro-batch on the device; a repeated call returns the same values."""
        precision, mixing = self.learner.precision, self.targets.mixing
        pixels, labels = (values.to(precision.device, non_blocking=True) for values in batch)
        images = self.normalise(pixels).contiguous(memory_format=precision.memory_format)
        return (images, labels) if mixing is None else mixing(images, labels, number * MICRO_BATCHES + index)

    def loss(self, batch: Batch, number: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a micro-batch, and float32 (3,): this loss, correct predictions, images."""
        targets, learner = self.targets, self.learner
        images, labels = self.inputs(batch, number, index)
        with learner.precision.autocast():
            logits = learner.forward(images)
            teacher_logits = targets.teacher.logits(images) if targets.teacher is not None else None
        logits = logits.float()
        loss = targets.loss(logits, labels, teacher_logits)
        # Filled in on the device: copying a number there would wait for the GPU.
        pictures = torch.full_like(loss, len(logits), requires_grad=False)
        return loss, torch.stack((loss.detach(), correct(logits, labels), pictures))

    def check_losses(self, losses: Sequence[float], batches: Sequence[Batch], number: int) -> None:
        """Raise DivergedError if the loss of a micro-batch is NaN or infinite."""
        for index, value in enumerate(losses):
            if not math.isfinite(value):
                raise bad_loss(
                    value,
                    location=self.location(),
                    module=self.learner.module,
                    images=self.inputs(batches[index], number, index)[0],
                    dtype=self.learner.precision.dtype,
                    previous=self.means(self.sums)[0],
                )

    def gradient_sync(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Skip averaging the gradients over the processes, except for the last micro-batch of a step."""
        if last or self.world.size == 1:
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = self.learner.forward.no_sync()
        return no_sync

    def end_epoch(self, row: Row, folder: RunFolder) -> bool:
        """Validate the network, complete the epoch's row and save; return True if the epoch is the best so far."""
        learner, position = self.learner, self.position
        self.world.align(learner.averaged())
        predictions = validate(learner.averaged(), self.normalise, self.validation, learner.precision, self.world)
        self.sums.zero_()
        position.epoch, position.step, position.seconds = position.epoch + 1, 0, 0.0
        row |= {"epoch": position.epoch} | validation_metrics(predictions.logits, predictions.targets)
        best = score(row) > position.best()
        position.history.append(row)
        if best:
            position.best_epoch = position.epoch
            if self.world.main:
                folder.save_best(position.epoch, learner.averaged().state_dict())
        self.save(folder)
        return best

    def unreadable(self) -> dict[str, list[str]]:
        """Return the names of the unreadable images found so far, by part; the same in every process."""
        return {part: self.sets[part].names(marks) for part, marks in self.broken().items()}

    def broken(self) -> dict[str, torch.Tensor]:
        """Return bool (N,) by part: the unreadable images found so far; the same in every process."""
        return {part: self.world.union(pictures.broken()) for part, pictures in self.sets.items()}

    @property
    def sets(self) -> dict[str, PictureSet]:
        """Training and validation images."""
        return {"train": self.training.pictures, "val": self.validation.pictures}

    def save(self, folder: RunFolder) -> None:
        """Save a checkpoint of the current state."""
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
        """Load the last checkpoint; return False if there is none."""
        checkpoint = folder.load_last()
        if checkpoint is None:
            return False
        weights, state = checkpoint
        self.learner.restore(weights, state)
        self.position = Position(**state["position"])
        for part, marks in state["broken"].items():
            self.sets[part].mark_broken(marks)
        # The sums are totals over all processes: only the main one continues them.
        if self.world.main:
            self.sums.copy_(state["sums"])
        return True

    def location(self) -> str:
        """Describe the current step, for messages."""
        return f"epoch {self.position.epoch + 1}, step {self.position.step + 1} of {self.steps_per_epoch}"

    @staticmethod
    def means(sums: torch.Tensor) -> tuple[float, float, float]:
        """Return mean loss, share of correct predictions, and number of images; NaN for the means without images."""
        loss, right, pictures = sums.tolist()
        return (loss / pictures, right / pictures, pictures) if pictures else (math.nan, math.nan, 0.0)
