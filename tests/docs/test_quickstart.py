"""A newcomer's walk: the commands of the quickstart, taken from the page, in a new clone with pictures, up to the page.

Nothing is typed that is not written there, but for flags that make the training short. What the page shows is compared
with what the commands print.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.command_lines import typed
from tests.docs.markdown import DOCS, README, blocks
from tests.servers import QUICK, ROOT, Server, serve

PAGE = DOCS["quickstart"]
CLASSES = {"cat": "Bag", "dog": "Trouser"}
"""Folder of the page to that of the sample pictures which stand in for it."""
SHORT = {
    "training": ["--recipe", "quick", "--size", "64", "--crop-fraction", "1"],
    "loadtest.sweep": ["--rates", "5", "--seconds", "0.5", "--p99-ms", "5000", "--no-plots", "--scenarios"],
}
"""Command to the flags that make it take seconds."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the files of the repository, and the pictures as the page describes them."""
    folder = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "loadtest/reports/", "training/sample/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name, sample in CLASSES.items():
        pictures = sorted((ROOT / "training" / "sample" / "train" / sample).iterdir())
        (folder / "photos" / name).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copy(picture, folder / "photos" / name / (picture.name if number else "one.jpg"))
    return folder


def execute(words: list[str], clone: Path, *, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command line of the page in the clone, which ends with one of these exit codes; return what it prints."""
    module = words[2] if words[:2] == ["python", "-m"] else ""
    command = [sys.executable, *words[1:], *SHORT.get(module, [])] if module else words
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HALFTONE_")}
    result = subprocess.run(
        command, cwd=clone, env=settings | {"PYTHONPATH": str(clone)}, capture_output=True, text=True, check=False
    )
    assert result.returncode in codes, (words, result.stdout + result.stderr)
    return result.stdout


def test_the_quickstart_leads_from_pictures_to_an_answer_and_to_the_page(clone: Path) -> None:
    *before, serving, curl, sweep = [words for words in typed(PAGE) if words[0] not in ("make", ".")]
    printed = "".join(execute(words, clone) for words in before)
    artifacts = clone / "artifacts"
    manifest = json.loads((artifacts / "photos" / "manifest.json").read_text())
    record = json.loads((artifacts / "photos" / "parity" / "onnxruntime-fp32.json").read_text())

    assert [words[2] for words in before] == ["training.data", "training", "export"]
    # Each command prints the one that the page has next.
    assert f"`{shlex.join(before[2])}`" in printed
    assert f"`{' '.join(serving)}`" in printed
    assert all(re.search(pattern, printed) for pattern in shown())
    assert (manifest["labels"], manifest["training"]["metrics"]["val_top1"] > 0.8) == (["cat", "dog"], True)
    assert (record["verdict"], record["data"]["labelled"]) == ("PASSED", True)
    assert "report/index.html" in manifest["files"]
    assert "<h1>photos</h1>" in (artifacts / "photos" / "report" / "index.html").read_text()

    setting, *command = serving
    assert setting == "HALFTONE_MODEL=photos"
    program = [str(Path(sys.executable).parent / command[0]), *command[1:], "--host", "127.0.0.1", "--port", "{port}"]
    variables = {"HALFTONE_MODEL": "photos", "PYTHONPATH": str(clone), **QUICK}
    with serve(artifacts, clone / "log", program, cwd=clone, **variables) as server:
        answer = execute([*at(curl, server), "-s"], clone)
        # Whether the rate holds depends on the machine.
        rates = execute(at(sweep, server), clone, codes=(0, 1))
        page = server.get("/ui").text

    assert json.loads(answer)["predictions"][0]["label"] == "cat"
    assert rates.startswith("# Latency and rate")
    assert page.startswith("<!doctype html>")


def at(words: list[str], server: Server) -> list[str]:
    """Return a command line for the server of the test."""
    return [word.replace("http://127.0.0.1:3000", server.url) for word in words]


def shown() -> list[str]:
    """Return what the page shows, as patterns: numbers, names of classes and lists of variants vary."""
    lines = "".join(re.findall(r"(?<=\n)```\n((?:all|wrote|artifacts).*?)```", PAGE, re.DOTALL)).splitlines()
    assert len(lines) == 5
    return [pattern(line) for line in lines]


def pattern(line: str) -> str:
    """Return the pattern of a line that the page shows."""
    varied = re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", re.escape(line)).replace("Ankle\\ boot", "[^']+")
    return re.sub(r"holds\\ .*", "holds .* proven; serves here: .*", varied).replace("…", ".*")


def test_the_readme_has_the_same_commands() -> None:
    own = next(block for block in blocks(README, "sh") if block.startswith("python -m training"))

    assert [line for line in own.splitlines() if line not in PAGE] == []
