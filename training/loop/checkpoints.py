"""Checkpoints of an unfinished run, written atomically into the folder `.NAME.training/` next to the bundle.

    run.json                     identity of the run: settings, data fingerprint
    last-EPOCH-STEP/             weights.safetensors (the network) and resume.pt (optimiser, scaler, average, position)
    best-EPOCH/                  weights.safetensors of the best epoch so far
    tensorboard/                 the curves, which stay after the run

A checkpoint is written to a temporary folder, flushed, and renamed; only then is the old one removed. A process killed
at any moment, or a full disk, therefore leaves the last good one. Nothing is unpickled: `torch.load` reads plain values
only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from models.bundle.store import RUN, unfinished_training
from models.common.errors import HalftoneError
from models.common.files import write_atomic

LOCK, WEIGHTS, RESUME = "lock", "weights.safetensors", "resume.pt"

if TYPE_CHECKING:
    import torch

State: TypeAlias = "dict[str, torch.Tensor]"

NO_ROOM = 2**16
"""After a failed write, a disk with fewer free bytes counts as full."""


class RunFolder:
    """Folder of an unfinished run.

    Args:
        output: folder of the bundle that the run will write.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = unfinished_training(output)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the output against other runs.

        Raises:
            HalftoneError: another process has locked it, or the folder can't be created.
        """
        if any(parent.exists() and not parent.is_dir() for parent in self.path.parents):
            raise HalftoneError(f"--output {self.output}: {self.output.parent} is not a folder; choose another place")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except PermissionError:
            raise HalftoneError(
                f"--output {self.output}: {self.output.parent} can't be written: choose another place, or use `chmod`"
            ) from None
        with (self.path / LOCK).open("w") as file:
            try:
                # A record lock, unlike flock's, is not inherited by loader processes, which outlive a killed run.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise HalftoneError(
                    f"another process is training {self.output}: wait until it ends, or choose another --output"
                ) from None
            yield

    def identity(self) -> dict[str, Any] | None:
        """Return settings and lineage of the unfinished run; None if there is no such run."""
        path = self.path / RUN
        if not path.is_file():
            return None
        identity: dict[str, Any] = json.loads(path.read_text())
        return identity

    def has_checkpoint(self) -> bool:
        """Return True if there is a checkpoint to resume from."""
        return any(self.path.glob("last-*"))

    def begin(self, identity: dict[str, Any]) -> None:
        """Record settings and lineage of a new run."""
        write_atomic(self.path / RUN, (json.dumps(identity, indent=1) + "\n").encode())

    def discard(self) -> None:
        """Remove the files of an earlier run, including its curves."""
        # The identity first: after a kill, the remaining files must not pass for a run to resume.
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name != RUN):
            if entry.name != LOCK:
                _remove(entry)

    def abandon(self) -> None:
        """Remove what is there of a run that has no checkpoint; call it with the lock."""
        if self.has_checkpoint():
            return
        if self.identity() is not None:
            self.discard()
        (self.path / LOCK).unlink(missing_ok=True)
        # The curves of a finished run may be there.
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def finish(self) -> None:
        """Remove the files that only a resumed run needs; the curves stay."""
        # The identity last: after a kill, the same command still finishes the removal.
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == RUN):
            if entry.name != "tensorboard":
                _remove(entry)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def save_last(self, name: str, weights: State, resume: dict[str, Any], *, best_epoch: int) -> None:
        """Write the checkpoint to resume from.

        Args:
            name: sorts by progress, such as `00002-000000140`.
            weights: the network.
            resume: plain values and tensors.
            best_epoch: the best epoch up to this checkpoint; 0 before the first.

        Raises:
            HalftoneError: the disk is full or the folder can't be written; the previous checkpoint is intact.
        """
        import safetensors.torch
        import torch

        with self._writing(f"last-{name}") as folder:
            safetensors.torch.save_file(_on_cpu(weights), folder / WEIGHTS)
            torch.save(resume, folder / RESUME)
        for folder in sorted(self.path.glob("last-*"))[:-1]:
            _remove(folder)
        # Other best weights go last: until here a resumed run could still need them. Those of a later epoch, left by a
        # killed process, go too: a run resumed from this checkpoint trains that epoch again.
        for folder in self.path.glob("best-*"):
            if folder.name != _best(best_epoch):
                _remove(folder)

    def save_best(self, epoch: int, weights: State) -> None:
        """Write the weights of the best epoch; older ones stay until the next `save_last`.

        Raises:
            HalftoneError: see `save_last`.
        """
        import safetensors.torch

        with self._writing(_best(epoch)) as folder:
            safetensors.torch.save_file(_on_cpu(weights), folder / WEIGHTS)

    def load_last(self) -> tuple[State, dict[str, Any]] | None:
        """Return weights and resume state of the newest checkpoint, on the CPU; None if there is no checkpoint.

        Raises:
            HalftoneError: the checkpoint is damaged.
        """
        folders = sorted(self.path.glob("last-*"))
        if not folders:
            return None
        import safetensors.torch
        import torch

        try:
            resume = torch.load(folders[-1] / RESUME, map_location="cpu", weights_only=True)
            return safetensors.torch.load_file(folders[-1] / WEIGHTS), resume
        # Both libraries raise many types of errors for damaged files.
        except Exception as error:
            raise HalftoneError(
                f"the checkpoint {folders[-1]} is damaged ({type(error).__name__}): start again with --restart"
            ) from error

    def load_best(self, epoch: int) -> State:
        """Return the weights of the best epoch, on the CPU."""
        import safetensors.torch

        state: State = safetensors.torch.load_file(self.path / _best(epoch) / WEIGHTS)
        return state

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        from safetensors import SafetensorError

        target, temporary = self.path / name, self.path / f".{name}"
        _remove(temporary)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                _flush(path)
            _remove(target)
            temporary.rename(target)
            _flush(self.path)
        except (OSError, RuntimeError, SafetensorError) as error:
            full = _is_full(self.path, error)
            _remove(temporary)
            kept = sorted(path.name for path in self.path.glob("last-*"))
            raise _write_error(self.path, error, full=full, kept=kept) from error


def _best(epoch: int) -> str:
    return f"best-{epoch:05d}"


def _on_cpu(state: State) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _is_full(folder: Path, error: Exception) -> bool:
    """Return True if the disk is full."""
    # safetensors has the system's error in its text only, and torch.save says "write failed".
    known = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    return known or shutil.disk_usage(folder).free < NO_ROOM


def _write_error(folder: Path, error: Exception, *, full: bool, kept: list[str]) -> HalftoneError:
    cause = "the disk is full" if full else f"writing failed ({error})"
    previous = f"the previous checkpoint is intact ({kept[-1]})" if kept else "there was no previous checkpoint"
    return HalftoneError(
        f"{cause}: no checkpoint could be saved in {folder}; {previous}: free some space, then repeat the command"
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        # Renamed first: a partly removed folder must never pass for a checkpoint.
        doomed = path.with_name(f".{path.name.lstrip('.')}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
