"""`python -m training.choose --data DIR --output artifacts/NAME`: the network for your pictures and this machine.

    python -m training.choose --data photos --output artifacts/photos
    python -m training.choose --data photos --p99-ms 20 --candidates resnet18,vit_ti16 --output artifacts/photos

Measures the served speed of each candidate, screens those within the budget on frozen features in folds, and trains the
best few for more and more epochs (successive halving). Then it trains the choice in full, exports and proves it. Every
accuracy has its interval, and every comparison a paired test. A test part is read once, at the end. A repeated command
continues after a kill. Three candidates and 500 small pictures take about five minutes on two cores.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from models.bundle.accuracy import in_words
from models.bundle.bundle import WEIGHTS, Bundle
from models.catalog import architecture
from models.common.cli import ANSWER_IS_NO, DONE, INTERRUPTED, publish, run
from models.common.errors import HalftoneError
from models.common.text import printable
from training.choose.config import ChooseConfig
from training.choose.report import drawing, page, text
from training.choose.state import State
from training.data.load import load_data
from training.data.pictures import Data
from training.loop.resume import check_output, complete
from training.loop.signals import StoppedError

if TYPE_CHECKING:
    from training.choose.choice import Choice

PROG = "python -m training.choose"
PAGE, PICTURE, FIGURES = "report/choice.html", "report/choice.png", "report/choice.json"


def choose(config: ChooseConfig, console: Console) -> int:
    """Choose, train, export and prove; print the result and return the exit code.

    Raises:
        HalftoneError: the data or a candidate can't be used, or the output is not empty.
        StoppedError: the user stopped a run; its state is saved.
    """
    networks = {name: architecture(name) for name in config.names}
    check_output(config.request(next(iter(networks.values())), 0, config.output))
    data = load_data(
        config.data, val_share=config.val_share, test_share=config.test_share, seed=config.seed, columns=config.table
    )
    identity = _identity(config, data)
    if _finished(config, identity):
        print(printable(f"this choice is finished: {config.output} has its model; why: {config.output / PAGE}"))
        return DONE
    state = State(config.output, identity)
    # Importing PyTorch takes seconds: requests that can be refused without it are refused first.
    from training.choose.choice import Choice

    with state.alone():
        choice = Choice(config, networks, data, state, console)
        names = choice.within_budget()
        if not names:
            return _none(choice)
        bundle = choice.train(*choice.screen(names))
        code = _finish(config, choice, bundle, identity, state)
        state.finish()
    return code


def _identity(config: ChooseConfig, data: Data) -> dict[str, Any]:
    """Return what the found figures depend on."""
    return {
        "data": data.fingerprint(),
        "test": None if data.test is None else data.test.fingerprint(),
        "candidates": config.names,
        "size": config.size,
        "seed": config.seed,
    }


def _finished(config: ChooseConfig, identity: dict[str, Any]) -> bool:
    """Return True if the output is the bundle of this choice.

    Raises:
        HalftoneError: it is another one.
    """
    if not complete(config.output):
        return False
    bundle = Bundle.open(config.output)
    if bundle.has(FIGURES):
        document = json.loads(bundle.read(FIGURES))
        if document["identity"] == json.loads(json.dumps(identity)):
            publish(document)
            return True
    elif State(config.output, identity).get("epochs") is not None:
        # The choice was killed after its training.
        return False
    raise HalftoneError(f"{config.output} is not empty: remove it to choose again, or give another --output")


def _none(choice: Choice) -> int:
    choice.reasons.append("no candidate keeps the budget: name smaller ones with --candidates, or raise the limit")
    document = choice.document(None, {})
    publish(document)
    print(text(document, list(choice.rows.values())))
    return ANSWER_IS_NO


def _finish(config: ChooseConfig, choice: Choice, bundle: Bundle, identity: dict[str, Any], state: State) -> int:
    """Export and prove the bundle, write into it why it was chosen, and print that."""
    from training.choose.finish import export_and_prove, load_test

    choice.say("exporting and proving the choice")
    served = export_and_prove(bundle, config.data)
    broken = config.budget.broken_by(**served) if served else "no variant is proven"
    if broken:
        choice.reasons.append(f"as exported, it breaks the budget: {broken}")
    tested = None
    if config.p99_ms is not None and not broken:
        choice.say(f"load test: the highest rate that holds {config.p99_ms:g} ms")
        tested = load_test(bundle, config.p99_ms, state.folder)
        broken = choice.held(tested, config.p99_ms)
    bundle, rows = Bundle.open(bundle.folder), list(choice.rows.values())
    metrics = bundle.manifest.training["metrics"]
    choice.reasons[:0] = [f"{bundle.manifest.architecture}: {in_words(metrics)}"]
    final = {
        "accuracy": {name: value for name, value in metrics.items() if name.startswith(("cv", "test", "val"))},
        "served": served,
        "load_test": tested,
        "identity": identity,
    }
    document = choice.document(bundle.manifest.architecture, final)
    command = f"`{PROG} --data {config.data} --output {config.output}`"
    for name, content in (
        (PICTURE, drawing(rows)),
        (PAGE, page(document, rows, picture=PICTURE.rpartition("/")[2]).encode()),
        (FIGURES, f"{json.dumps(document, indent=1)}\n".encode()),
    ):
        bundle.write(name, content, made_by=command, made_from=[WEIGHTS])
    publish(document)
    print(text(document, rows))
    print(printable(f"wrote {bundle.folder}; why: {bundle.folder / PAGE}"))
    return ANSWER_IS_NO if broken else DONE


def _main(config: ChooseConfig) -> int:
    try:
        return choose(config, Console(stderr=True, soft_wrap=True, highlight=False))
    except StoppedError:
        print("stopped and saved: repeat the command to continue", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    run(_main, ChooseConfig, prog=PROG, example="--data photos --p99-ms 20 --output artifacts/photos")
