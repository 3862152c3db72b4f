"""One training run from the request to the bundle: build the parts, restore the last checkpoint, run the loop."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.common.memory import freed_memory_kept
from models.graph import Normalise
from models.spec import InputSpec
from training.config.train import left_out
from training.data.check.duplicates import find_duplicates
from training.data.dataset import CorruptDataError
from training.data.pictures import Pictures
from training.evaluation.against import Against, Row, compare
from training.loop.build import Parts, build, held_out_feed
from training.loop.checkpoints import RunFolder
from training.loop.distributed import World, joined
from training.loop.frozen.cache import Frozen, cache_features
from training.loop.frozen.folds import cross_validate
from training.loop.loggers import open_loggers
from training.loop.progress import Display
from training.loop.resume import Request, check_finished, check_output, complete
from training.loop.signals import handle_signals
from training.loop.validate import Predictions, validate
from training.loop.write_bundle import Outcome, write_bundle
from training.optim.precision import precision
from training.optim.transfer import HEAD


def train(request: Request) -> Bundle | None:
    """Start or continue the run and write its bundle; call it in every process.

    Args:
        request: resolved settings, data and lineage.

    Returns:
        The bundle in the main process, None in the others.

    Raises:
        HalftoneError: the request can't be carried out, or training diverged.
        StoppedError: the user stopped the run; its state is saved.
    """
    folder = RunFolder(request.config.output)
    with joined(request.config.running.device) as world, contextlib.ExitStack() as stack:

        def prepare() -> None:
            stack.enter_context(folder.locked())
            stack.enter_context(_no_trace(folder))
            _prepare(request, folder)

        world.first(prepare)
        if world.device.type == "cpu":
            stack.enter_context(freed_memory_kept())
        try:
            bundle = _train(request, folder, world)
        except CorruptDataError as error:
            check = f"python -m training.data --data {shlex.quote(request.config.data)} --check"
            raise HalftoneError(f"{error}; `{check}` lists all of them at once") from None
        if world.main:
            folder.finish()
        return bundle


@contextlib.contextmanager
def _no_trace(folder: RunFolder) -> Iterator[None]:
    """Leave nothing of a run that ends without a checkpoint, so that the corrected command can start."""
    try:
        yield
    except BaseException:
        folder.abandon()
        raise


def _prepare(request: Request, folder: RunFolder) -> None:
    """Record the identity of the run, or raise HalftoneError if the folder holds another unfinished run."""
    config = request.config
    # Under the lock: another run may have written its bundle since the request was resolved.
    check_output(config)
    check_finished(request)
    if complete(config.output):
        # The run is finished; `train` removes what it needed meanwhile.
        return
    if config.restart:
        folder.discard()
    identity = request.identity
    unfinished = folder.identity()
    if unfinished is None or not folder.has_checkpoint():
        folder.discard()
        folder.begin(identity)
    elif unfinished != identity:
        raise HalftoneError(
            f"an unfinished run of {config.output} was started with other {_difference(unfinished, identity)}: "
            f"continue it with `python -m training --output {config.output} --resume`, or discard it with --restart"
        )


def _difference(theirs: Any, ours: Any, path: str = "") -> str:
    """Describe the first difference of two nested settings."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in {**theirs, **ours}:
            if theirs.get(name) != ours.get(name):
                return _difference(theirs.get(name), ours.get(name), f"{path}.{name}".removeprefix("."))
    name = path.removeprefix("config.").removeprefix("settings.")
    return f"settings ({name}: {theirs!r}, now {ours!r})"


def _train(request: Request, folder: RunFolder, world: World) -> Bundle | None:
    config, data = request.config, request.data
    if complete(config.output):
        return Bundle.open(config.output) if world.main else None
    parts, frozen = cache_features(build(config, data, world), config, data, world)
    loop = parts.loop
    resumed = loop.restore(folder)
    steps = config.settings.epochs * loop.steps_per_epoch
    # Only the main process draws and logs.
    names = config.running.log if world.main else ()
    with Display(steps=steps, done=loop.global_step(), quiet=not world.main) as display, handle_signals() as stop:
        if world.main:
            _announce(display, request, parts, resumed=resumed)
        loggers = open_loggers(
            names, folder=folder.path, name=config.name, config=config.identity(), step=loop.global_step()
        )
        try:
            loop.run(folder, display, loggers, stop, checkpoint_seconds=config.running.checkpoint_minutes * 60)
        finally:
            for logger in loggers:
                logger.close()
    return _finish(request, folder, world, parts, frozen)


def _announce(display: Display, request: Request, parts: Parts, *, resumed: bool) -> None:
    config, data, loop = request.config, request.data, parts.loop
    lowest = loop.learner.freezing.lowest_trained(loop.position.epoch)
    trained = {0: "all layers are trained", HEAD: "the head is trained"}.get(
        lowest, f"stages {lowest + 1} to 4 and the head are trained"
    )
    dtype = str(loop.learner.precision.dtype).removeprefix("torch.")
    test = f"{len(data.test)} test pictures, " if data.test is not None else ""
    display.say(
        f"{config.name}: {config.model} at {parts.spec.size} px on {data.description}: {len(data.train)} training "
        f"pictures, {len(data.val)} validation pictures, {test}{len(data.train.labels)} classes"
    )
    epochs, steps = config.settings.epochs, loop.steps_per_epoch
    display.say(
        f"recipe {config.recipe}: {epochs} epoch{'s' * (epochs != 1)} of {steps} step{'s' * (steps != 1)}, {trained}, "
        f"{dtype}, from {parts.start.source}"
    )
    for reason in (str(parts.decision), left_out(config)):
        if reason:
            display.say(reason)
    for warning in (*data.warnings, *find_duplicates(data).warnings(), *parts.warnings):
        display.say(f"warning: {warning}")
    if resumed:
        display.say(f"resuming after {loop.position.epoch} epochs and {loop.position.step} steps")


def _finish(request: Request, folder: RunFolder, world: World, parts: Parts, frozen: Frozen | None) -> Bundle | None:
    loop, learner = parts.loop, parts.loop.learner
    position = loop.position
    learner.module.load_state_dict(folder.load_best(position.best_epoch))
    # The reference for every exported variant is FP32.
    fp32 = replace(learner.precision, dtype=torch.float32)
    predictions = validate(learner.module, loop.normalise, loop.validation, fp32, world)
    unreadable, test = loop.unreadable(), None
    if request.data.test is not None:
        # Read once: nothing that follows changes the model.
        feed = held_out_feed(request.config, request.data.test, parts.spec, world)
        exact = precision("off", parts.start.module, world.device, backbone_trained=False)
        test = validate(parts.start.module, parts.normalise, feed, exact, world)
        unreadable["test"] = feed.pictures.names(world.union(feed.pictures.broken()))
    against = _compare_with_predecessor(request, parts, test or predictions, world)
    world.wait()
    if not world.main:
        return None
    outcome = Outcome(
        start=parts.start,
        history=position.history,
        best_epoch=position.best_epoch,
        predictions=predictions,
        test=test,
        cross_validation=cross_validate(parts, frozen, request.data.train.labels) if frozen else {},
        against=against,
        unreadable=unreadable,
        arithmetic=str(learner.precision.dtype).removeprefix("torch."),
        decision=parts.decision.to_dict(),
    )
    return write_bundle(request, parts.network, parts.spec, outcome)


def _compare_with_predecessor(request: Request, parts: Parts, held_out: Predictions, world: World) -> Against | None:
    """Compare the trained network with the one of `--from`; None without one. Call it in every process.

    Args:
        request: settings and data.
        parts: of the run, with the trained weights.
        held_out: its predictions on the test part, or else on the validation part.
        world: the processes that train together.
    """
    if not request.config.from_:
        return None
    bundle, data = open_bundle(request.config.from_), request.data
    manifest, labels = bundle.manifest, data.train.labels
    old = load_module(bundle)

    def classes(module: torch.nn.Module, spec: InputSpec, pictures: Pictures) -> npt.NDArray[np.int64]:
        """Return the answer for each image; -1 for one that can't be read."""
        exact = precision("off", module, world.device, backbone_trained=False)
        feed = held_out_feed(request.config, pictures, spec, world)
        found = validate(exact.place(module), Normalise(spec).to(world.device), feed, exact, world)
        answers = np.full(len(pictures), -1, dtype=np.int64)
        answers[found.pictures] = found.logits.argmax(dim=1).numpy()
        return answers

    before = classes(old, manifest.input, data.test or data.val)[held_out.pictures]
    rows: tuple[Row, ...] = ()
    if data.added is not None and len(data.added.pictures) >= world.size:
        added = data.added.pictures
        answers = zip(classes(old, manifest.input, added), classes(parts.start.module, parts.spec, added), strict=True)
        rows = tuple(
            Row(name=added.name(index), label=labels[added.targets[index]], before=labels[was], now=labels[now])
            for index, (was, now) in enumerate(answers)
            if was >= 0
        )
    return Against(
        name=bundle.name,
        version=manifest.version,
        part="validation" if data.test is None else "test",
        held_out=compare(before, held_out.logits.argmax(dim=1).numpy(), held_out.targets.numpy(), labels),
        added=rows,
    )
