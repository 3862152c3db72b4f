"""README and docs say what is so: their code runs, their tables are complete."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from serving.settings import Settings
from tests.commands import run
from tests.docs.markdown import CONTRIBUTING, DOCS, README, blocks
from tests.docs.messages import http_codes
from tests.servers import ROOT, Server
from training.config.recipe import Recipe
from training.config.train import recipe_names


def test_the_python_client_example_runs(server: Server) -> None:
    (code,) = blocks(DOCS["api"], "python")

    result = subprocess.run(
        [sys.executable, "-c", code.replace("http://127.0.0.1:3000", server.url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.strip() in {"espresso", "cup"}


def test_the_curl_example_runs(server: Server) -> None:
    (command,) = [block for block in blocks(README, "sh") if block.startswith("curl")]

    result = subprocess.run(
        [*command.replace("http://127.0.0.1:3000", server.url).split(), "-s"], cwd=ROOT, capture_output=True, check=True
    )

    (shown,) = (json.loads(block.replace(", …", "")) for block in blocks(README, "json"))
    answer = json.loads(result.stdout)
    # Version and variant, and with it the probability, are those of the machine.
    assert list(answer) == list(shown)
    first, expected = answer["predictions"][0], shown["predictions"][0]
    assert (first["label"], first["index"], answer["model"]) == (expected["label"], expected["index"], shown["model"])
    assert first["probability"] == pytest.approx(expected["probability"], abs=0.1)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", README + CONTRIBUTING + DOCS["commands"], re.MULTILINE))
    assert {"serve", "test", "check"} <= targets
    for target in targets:
        result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([a-z_.]+)", README + DOCS["commands"]))))
def test_every_module_that_is_named_explains_itself(module: str) -> None:
    result = run(module, "--help")

    assert result.returncode == 0, result.stderr


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in sorted(DOCS))])
def test_every_link_leads_to_a_file_and_its_heading(name: str) -> None:
    file = ROOT / name
    text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = file.parent / target if target else file
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `HALFTONE_(\w+)` \| `?([^|`]+?)`? \|", DOCS["settings"], re.MULTILINE))

    assert set(rows) == {field.name.upper() for field in fields(Settings)} | {"ARTIFACTS", "SETTINGS"}
    for field in fields(Settings):
        if isinstance(field.default, int | float) and field.default > 1:
            assert float(rows[field.name.upper()]) == field.default


def test_every_error_code_is_in_the_table_at_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", DOCS["api"], re.MULTILINE)
    documented = [(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)]

    assert sorted(documented) == sorted(http_codes())


def test_the_example_of_a_new_architecture_is_right() -> None:
    namespace: dict[str, object] = {}
    exec(blocks(DOCS["architecture"], "python")[0], namespace)
    (entry,) = namespace["ARCHITECTURES"]  # type: ignore[misc]
    config = timm.get_pretrained_cfg(entry.timm_name, allow_unregistered=False)
    with torch.device("meta"):
        network = timm.create_model(entry.timm_name).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.empty(1, 3, entry.input.size, entry.input.size))

    assert entry.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert entry.macs == counter.get_total_flops() // 2
    assert config is not None
    assert (entry.input.crop_fraction, entry.input.interpolation) == (config.crop_pct, config.interpolation)
    assert config.input_size == (3, entry.input.size, entry.input.size)


def test_no_file_speaks_of_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [ROOT / name for name in tracked if Path(name).suffix in {".py", ".md", ".toml", ".yaml", ".txt", ".html"}]

    found = [path for path in texts if re.search(r"/(?:home|root|Users)/\w|https?://\S+/simple\b", path.read_text())]

    assert [path.name for path in found if path.name != Path(__file__).name] == []


def test_the_example_of_a_new_recipe_is_right() -> None:
    namespace: dict[str, object] = {}
    exec(blocks(DOCS["architecture"], "python")[1], namespace)

    assert isinstance(namespace["RECIPE"], Recipe)


def test_every_recipe_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "training.md").read_text()

    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == set(recipe_names())
