"""`python -m export.ensemble --models A,B --name NAME`: join trained models of the same classes into one.

    python -m export.ensemble --models photos,photos_vit --name both --data photos
    python -m export --model both --data photos

The answer of the new bundle is the mean of its members' calibrated probabilities, from one graph. It takes the image of
the member that needs the most pixels; the others' views are resampled from it inside the graph. What that changes is
measured here, on each member's own preprocessing of the same pictures, and the bundle is written only if it is little.
The new bundle has its own copy of the weights. It is exported, proved, evaluated and served like any other. About a
minute for EfficientNet-Lite0 and Lite1 on one core.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from export.parity.card import JOINING, write_card
from export.parity.gate import Gate
from export.parity.images import proof_images
from export.parity.metrics import compare
from export.runtime import Logits
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.commands import export_command
from models.bundle.manifest import Manifest, Member
from models.bundle.store import bundle_folder, check_name, exporting, has_bundle, open_bundle
from models.common.cli import ANSWER_IS_NO, DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.host import host
from models.common.statistics import softmax
from models.common.text import printable
from models.dataset import TRAINING_PICTURES, check_folder, training_digests
from models.spec import InputSpec

PROG = "python -m export.ensemble"
BATCH = 32

RESAMPLED = Gate(min_agreement=0.98, max_mean_kl=0.01, min_correlation=0.98, max_shift=0.1, max_scaling=0.03)
"""Limits on what resampling inside the graph may change, if the members' inputs differ; else FP32's apply."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(JsonOutput):
    """Join bundles with the same classes into one, whose answer is the mean of their calibrated probabilities."""

    models: str
    """Two bundles under artifacts/ or more, separated by commas; sizes of input, crops and networks may differ."""

    name: str
    """Name of the new bundle."""

    data: Path | None = None
    """Folder of labelled pictures to compare the joined graph with its members on; default: the sample photographs."""

    def __post_init__(self) -> None:
        check_name(self.name)
        names = self.members
        if len(names) < 2:
            raise HalftoneError(f"--models {self.models} names one bundle: name two or more, as in --models a,b")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise HalftoneError(f"--models names {twice} twice: an ensemble needs different members")
        if self.name in names:
            raise HalftoneError(f"--name {self.name} is a member: choose another name for the ensemble")

    @property
    def members(self) -> list[str]:
        """Names of the bundles to join."""
        return [name for each in self.models.split(",") if (name := each.strip())]


def describe_members(bundles: Sequence[Bundle]) -> tuple[Member, ...]:
    """Return the descriptions of the members, with the classes in the order of the first one's.

    Raises:
        HalftoneError: their classes differ, or one of them is an ensemble.
    """
    first = bundles[0].manifest
    for bundle in bundles:
        if bundle.manifest.members:
            names = ",".join(member.name for member in bundle.manifest.members)
            raise HalftoneError(f"{bundle.name} is an ensemble itself: name its members ({names}) with --models")
        _check_classes(bundles[0], bundle)
    return tuple(
        Member(
            name=bundle.name,
            version=bundle.manifest.version,
            architecture=bundle.manifest.architecture,
            input=bundle.manifest.input,
            temperature=bundle.manifest.temperature,
            order=_order(first.labels, bundle.manifest.labels),
        )
        for bundle in bundles
    )


def joint_input(inputs: Sequence[InputSpec]) -> InputSpec:
    """Return the input from which each member's view can be cut out and reduced, with mean 0 and standard deviation 1.

    It shows as much of the image as the member that sees most of it, with the pixels of the member that needs most.
    """
    widest = max(inputs, key=lambda spec: (_share(spec), spec.size))
    # Shares differ by rounding between inputs of the same rule; edges are continued, so that half a pixel is no matter.
    needed = [(math.ceil(spec.size * _share(widest) / _share(spec) - 0.5), spec) for spec in inputs]
    size, largest = max(needed, key=lambda each: each[0])
    return InputSpec(
        size=size,
        interpolation=largest.interpolation,
        crop_fraction=widest.crop_fraction,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def join(config: EnsembleConfig, bundles: Sequence[Bundle], progress: Progress) -> tuple[Bundle | None, dict[str, Any]]:
    """Write the ensemble's bundle if its graph answers as its members do.

    Args:
        config: the request.
        bundles: the members.
        progress: display that gets a task for the comparison.

    Returns:
        The bundle, None if the graph differs too much; and the comparison: `verdict`, `reasons`, `data`, `figures`.

    Raises:
        HalftoneError: the classes differ, the pictures can't be used, or there is a bundle of that name.
    """
    manifest = _manifest(config.name, bundles)
    command = f"`{PROG} --models {','.join(config.members)} --name {config.name}`"
    comparison: dict[str, Any] = {}
    try:
        with Bundle.creating(bundle_folder(config.name), manifest) as bundle:
            _write(bundle, bundles, command)
            comparison = _compared(bundle, bundles, config.data, progress)
            if comparison["verdict"] == "FAILED":
                raise _RefusedError
            bundle.write(JOINING, json.dumps(comparison, indent=1).encode(), made_by=command, made_from=[WEIGHTS])
            write_card(bundle)
    except _RefusedError:
        return None, comparison
    return bundle, comparison


class _RefusedError(Exception):
    """The graph differs too much from the members: its bundle is removed."""


def _write(bundle: Bundle, members: Sequence[Bundle], command: str) -> None:
    """Write the weights of all members, and the record of the pictures that any of them was trained on."""
    # Imported here, as PyTorch takes seconds to load.
    from models.checkpoint import load_module, save_weights
    from models.graph import Ensemble

    manifest = bundle.manifest
    networks = [load_module(member) for member in members]
    save_weights(bundle, Ensemble(networks, manifest.members, manifest.input), made_by=command)
    digests = [each for member in members if (each := training_digests(member)) is not None]
    if digests:
        joined = np.unique(np.concatenate(digests)).astype("<u8").tobytes()
        bundle.write(TRAINING_PICTURES, joined, made_by=command, made_from=[WEIGHTS])


def _share(spec: InputSpec) -> float:
    """Return the share of the image's short side that the network sees."""
    first, last = spec.window
    return last - first


def _check_classes(first: Bundle, other: Bundle) -> None:
    ours, theirs = first.manifest.labels, other.manifest.labels
    for mine, yours, owner, lacking in ((ours, theirs, first, other), (theirs, ours, other, first)):
        if missing := next((label for label in mine if label not in yours), None):
            raise HalftoneError(
                f"{owner.name} has the class {missing!r} and {lacking.name} does not: only models of the same classes "
                "can be joined; train one of them again on the other's classes"
            )


def _order(labels: Sequence[str], own: Sequence[str]) -> tuple[int, ...]:
    places = {label: place for place, label in enumerate(own)}
    order = tuple(places[label] for label in labels)
    return () if order == tuple(range(len(own))) else order


def _manifest(name: str, bundles: Sequence[Bundle]) -> Manifest:
    manifests, members = [bundle.manifest for bundle in bundles], describe_members(bundles)
    licenses = {manifest.license for manifest in manifests}
    return Manifest(
        name=name,
        architecture="ensemble",
        input=joint_input([member.input for member in members]),
        labels=manifests[0].labels,
        label_ids=manifests[0].label_ids,
        trained=all(manifest.trained for manifest in manifests),
        source="; ".join(f"{member.name}: {each.source}" for member, each in zip(members, manifests, strict=True)),
        license=licenses.pop() if len(licenses) == 1 else "other",
        training=_common_training(manifests),
        members=members,
    )


def _common_training(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Return what the members' trainings have in common about their data: it finds the pictures that all held out."""
    names = ("data", "table", "val_share", "test_share", "seed", "limit")
    settings = [{name: each.training.get("config", {}).get(name) for name in names} for each in manifests]
    data = [each.training.get("data") for each in manifests]
    if data[0] is None or any(each != data[0] for each in data) or any(each != settings[0] for each in settings):
        return {}
    return {"data": data[0], "config": {name: value for name, value in settings[0].items() if value is not None}}


def _compared(bundle: Bundle, bundles: Sequence[Bundle], data: Path | None, progress: Progress) -> dict[str, Any]:
    """Compare the ensemble with the mean of its members' answers, each by its own preprocessing of the pictures."""
    manifest = bundle.manifest
    specs = [member.input for member in manifest.members]
    # The same pictures for each, at its own input: those that none of them was trained on.
    views = [_seen(bundle, spec) for spec in specs]
    images = proof_images(bundle, data)
    sources = [proof_images(view, data).batches(BATCH) for view in views]
    graph, own = _graph(bundle), [_graph(member) for member in bundles]
    task = progress.add_task("comparing the ensemble with its members", total=images.count)
    ours: list[Logits] = []
    theirs: list[Logits] = []
    pictures = []
    for batch, *others in zip(images.batches(BATCH), *sources, strict=True):
        ours.append(graph(batch.pixels))
        answers = [each(other.pixels) for each, other in zip(own, others, strict=True)]
        theirs.append(mean_logits(answers, manifest.members))
        pictures.append(batch.pictures)
        progress.advance(task, len(batch.pixels))
    figures = compare(np.concatenate(theirs), np.concatenate(ours), None, pictures=np.concatenate(pictures))
    same = all(replace(spec, mean=manifest.input.mean, std=manifest.input.std) == manifest.input for spec in specs)
    gate = Gate.for_precision("fp32") if same else RESAMPLED
    reasons = gate.reasons_to_fail(figures, trained=manifest.trained, labels=manifest.labels)
    return {
        "verdict": "FAILED" if reasons else "PASSED",
        "reasons": reasons,
        "resampled": not same,
        "data": images.description,
        "gate": asdict(gate),
        "figures": figures,
        "host": host(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def mean_logits(answers: Sequence[Logits], members: Sequence[Member]) -> Logits:
    """Return logits float32 (N, C) whose softmax is the mean of the members' calibrated probabilities.

    Args:
        answers: float32 (N, C) of each member, in the order of its own outputs.
        members: their descriptions.
    """
    ordered = [
        each[:, list(member.order)] if member.order else each for each, member in zip(answers, members, strict=True)
    ]
    probabilities = np.mean(
        [softmax(each, member.temperature) for each, member in zip(ordered, members, strict=True)], axis=0
    )
    highest = [each.max(axis=1, keepdims=True).astype(np.float64) for each in ordered]
    energies = [
        top + np.log(np.exp(each - top).sum(axis=1, keepdims=True)) for each, top in zip(ordered, highest, strict=True)
    ]
    log = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return np.asarray(log + np.mean(energies, axis=0), dtype=np.float32)


def _seen(bundle: Bundle, spec: InputSpec) -> Bundle:
    """Return the bundle with another input."""
    return Bundle(bundle.folder, replace(bundle.manifest, input=spec))


def _graph(bundle: Bundle) -> Any:
    """Return the FP32 network: uint8 pixels to float32 logits."""
    from export.variants import REFERENCE, load
    from models.common.host import cores

    return load(bundle, REFERENCE, threads=cores()).run


def _in_words(comparison: dict[str, Any]) -> str:
    figures = comparison["figures"]
    what = "their own preprocessing" if comparison["resampled"] else "the same input"
    decided, agreement = figures["decided_images"], figures["decided_agreement"]["value"]
    answers = f"the same answer on {agreement:.2%} of {decided:,} clear images, " if decided else ""
    return (
        f"against its members on {what}: {answers}mean KL {figures['mean_kl']:.1e} "
        f"({figures['images']:,} images of {figures['pictures']:,} pictures, {comparison['data']})"
    )


def _main(config: EnsembleConfig) -> int:
    bundles = [open_bundle(name) for name in config.members]
    describe_members(bundles)
    if config.data is not None:
        check_folder(config.data)
    if has_bundle(config.name):
        raise HalftoneError(
            f"{bundle_folder(config.name)} holds a bundle already: choose another --name, or remove that folder"
        )
    console = Console(stderr=True)
    with exporting(config.name), Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bundle, comparison = join(config, bundles, progress)
    publish({"bundle": None if bundle is None else str(bundle.folder), "comparison": comparison})
    print(_in_words(comparison))
    if bundle is None:
        print(
            f"FAILED: {'; '.join(comparison['reasons'])}. Nothing was written: give the members the same --size and "
            "--crop-fraction, or compare on pictures like theirs with --data"
        )
        return ANSWER_IS_NO
    print(f"wrote {printable(bundle.folder)}: {' + '.join(config.members)}")
    print(f"export and prove it with `{printable(export_command(bundle.folder, str(config.data or '')))}`")
    return DONE


if __name__ == "__main__":
    run(_main, EnsembleConfig, prog=PROG, example="--models photos,photos_vit --name both --data photos")
