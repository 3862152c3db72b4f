"""`python -m export.explain`: one image in, one PNG out, mistakes in one line."""

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.explain.__main__ import ExplainConfig
from export.explain.classes import class_index
from export.explain.overlay import MARGIN, SIDE, TILE, overlay, render, render_heads
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.resolve import open_or_create
from tests.commands import run
from tests.samples import noise
from tests.servers import PHOTOS

CAT = PHOTOS / "cat.jpg"


def command(default: Bundle, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(default.folder.parent)}
    return run("export.explain", "--model", default.manifest.name, *arguments, env=environment)


def test_a_png_with_the_best_classes_and_the_one_asked_for(default: Bundle, tmp_path: Path) -> None:
    result = command(default, "--image", CAT, "--class", "espresso", "--output", tmp_path / "seen.png", "--top-k", 3)

    assert (result.returncode, result.stderr) == (0, "")
    title, *predictions, last = result.stdout.splitlines()
    assert title == "efficientnet_lite0: Grad-CAM for espresso"
    assert len(predictions) == 4
    assert any("tabby" in line for line in predictions[:3])
    assert predictions[3].startswith("  espresso 0.")
    assert last == f"wrote {tmp_path / 'seen.png'}"
    with Image.open(tmp_path / "seen.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width > 2 * sheet.height / 1.7
    assert [path.name for path in tmp_path.iterdir()] == ["seen.png"]


def test_attention_of_all_heads_and_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "bundles"))
    open_or_create("vit_ti16", weights="random")
    shown = ("--model", "vit_ti16", "--image", CAT, "--top-k", 1, "--output", tmp_path / "seen.png", "--layer")

    sheet, single = run("export.explain", *shown, 12), run("export.explain", *shown, 1, "--head", 2)

    for result, title in ((sheet, "layer 12, 3 heads"), (single, "layer 1, head 2")):
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines()[0] == f"vit_ti16: attention of {title}"
    with Image.open(tmp_path / "seen.png") as written:
        assert written.width == 2 * SIDE + 3 * MARGIN


def test_a_network_without_a_class_token_has_no_attention_to_show(default: Bundle, tmp_path: Path) -> None:
    result = command(default, "--image", CAT, "--layer", 1, "--output", tmp_path / "seen.png")

    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "this network is a EfficientNet: omit it for Grad-CAM" in result.stderr


def test_the_sheet_of_heads_has_a_tile_for_each() -> None:
    picture, maps = noise(TILE, TILE), np.zeros((3, TILE, TILE), np.float32)

    with Image.open(io.BytesIO(render_heads(picture, maps, "title"))) as sheet:
        pixels = np.asarray(sheet)

    tiles = [pixels[top : top + TILE, left : left + TILE] for top in (44, 296) for left in (16, 256)]
    np.testing.assert_array_equal(tiles, [picture, *[overlay(picture, maps[0])] * 3])


def test_mistakes_are_one_line(default: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")

    for arguments, words in (
        (["--image", CAT, "--class", "tabi"], "has no class 'tabi': did you mean 'tabby'"),
        (["--image", tmp_path / "none.jpg"], "none.jpg: no such file"),
        (["--image", tmp_path / "text.jpg"], "text.jpg: these 10 bytes are not a picture"),
    ):
        result = command(default, *arguments, "--output", tmp_path / "seen.png")
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
        assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text.jpg"]


def test_a_class_by_label_or_id(default: Bundle) -> None:
    assert class_index(default.manifest, "tabby") == 281
    assert class_index(default.manifest, "n02123045") == 281
    with pytest.raises(HalftoneError, match=r"it has tench, goldfish, .*, …"):
        class_index(default.manifest, "%%%")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_k": 0}, "--top-k must be at least 1, not 0"),
        ({"layer": 0}, "--layer must be at least 1, not 0"),
        ({"head": 2}, "--head 2 needs a layer: add --layer N"),
        ({"layer": 1, "class_": "tabby"}, "attention is the same for every class"),
        ({"output": Path("seen.jpg")}, "seen.jpg must be named .png"),
        ({"image": Path("cat.png"), "output": Path("cat.png")}, "is the picture itself"),
    ],
)
def test_a_request_that_can_not_be_met(values: dict[str, object], words: str) -> None:
    with pytest.raises(HalftoneError, match=words):
        ExplainConfig(**{"model": "mine", "image": CAT} | values)  # type: ignore[arg-type]


def test_the_default_output_lies_in_the_current_folder() -> None:
    assert ExplainConfig(model="mine", image=Path("pictures/cat.jpg")).target == Path("cat.explained.png")


def test_the_hot_side_is_the_bright_side() -> None:
    picture = np.full((32, 32, 3), 128, np.uint8)
    heat = np.linspace(0, 1, 32, dtype=np.float32) * np.ones((32, 1), np.float32)

    mixed = overlay(picture, heat)

    assert (mixed.shape, mixed.dtype) == ((32, 32, 3), np.uint8)
    assert (np.diff(mixed.astype(int).sum(axis=2), axis=1) >= 0).all()
    # Cold places stay recognisable.
    assert mixed[0, 0].min() > 40


def test_the_sheet_shows_picture_and_overlay_side_by_side() -> None:
    picture, heat = noise(448, 448), np.zeros((448, 448), np.float32)

    with Image.open(io.BytesIO(render(picture, heat, [("a", 0.75), ("b", 0.25)], "title"))) as sheet:
        pixels = np.asarray(sheet)

    np.testing.assert_array_equal(pixels[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE], picture)
    right = 2 * MARGIN + SIDE
    np.testing.assert_array_equal(pixels[MARGIN : MARGIN + SIDE, right : right + SIDE], overlay(picture, heat))
