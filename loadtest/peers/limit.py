"""Upper limit of every server: decoding and the model in a loop on every core, without HTTP or a queue.

`python -m loadtest.peers.limit --pictures FOLDER --seconds 4 --batch 1` prints one line of JSON. Each of PEER_THREADS
threads takes the pictures in turn, decodes `batch` of them and runs them through the engine PEER_VARIANT.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np

from loadtest.peers.shared import Model, threads


class Loop(threading.Thread):
    """Thread that decodes and classifies pictures until the end.

    Args:
        model: shared by the threads.
        pictures: files' bytes.
        batch: pictures a run.
        end: monotonic time at which to stop.
    """

    def __init__(self, model: Model, pictures: list[bytes], batch: int, end: float) -> None:
        super().__init__()
        self._model, self._pictures, self._batch, self._end = model, pictures, batch, end
        #: (position in `pictures`, class index) of every picture done
        self.done: list[tuple[int, int]] = []
        #: seconds of every run, decoding included
        self.seconds: list[float] = []

    def run(self) -> None:
        """Work until the time is up."""
        position = 0
        while (start := time.monotonic()) < self._end:
            turn = [(position + i) % len(self._pictures) for i in range(self._batch)]
            logits = self._model.run(np.stack([self._model.pixels(self._pictures[i]) for i in turn]))
            self.done += zip(turn, logits.argmax(axis=1).tolist(), strict=True)
            self.seconds.append(time.monotonic() - start)
            position = (position + self._batch) % len(self._pictures)


def loop(model: Model, pictures: list[bytes], batch: int, seconds: float) -> tuple[list[Loop], float]:
    """Run the threads; return them and the seconds that they took."""
    start = time.monotonic()
    loops = [Loop(model, pictures, batch, start + seconds) for _ in range(threads())]
    for each in loops:
        each.start()
    for each in loops:
        each.join()
    return loops, time.monotonic() - start


def main() -> None:
    """Warm up, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    files = sorted(arguments.pictures.iterdir())
    pictures = [file.read_bytes() for file in files]
    model = Model(threads())
    loop(model, pictures, arguments.batch, min(1.0, arguments.seconds))
    loops, seconds = loop(model, pictures, arguments.batch, arguments.seconds)
    answers = [[files[i].name, index] for each in loops for i, index in each.done]
    print(json.dumps({"seconds": seconds, "runs": [s for each in loops for s in each.seconds], "answers": answers}))


if __name__ == "__main__":
    main()
