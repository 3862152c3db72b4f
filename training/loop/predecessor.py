"""The network that a training went on from: its answers on the same images, beside those of the trained one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.bundle.store import open_bundle
from models.checkpoint import load_module
from models.graph import Normalise
from models.spec import InputSpec
from training.data.pictures import Pictures
from training.evaluation.against import Against, Row, compare
from training.loop.build import Parts, held_out_feed
from training.loop.distributed import World
from training.loop.resume import Request
from training.loop.validate import Predictions, validate
from training.optim.precision import precision


def compare_with_predecessor(request: Request, parts: Parts, held_out: Predictions, world: World) -> Against | None:
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
