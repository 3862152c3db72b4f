"""Training request: settings, data and lineage, resolved or refused before PyTorch is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.bundle.bundle import Bundle
from models.bundle.errors import BundleError
from models.bundle.manifest import FILE_NAME
from models.bundle.store import open_bundle
from models.catalog import architecture
from models.common.errors import HalftoneError
from models.common.files import sha256_file
from models.spec import NAMED_WEIGHTS
from training.config.flags import Flags, command_of, flags_between, flags_of
from training.config.train import NEEDED, Running, TrainConfig, choose_recipe, from_json, with_recipe
from training.data.additions import add_pictures
from training.data.load import load_data
from training.data.pictures import Data
from training.evaluation.leakage import with_classes_of
from training.loop.checkpoints import RunFolder

PROG = "python -m training"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training run with every setting resolved."""

    config: TrainConfig
    """With the values of the recipe, or the recorded ones of an unfinished run."""

    data: Data

    lineage: Mapping[str, Any]
    """Inputs of the run for the manifest: sizes and fingerprint of the data, hash of a weights file, version of the
    teacher. A run is resumed only if they are equal. Empty in all processes but the main one, which records it."""

    @property
    def identity(self) -> dict[str, Any]:
        """Settings and lineage, as they are recorded: as JSON reads them back."""
        recorded: dict[str, Any] = json.loads(json.dumps({"config": self.config.identity(), **self.lineage}))
        return recorded


def resolve(config: TrainConfig) -> Request:
    """Return the request of the command line: with the recorded settings of an unfinished run, or the recipe's.

    Raises:
        HalftoneError: the output folder is not empty, there is no run to resume, or the data, model, recipe, weights
            or teacher can't be used.
    """
    check_output(config)
    if config.resume:
        config = _recorded(config)
        return _request(config, _load(config))
    if not (config.data and (config.model or config.from_)):
        raise _incomplete(config)
    config = _with_model(config)
    network, data = architecture(config.model), _load(config)
    recipe = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    return _request(with_recipe(config, recipe, sys.argv[1:], prog=PROG), data)


def request_with(config: TrainConfig, data: Data) -> Request:
    """Return the request of a library call, whose settings are complete and whose data is loaded.

    Raises:
        HalftoneError: the output folder is not empty, or the weights or the teacher can't be used.
    """
    check_output(config)
    return _request(config, data)


def main_process() -> bool:
    """Return True in a process of its own and in rank 0 of several processes under torchrun."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def complete(output: Path) -> bool:
    """Return True if the output folder holds a bundle; under the lock of an accepted run, it is that of the run."""
    return (output / FILE_NAME).is_file()


def finished(request: Request) -> bool:
    """Return True if the output folder holds the bundle that this request makes, in the main process."""
    trained = _trained(request.config.output)
    return trained is not None and {name: trained.get(name) for name in request.identity} == request.identity


def nothing_left(request: Request) -> bool:
    """Return True if the request is finished and its checkpoints are removed; for a process of its own."""
    return finished(request) and RunFolder(request.config.output).identity() is None


def _trained(output: Path) -> dict[str, Any] | None:
    """Return the record of the training in the output folder's bundle; None without a bundle that was trained."""
    if not complete(output):
        return None
    try:
        training = Bundle.open(output).manifest.training
    except BundleError:
        return None
    return training if "config" in training else None


def _with_model(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the architecture of the bundle that it goes on from."""
    if not config.from_:
        return config
    manifest = open_bundle(config.from_).manifest
    if len(manifest.architectures) > 1:
        raise HalftoneError(f"--from {config.from_} is an ensemble, and can't be trained as one: name a single model")
    if config.model not in ("", manifest.architecture):
        raise HalftoneError(f"--from {config.from_} is a {manifest.architecture}, not a {config.model}: omit --model")
    return replace(config, model=manifest.architecture)


def _load(config: TrainConfig) -> Data:
    data = load_data(
        config.data,
        val_share=config.val_share,
        test_share=config.test_share,
        seed=config.seed,
        limit=config.limit,
        columns=config.table,
    )
    if config.from_:
        data = with_classes_of(data, open_bundle(config.from_))
    return data if config.add is None else add_pictures(data, config.add)


def _recorded(config: TrainConfig) -> TrainConfig:
    recorded = _of_run(config.output)
    if recorded is None:
        raise HalftoneError(f"{config.output} has no unfinished run to resume: start one with --data and --model")
    if changed := _given(config):
        raise HalftoneError(
            f"--resume continues a run with its recorded settings, so {', '.join(changed)} can't be changed: leave "
            f"those flags out, or {_start_again(config)}"
        )
    return TrainConfig(**{**vars(recorded), "running": config.running})


def _of_run(output: Path) -> TrainConfig | None:
    """Return the recorded settings of an output's run; None without one.

    Raises:
        HalftoneError: another version recorded them.
    """
    # Those of a finished run are in its bundle.
    run = RunFolder(output).identity() or _trained(output)
    return None if run is None else from_json(TrainConfig, run["config"] | {"output": str(output)})


def _given(config: TrainConfig) -> Flags:
    """Return the flags of the command line that change the weights."""
    plain = TrainConfig(output=config.output, resume=config.resume, restart=config.restart, running=config.running)
    return flags_between(plain, config)


def _start_again(config: TrainConfig) -> str:
    """Return how to discard an output's run for one with the flags that are given and those of the run."""
    output, flags = config.output, None
    # The settings of another version have no flags.
    with contextlib.suppress(HalftoneError):
        flags = None if (run := _of_run(output)) is None else flags_of(run)
    remove = f"remove {output} (`{_removal(output)}`) and " if complete(output) else ""
    if flags is None:
        return f"{remove}start again with all flags of the run and --restart"
    flags |= _given(config) | flags_between(Running(), config.running) | {"--output": ["--output", str(output)]}
    return f"{remove}start again with `{command_of(flags)} --restart`"


def _incomplete(config: TrainConfig) -> HalftoneError:
    """Return the error for a request without data or model, which only `--restart` lets through."""
    if RunFolder(config.output).identity() is None:
        return HalftoneError(NEEDED)
    return HalftoneError(
        f"--restart takes no settings from the run that it discards, and --data and --model are missing: "
        f"{_start_again(config)}"
    )


def _removal(output: Path) -> str:
    return shlex.join(["rm", "-r", str(output)])


def check_output(config: TrainConfig) -> None:
    """Refuse an output folder that is not empty, unless it holds the bundle of a run.

    Raises:
        HalftoneError: see above.
    """
    # Of several processes only the main one writes to the folder, so it alone reports the mistake.
    if not main_process():
        return
    output = config.output
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and (config.restart or _trained(output) is None):
        raise _not_empty(config)


def check_finished(request: Request) -> None:
    """Refuse an output folder with the bundle of another run than the requested one.

    Raises:
        HalftoneError: see above.
    """
    output = request.config.output
    if main_process() and complete(output) and not finished(request):
        raise _not_empty(request.config)


def _not_empty(config: TrainConfig) -> HalftoneError:
    output = config.output
    if _trained(output) is None:
        return HalftoneError(f"{output} is not empty: remove it to train again, or choose another --output")
    kept = ", which --restart does not discard" if config.restart else ""
    again = f"remove it (`{_removal(output)}`) and repeat the command" if config.data else _start_again(config)
    return HalftoneError(f"{output} holds the model of a finished run{kept}: {again}, or choose another --output")


def _request(config: TrainConfig, data: Data) -> Request:
    request = Request(config=config, data=data, lineage=_lineage(config, data) if main_process() else {})
    check_finished(request)
    return request


def _lineage(config: TrainConfig, data: Data) -> dict[str, Any]:
    lineage: dict[str, Any] = {
        "data": {
            "description": data.description,
            "train": len(data.train),
            "val": len(data.val),
            "fingerprint": data.fingerprint(),
        }
    }
    if data.added is not None:
        lineage["added"] = {
            "pictures": len(data.added.pictures),
            "fingerprint": data.added.pictures.fingerprint(),
            "left_out": list(data.added.left_out),
        }
    if config.from_:
        lineage["from_version"] = open_bundle(config.from_).manifest.version
    if config.weights not in NAMED_WEIGHTS:
        path = Path(config.weights)
        if not path.is_file():
            raise HalftoneError(f"--weights {path}: no such file; name one, or `pretrained` or `random`")
        lineage["weights_sha256"] = sha256_file(path)
    if config.settings.objective.teacher is not None:
        lineage["teacher_version"] = open_bundle(config.settings.objective.teacher).manifest.version
    return lineage
