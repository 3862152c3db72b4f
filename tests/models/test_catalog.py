"""Compare the catalogue with timm: sizes, costs, inputs and module names; and test `python -m models`.

`macs` is half the count of `torch.utils.flop_counter`: convolutions and matrix products, including the two products
inside attention (fused or not). Biases, norms, activations, softmax, pooling and resizing are not counted, as in most
papers. Networks are built on the meta device, so nothing is downloaded or allocated.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import PretrainedCfg
from torch.utils.flop_counter import FlopCounterMode

import models.architectures
from models.__main__ import ListModels, SortKey, list_models
from models.catalog import architecture, catalogue
from models.common.errors import HalftoneError
from models.spec import Architecture
from tests.commands import run

PROMISED = {
    "resnet": ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"],
    "mobilenet": ["mobilenetv1", "mobilenetv2", "mobilenetv3_small", "mobilenetv3_large"],
    "efficientnet": [
        *(f"efficientnet_lite{size}" for size in range(3)),
        *(f"efficientnet_b{size}" for size in range(8)),
    ],
    "vit": ["vit_ti16", "vit_s16", "vit_b16", "vit_b32", "vit_l16", "vit_h14"],
    "deit": ["deit_ti16", "deit_s16", "deit_b16"],
    "swin": ["swin_t", "swin_s", "swin_b"],
    "pvt": [f"pvt_v2_b{size}" for size in range(6)],
}

NEW_FILE = """
from dataclasses import replace

from models.architectures.resnet import ARCHITECTURES as RESNETS

ARCHITECTURES = (replace(RESNETS[0], name={name!r}, family="novel"),)
"""

every_architecture = pytest.mark.parametrize("name", catalogue())


@functools.cache
def network(name: str) -> torch.nn.Module:
    """Build the architecture with timm, without memory for its parameters."""
    with torch.device("meta"):
        return timm.create_model(architecture(name).timm_name).eval()


def timm_config(name: str) -> PretrainedCfg:
    config = timm.get_pretrained_cfg(architecture(name).timm_name, allow_unregistered=False)
    assert config is not None
    return config


def matches(tensor: str, prefix: str) -> bool:
    """Return True if `prefix` is the tensor's name or a whole number of its leading components."""
    return f"{tensor}.".startswith(f"{prefix}.")


def groups_of(tensor: str, entry: Architecture) -> list[int]:
    """Return the index of the stage (the head comes last) for each prefix that matches a parameter or buffer."""
    groups = [*entry.stages, (entry.head,)]
    return [index for index, prefixes in enumerate(groups) for prefix in prefixes if matches(tensor, prefix)]


@pytest.fixture
def drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Return a function that adds a file to the catalogue's folder for one test."""
    monkeypatch.setattr(models.architectures, "__path__", [*models.architectures.__path__, str(tmp_path)])
    added: list[str] = []

    def add(module: str, text: str) -> None:
        (tmp_path / f"{module}.py").write_text(text)
        added.append(module)
        catalogue.cache_clear()

    yield add
    for module in added:
        sys.modules.pop(f"models.architectures.{module}", None)
        vars(models.architectures).pop(module, None)
    catalogue.cache_clear()


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("models", *arguments)


def test_the_catalogue_holds_every_promised_name() -> None:
    families = {name: entry.family for name, entry in catalogue().items()}

    assert families | {name: family for family, names in PROMISED.items() for name in names} == families
    assert all(entry.name == name for name, entry in catalogue().items())


@every_architecture
def test_weights_exist_and_have_the_1000_imagenet_classes(name: str) -> None:
    model, _, tag = architecture(name).timm_name.partition(".")

    assert f"{model}.{tag}" in timm.list_pretrained(f"{model}.*")
    assert timm_config(name).num_classes == 1000


@every_architecture
def test_input_is_what_the_weights_were_trained_on(name: str) -> None:
    spec, config = architecture(name).input, timm_config(name)

    assert config.crop_mode == "center"
    assert (3, spec.size, spec.size) == config.input_size
    assert spec.crop_fraction == config.crop_pct
    assert spec.interpolation == config.interpolation
    assert spec.mean == config.mean
    assert spec.std == config.std


@every_architecture
def test_parameters_agree_with_the_network(name: str) -> None:
    assert architecture(name).parameters == sum(parameter.numel() for parameter in network(name).parameters())


@every_architecture
def test_macs_agree_with_the_network(name: str) -> None:
    entry = architecture(name)
    pixels = torch.empty(1, 3, entry.input.size, entry.input.size, device="meta")

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(name)(pixels)

    assert counter.get_total_flops() // 2 == entry.macs


@every_architecture
def test_stages_and_head_hold_every_tensor_exactly_once(name: str) -> None:
    entry = architecture(name)
    tensors = [*dict(network(name).named_parameters()), *dict(network(name).named_buffers())]

    assert len(entry.stages) == 4
    assert {tensor: groups for tensor in tensors if len(groups := groups_of(tensor, entry)) != 1} == {}


@every_architecture
def test_stages_name_only_what_exists_and_go_from_input_to_head(name: str) -> None:
    entry = architecture(name)
    parameters = [parameter for parameter, _ in network(name).named_parameters()]
    prefixes = [*(prefix for stage in entry.stages for prefix in stage), entry.head]

    assert [prefix for prefix in prefixes if not any(matches(parameter, prefix) for parameter in parameters)] == []
    assert (order := [groups_of(parameter, entry)[0] for parameter in parameters]) == sorted(order)


@every_architecture
def test_head_is_the_classifier_that_timm_reports(name: str) -> None:
    head = network(name).get_submodule(architecture(name).head)

    assert architecture(name).head == timm_config(name).classifier
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 1000


@every_architecture
def test_accuracy_has_a_source_and_the_scenario_fits_the_table(name: str) -> None:
    entry = architecture(name)

    assert entry.top1_source
    assert entry.top1 is None or 50 < entry.top1 < 100
    assert 0 < len(entry.scenario) <= 60


def test_every_scenario_is_different() -> None:
    scenarios = [entry.scenario for entry in catalogue().values()]

    assert len(set(scenarios)) == len(scenarios)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(HalftoneError, match=r"did you mean .*resnet50"):
        architecture("resnet-50")


def test_a_new_file_is_discovered(drop_in: Callable[[str, str], None]) -> None:
    before = set(catalogue())

    drop_in("novelty", NEW_FILE.format(name="novelnet"))

    assert architecture("novelnet").family == "novel"
    assert set(catalogue()) == before | {"novelnet"}


def test_a_duplicate_name_is_an_error(drop_in: Callable[[str, str], None]) -> None:
    drop_in("novelty", NEW_FILE.format(name="resnet50"))

    with pytest.raises(RuntimeError, match="'resnet50' is defined twice"):
        catalogue()


def test_table_fits_120_columns_when_piped_and_names_its_source() -> None:
    result = run_module()

    lines = [line.rstrip() for line in result.stdout.splitlines()]
    rows = {line.split()[0]: line for line in lines if line}
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert max(map(len, lines)) <= 120
    assert all(rows[name].endswith(entry.scenario) for name, entry in catalogue().items())
    assert rows["resnet50"].split()[1:6] == ["resnet", "25.6", "4.09", "224", "80.4"]
    for name in ("resnet50", "efficientnet_lite2", "vit_b16", "efficientnet_b0"):
        entry, mark = architecture(name), rows[name].split()[6]
        note = f"{mark} ImageNet-1k top-1 after {entry.pretraining}: {entry.top1_source}"
        assert note in lines


def test_an_unknown_family_is_one_line_and_exit_code_2() -> None:
    result = run_module("--family", "vitt")

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "'vitt'" in result.stderr
    assert all(family in result.stderr for family in PROMISED)


def test_a_closed_pipe_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with open(writer, "w") as gone:
        result = subprocess.run([sys.executable, "-m", "models"], stdout=gone, stderr=subprocess.PIPE, check=False)

    assert (result.returncode, result.stderr) == (0, b"")


def test_listing_does_not_import_torch() -> None:
    script = (
        "import sys; from models.__main__ import ListModels, list_models; list_models(ListModels());"
        "sys.exit(bool({'torch', 'torchvision', 'timm'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0


def listed(*flags: str) -> list[dict[str, Any]]:
    """Return what `--json` prints."""
    result = run("models", *flags, "--json")
    assert result.returncode == 0
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_json_holds_every_field_exactly() -> None:
    rows = {row["name"]: row for row in listed()}
    lite0 = architecture("efficientnet_lite0")
    assert sorted(rows) == sorted(catalogue())
    assert rows[lite0.name]["macs"] == lite0.macs
    assert rows[lite0.name]["top1"] == lite0.top1
    assert rows[lite0.name]["input"] == lite0.input.to_dict()


def test_the_catalogue_says_what_the_weights_were_trained_on() -> None:
    trained_on = {row["name"]: row["pretraining"] for row in listed()}

    assert all(sets.endswith("ImageNet-1k") for sets in trained_on.values())
    assert trained_on["resnet50"] == "ImageNet-1k"
    assert trained_on["efficientnet_b0"] == "JFT-300M, ImageNet-1k"
    assert trained_on["swin_b"] == "ImageNet-21k, ImageNet-1k"
    assert trained_on["vit_h14"] == "LAION-2B, ImageNet-12k, ImageNet-1k"
    assert "JFT-300M, ImageNet-1k" in run("models", "--family", "efficientnet").stdout


def test_markdown_is_one_table_with_footnotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_models(ListModels(format="markdown", family="deit")) == 0

    header, rule, *rows, blank, first, second = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in (header, rule, *rows)} == {8}
    assert [row.split()[1] for row in rows] == sorted(PROMISED["deit"])
    assert {name for name in PROMISED["deit"] for row in rows if name in row and "[^2] |" in row} == {"deit_ti16"}
    assert blank == ""
    assert first.startswith("[^1]: ")
    assert second.startswith("[^2]: ImageNet-1k top-1 after ImageNet-1k: ")


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["mobilenetv1", "mobilenetv2", "mobilenetv3_large", "mobilenetv3_small"]),
        ("params", ["mobilenetv3_small", "mobilenetv2", "mobilenetv1", "mobilenetv3_large"]),
        ("macs", ["mobilenetv3_small", "mobilenetv3_large", "mobilenetv2", "mobilenetv1"]),
        ("top1", ["mobilenetv3_large", "mobilenetv1", "mobilenetv2", "mobilenetv3_small"]),
    ],
)
def test_rows_are_sorted(sort: SortKey, expected: list[str]) -> None:
    names = [row["name"] for row in listed("--family", "mobilenet", "--sort", sort)]
    assert [name for name in names if name in expected] == expected


def test_names_sort_by_their_numbers() -> None:
    names = [row["name"] for row in listed("--family", "resnet")]
    assert [name for name in names if name in PROMISED["resnet"]] == PROMISED["resnet"]
