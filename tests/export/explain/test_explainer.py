"""Heat maps: shape, range and determinism, and that their hottest pixels matter most."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch

from export.explain.explainer import Explainer, explain
from export.explain.gradcam import grad_cam
from export.explain.rollout import AttentionRollout, rollout
from export.variants import load
from models.bundle.bundle import Bundle
from models.catalog import architecture
from models.checkpoint import build
from models.common.errors import HalftoneError
from models.common.statistics import softmax
from models.preprocess.transform import load as load_picture
from models.resolve import open_or_create
from tests.samples import noise
from tests.servers import PHOTOS

FAMILIES = {
    "resnet18": "Grad-CAM",
    "mobilenetv3_small": "Grad-CAM",
    "swin_t": "Grad-CAM",
    "pvt_v2_b0": "Grad-CAM",
    "vit_ti16": "attention rollout",
    "deit_ti16": "attention rollout",
}
MASKED = 0.2


@pytest.fixture(scope="module")
def default(artifacts: Path) -> Bundle:
    """The default bundle as it is published: at its 224 px the maps show where the heat is."""
    return Bundle.open(artifacts / "efficientnet_lite0")


@pytest.fixture(scope="module")
def photos(default: Bundle) -> npt.NDArray[np.uint8]:
    paths = sorted(PHOTOS.glob("*.jpg"))
    return np.stack([load_picture(path.read_bytes(), default.manifest.input) for path in paths])


@pytest.fixture(scope="module")
def explainer(default: Bundle) -> Explainer:
    return Explainer(default)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_map(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: npt.NDArray[np.uint8]
) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    bundle = open_or_create(name, weights="random")
    explainer = Explainer(bundle)

    three, one = explainer.explain(photos[:3]), explainer.explain(photos[:1])

    assert three.method == explainer.method == FAMILIES[name]
    assert (three.maps.shape, three.maps.dtype) == ((3, 224, 224), np.float32)
    assert three.maps.min() >= 0
    np.testing.assert_allclose(three.maps.max(axis=(1, 2)), 1, atol=1e-6)
    assert three.maps.std(axis=(1, 2)).min() > 0
    if three.method == "attention rollout":
        # Stretched: an even share of all patches would be one bright plane. No pixel lies on a patch's very centre.
        np.testing.assert_allclose(three.maps.min(axis=(1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(one.maps, three.maps[:1], atol=1e-3)
    np.testing.assert_allclose(one.logits, load(bundle, "torch-fp32", threads=2).run(photos[:1]), atol=1e-4)


def probability(
    bundle: Bundle, pictures: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    logits = load(bundle, "torch-fp32", threads=2).run(pictures)
    return np.asarray(softmax(logits)[np.arange(len(classes)), classes])


def test_the_hottest_pixels_matter_most(default: Bundle, explainer: Explainer, photos: npt.NDArray[np.uint8]) -> None:
    found = explainer.explain(photos)
    classes = found.logits.argmax(axis=1)
    grey = photos.mean(axis=(1, 2)).astype(np.uint8)
    scattered = np.random.default_rng(0).random((14, 14)).repeat(16, axis=0).repeat(16, axis=1)

    def drop(scores: npt.NDArray[np.floating]) -> float:
        """Mean fall of the predicted class's probability with the highest-scored fifth painted in the mean colour."""
        masked = photos.copy()
        for picture, score, colour in zip(masked, scores, grey, strict=True):
            picture[score >= np.quantile(score, 1 - MASKED)] = colour
        return float(np.mean(probability(default, photos, classes) - probability(default, masked, classes)))

    hottest, coldest = drop(found.maps), drop(-found.maps)
    anywhere = drop(np.broadcast_to(scattered, found.maps.shape))

    assert hottest > max(0.1, 2 * coldest, anywhere), (hottest, coldest, anywhere)


def test_another_class_has_another_map(explainer: Explainer, default: Bundle, photos: npt.NDArray[np.uint8]) -> None:
    index = default.manifest.labels.index("espresso")
    found = explainer.explain(photos)

    chosen = explainer.explain(photos, index)

    np.testing.assert_array_equal(chosen.logits, found.logits)
    for picture, best in enumerate(found.logits.argmax(axis=1)):
        same = np.array_equal(chosen.maps[picture], found.maps[picture])
        assert same == (best == index)


def test_the_library_call_is_deterministic(
    default: Bundle, explainer: Explainer, photos: npt.NDArray[np.uint8]
) -> None:
    expected = explainer.explain(photos).maps

    np.testing.assert_array_equal(explain(default, photos), expected)
    with ThreadPoolExecutor(4) as pool:
        for maps in pool.map(lambda _: explainer.explain(photos).maps, range(8)):
            np.testing.assert_array_equal(maps, expected)


def test_grad_cam_is_the_papers_formula() -> None:
    """For pooling and one linear layer the gradient is the class's weight over the number of places."""
    torch.manual_seed(0)
    module = build(architecture("resnet18"), classes=5)
    planes = torch.randn(2, 3, 64, 64)
    classes = torch.tensor([3, 1])

    maps, logits = grad_cam(module, planes, classes)

    with torch.no_grad():
        features = module.forward_features(planes)  # type: ignore[operator]
        weights = module.fc.weight[classes] / 4  # type: ignore[index]
        torch.testing.assert_close(maps, torch.einsum("nc,nchw->nhw", weights, features).relu())
        torch.testing.assert_close(logits, module(planes))


def test_grad_cam_refuses_what_is_no_grid() -> None:
    with pytest.raises(HalftoneError, match=r"Grad-CAM needs features on a grid, and those of VisionTransformer lie"):
        grad_cam(build(architecture("vit_ti16"), classes=2), torch.zeros(1, 3, 224, 224), None)


def test_rollout_is_the_papers_product() -> None:
    attentions = [torch.rand(2, 3, 5, 5, generator=torch.manual_seed(seed)).softmax(dim=-1) for seed in range(3)]

    total = rollout(attentions)

    first, second, third = (each.mean(dim=1) / 2 + torch.eye(5) / 2 for each in attentions)
    torch.testing.assert_close(total, third @ second @ first)
    torch.testing.assert_close(total.sum(dim=-1), torch.ones(2, 5))
    assert total.min() >= 0
    with pytest.raises(ValueError, match="no attention"):
        rollout([])


def test_rollout_sees_the_weights_of_the_fused_attention() -> None:
    """The network answers as before, its map sums to what the class token passes on, and no other network changes."""
    torch.manual_seed(0)
    options = {"num_classes": 4, "img_size": 64, "depth": 4}
    fused, other = (timm.create_model("vit_tiny_patch16_224", **options).eval() for _ in range(2))
    planes = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = fused(planes)

    maps, logits = AttentionRollout(fused)(planes)

    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)
    assert maps.shape == (2, 4, 4)
    assert maps.min() >= 0
    # The rest of the row's sum of one stays with the class token, at least the residual share of all blocks.
    assert (maps.sum(dim=(1, 2)) < 1 - 0.5**4).all()
    assert not any(block.attn.fused_attn for block in fused.blocks)
    assert all(block.attn.fused_attn for block in other.blocks)


def test_without_a_preference_every_patch_has_the_same_share() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=64, depth=2).eval()
    with torch.no_grad():
        for block in module.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()

    even, _ = AttentionRollout(module)(torch.randn(1, 3, 64, 64))

    # 17 tokens, two blocks that each keep one half.
    torch.testing.assert_close(even, torch.full((1, 4, 4), 0.75 / 17))


def test_pooling_instead_of_a_class_token() -> None:
    module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=4, img_size=64, depth=2, class_token=False, global_pool="avg"
    ).eval()

    maps, _ = AttentionRollout(module)(torch.randn(2, 3, 64, 64))

    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


def test_the_heads_of_a_layer_are_its_attention() -> None:
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=64, depth=3).eval()
    planes = torch.randn(1, 3, 64, 64)

    maps, logits = AttentionRollout(module).heads(planes, 2)

    with torch.no_grad():
        tokens = module.norm_pre(module.patch_drop(module._pos_embed(module.patch_embed(planes))))
        attention = module.blocks[1].attn
        qkv = attention.qkv(module.blocks[1].norm1(module.blocks[0](tokens)))
        query, key, _ = qkv.reshape(1, 17, 3, 3, 64).permute(2, 0, 3, 1, 4)
        weights = (query[0] @ key[0].transpose(-2, -1) / 8).softmax(dim=-1)
        torch.testing.assert_close(maps, weights[:, 0, 1:].reshape(3, 4, 4), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(logits, module(planes), atol=1e-4, rtol=1e-3)
    for layer in (0, 4):
        with pytest.raises(HalftoneError, match=f"--layer must lie between 1 and 3 for this network, not {layer}"):
            AttentionRollout(module).heads(planes, layer)


@pytest.mark.parametrize("index", [-1, 1000])
def test_a_class_that_does_not_exist(explainer: Explainer, photos: npt.NDArray[np.uint8], index: int) -> None:
    with pytest.raises(HalftoneError, match=f"there is no class {index}: choose one from 0 to 999"):
        explainer.explain(photos, index)


def test_nothing_but_pixels(explainer: Explainer) -> None:
    with pytest.raises(ValueError, match=r"pixels must be uint8 of shape \(N, 224, 224, 3\) with N >= 1, not uint8"):
        explainer.explain(noise(224, 224))


def test_a_map_without_heat_is_all_zero(default: Bundle) -> None:
    """Where every feature speaks against the class, nothing is highlighted (and nothing is divided by zero)."""
    explainer = Explainer(default)
    head = explainer._module.get_submodule("classifier")
    with torch.no_grad():
        head.weight.fill_(-1.0)  # type: ignore[operator,union-attr]

    maps = explainer.explain(noise(224, 224)[None], 0).maps

    assert maps.max() == 0
