"""The reference network gives the same classes with our preprocessing and with timm's evaluation transform."""

from pathlib import Path

import numpy as np
import timm.data
from PIL import Image

from export.variants import load
from models.bundle.bundle import Bundle
from models.preprocess.transform import load as load_picture
from tests.servers import PHOTOS


def test_same_top1_as_timms_transform_on_the_sample_photos(artifacts: Path) -> None:
    bundle = Bundle.open(artifacts / "efficientnet_lite0")
    transform = timm.data.create_transform(
        (3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )
    photos = sorted(PHOTOS.glob("*.jpg"))
    theirs = [transform(Image.open(path).convert("RGB")).numpy().transpose(1, 2, 0) * 255 for path in photos]
    ours = [load_picture(path.read_bytes(), bundle.manifest.input) for path in photos]
    reference = load(bundle, "torch-fp32", threads=2)

    expected = reference.run(np.stack(theirs).round().astype(np.uint8)).argmax(axis=1)

    assert reference.run(np.stack(ours)).argmax(axis=1).tolist() == expected.tolist()
