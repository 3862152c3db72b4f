"""The collector: which pictures it keeps and what of them, its queue, its failures, its command."""

import errno
import io
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.common.errors import HalftoneError
from models.preprocess.collected import LONGEST, Answer, collected_pictures, read_answer
from models.preprocess.decode import MAX_PIXELS, decode
from serving.collect.collector import Collector, Result, Source
from serving.collect.store import UNLIMITED, Store
from serving.lifecycle.shadow import Shadow
from serving.process.idle_work import MOST_BYTES, MOST_WAITING
from serving.settings import Settings
from serving.telemetry.shadow_metrics import ComparisonRecorder
from tests.commands import run
from tests.servers import PHOTOS, wait_until
from tests.serving.lifecycle.test_shadow import Fixed

CAT = (PHOTOS / "cat.jpg").read_bytes()
SOURCE = Source("pets", "1a2b", "openvino-fp32")
SURE = {"predictions": [{"label": "cat", "index": 0, "probability": 0.9}], "confident": True, "unfamiliar": False}
UNSURE = SURE | {"confident": False}
FOREIGN = UNSURE | {"unfamiliar": True}

Make = Callable[..., Collector]


@pytest.fixture
def counts() -> Counter[Result]:
    return Counter()


@pytest.fixture
def make(tmp_path: Path, counts: Counter[Result]) -> Iterator[Make]:
    """Make collectors into `tmp_path / "kept"`, closed at the end."""
    (tmp_path / "kept").mkdir()
    made: list[Collector] = []

    def make_one(shares: str = "", *, start: bool = True, idle: Callable[[], bool] = lambda: True) -> Collector:
        chosen = Settings.from_environment({"HALFTONE_COLLECT_SHARES": shares}).shares
        counter: Any = lambda result: counts.update([result])  # noqa: E731
        store = Store(tmp_path / "kept", UNLIMITED)
        made.append(Collector(store, chosen, max_pixels=MAX_PIXELS, idle=idle, count=counter))
        if start:
            made[-1].start()
        return made[-1]

    yield make_one
    for each in made:
        each.close()


def done(counts: Counter[Result], number: int) -> None:
    wait_until(lambda: counts.total() >= number, f"{number} pictures were worked on")


def picture(seed: int, *, side: int = 8) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_what_the_model_was_not_sure_of_is_kept_with_its_answer(
    make: Make, counts: Counter[Result], tmp_path: Path
) -> None:
    make("random=0").offer(
        [picture(1), picture(2), picture(3), b"", picture(4)],
        [SURE, UNSURE, FOREIGN, ValueError("no picture"), {"predictions": SURE["predictions"]}],
        SOURCE,
    )
    done(counts, 2)

    assert counts == {"unconfident": 1, "unfamiliar": 1}
    by_reason = {read_answer(path).reason: read_answer(path) for path in collected_pictures(tmp_path / "kept")}
    assert by_reason["unconfident"] == Answer(
        model="pets",
        version="1a2b",
        variant="openvino-fp32",
        time=by_reason["unconfident"].time,
        reason="unconfident",
        predictions=(("cat", 0.9),),
        confident=False,
        unfamiliar=False,
    )


def test_a_share_of_all_others_is_kept_and_the_same_pixels_once(make: Make, counts: Counter[Result]) -> None:
    collector = make("random=1,unconfident=0")
    for _ in range(3):
        collector.offer([picture(1)], [UNSURE], SOURCE)
    done(counts, 3)

    assert counts == {"random": 1, "known": 2}
    assert collector.contents().pictures == 1


def test_nothing_of_a_camera_is_kept(make: Make, counts: Counter[Result], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    file = io.BytesIO()
    with Image.open(PHOTOS / "cat.jpg") as cat:
        cat.resize((2000, 1200)).save(file, "JPEG", exif=exif, comment=b"my cat")

    make().offer([file.getvalue()], [UNSURE], SOURCE)
    done(counts, 1)

    (path,) = collected_pictures(tmp_path / "kept")
    data = path.read_bytes()
    assert b"a camera" not in data
    assert b"my cat" not in data
    with Image.open(path) as kept:
        assert not kept.getexif()
        # Turned upright, and reduced.
        assert kept.size == (614, LONGEST)


def test_a_small_picture_changes_by_a_few_grey_levels(make: Make, counts: Counter[Result], tmp_path: Path) -> None:
    make().offer([CAT], [UNSURE], SOURCE)
    done(counts, 1)

    (path,) = collected_pictures(tmp_path / "kept")
    small = decode(CAT).shape[:2]
    assert max(small) <= LONGEST
    assert np.abs(decode(path.read_bytes()).astype(int) - decode(CAT)).mean() < 2


def test_a_full_queue_drops_the_new_picture_and_does_not_wait(make: Make, counts: Counter[Result]) -> None:
    collector = make(start=False)
    for seed in range(MOST_WAITING + 5):
        collector.offer([picture(seed)], [UNSURE], SOURCE)
    assert counts == {"dropped": 5}

    assert collector.clear() == 0
    big = bytes(MOST_BYTES // 2)
    collector.offer([big, big, picture(1)], [UNSURE] * 3, SOURCE)
    assert counts == {"dropped": 6}


def test_it_waits_for_idle_time_but_not_for_ever(make: Make, counts: Counter[Result]) -> None:
    asked = threading.Event()

    def busy() -> bool:
        asked.set()
        return False

    make(idle=busy).offer([picture(1)], [UNSURE], SOURCE)
    done(counts, 1)

    assert asked.is_set()
    assert counts == {"unconfident": 1}


def test_a_failure_is_counted_and_logged_once_until_it_works_again(
    make: Make,
    counts: Counter[Result],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    collector = make()
    with caplog.at_level(logging.INFO, "bentoml.halftone"):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            collector.offer([picture(1), picture(2), b"broken"], [UNSURE] * 3, SOURCE)
            done(counts, 3)
        collector.offer([picture(3)], [UNSURE], SOURCE)
        done(counts, 4)

    assert counts == {"failed": 3, "unconfident": 1}
    assert [record.message for record in caplog.records] == [
        "pictures can't be collected (No space left on device); further failures are only counted",
        "pictures are collected again",
    ]


def test_a_disagreement_with_the_reference_is_kept_as_the_model_saw_it(
    make: Make, counts: Counter[Result], tmp_path: Path
) -> None:
    collector = make()
    shadow = Shadow(
        Fixed(0.0, 9.0),
        share=1,
        idle=lambda: True,
        temperature=1.0,
        recorder=ComparisonRecorder(None, "m", "v", min_agreement=0.99),
        disagreed=lambda pixels, logits: collector.disagreed(pixels, SURE, SOURCE),
    )
    shadow.offer([np.zeros((224, 224, 3), np.uint8)], np.eye(1, 1000, dtype=np.float32))
    done(counts, 1)
    shadow.close()

    assert counts == {"disagree": 1}
    (path,) = collected_pictures(tmp_path / "kept")
    assert decode(path.read_bytes()).shape == (224, 224, 3)


@pytest.mark.parametrize("shares", ["random", "random=2", "random=nan", "often=1", "random=1;disagree=0"])
def test_wrong_shares_are_refused(shares: str) -> None:
    with pytest.raises(HalftoneError, match=r"HALFTONE_COLLECT_SHARES must be a list such as random=0\.01"):
        Settings.from_environment({"HALFTONE_COLLECT_SHARES": shares})


def test_the_command_counts_and_deletes(make: Make, counts: Counter[Result], tmp_path: Path) -> None:
    make().offer([picture(1), picture(2), picture(3)], [UNSURE, UNSURE, FOREIGN], SOURCE)
    done(counts, 3)
    (tmp_path / "kept" / "labels.csv").touch()

    told = run("serving.collect", "--folder", tmp_path / "kept")
    counted = json.loads(run("serving.collect", "--folder", tmp_path / "kept", "--json").stdout)
    deleted = run("serving.collect", "--folder", tmp_path / "kept", "--delete")

    assert "3 pictures" in told.stdout
    assert (counted["pictures"], counted["reasons"]) == (3, {"unconfident": 2, "unfamiliar": 1})
    assert deleted.stdout.startswith("deleted 3 pictures")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"labels.csv", ".lock"}


def test_a_file_that_is_no_collected_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{1:032x}.jpg").write_bytes(CAT)

    refused = run("serving.collect", "--folder", tmp_path)

    assert refused.returncode == 2
    assert f"{1:032x}.jpg is no collected picture" in refused.stderr
