from dataclasses import replace

import pytest

from models.common.errors import HalftoneError
from tests.training.memory import crops
from tests.training.runs import TINY, config
from training.loop.build import build
from training.loop.distributed import World


def built(tmp_path, *, train, batch, world=1):
    return build(config(tmp_path / "photos", replace(TINY, batch=batch)), crops(train=train), World(size=world))


def test_no_process_gets_a_single_picture(tmp_path):
    with pytest.raises(HalftoneError) as caught:
        built(tmp_path, train=9, batch=8, world=4)
    assert str(caught.value) == (
        "--batch 8 splits 9 training pictures so that a batch of one of the 4 processes has 1, but it needs two: use "
        "--batch 16 or more"
    )
    assert built(tmp_path, train=9, batch=16, world=4).loop.steps_per_epoch == 1
    with pytest.raises(HalftoneError, match="use fewer processes, or more pictures"):
        built(tmp_path, train=5, batch=16, world=4)
    with pytest.raises(HalftoneError, match=r"--batch 2 splits 9 training pictures .* use --batch 4 or more"):
        built(tmp_path, train=9, batch=2)
