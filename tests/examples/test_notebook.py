"""The notebook runs from its first cell to its last one, on a part of the sample, and holds no outputs."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.servers import ROOT

NOTEBOOK = ROOT / "examples" / "own_pictures.ipynb"
SAMPLE = Path("training", "sample")
PICTURES = {"train": 10, "val": 5}
"""Number of each class in each part."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small part of the sample where the notebook looks for it."""
    for part, number in PICTURES.items():
        for label in ("Bag", "Trouser"):
            target = tmp_path / SAMPLE / part / label
            target.mkdir(parents=True)
            for picture in sorted((ROOT / SAMPLE / part / label).iterdir())[:number]:
                shutil.copy(picture, target)
    return tmp_path


def test_it_leads_from_pictures_to_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # As an editor starts it: the environment of the clone isn't activated.
    monkeypatch.setenv("PATH", os.defpath)
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()

    answers = notebook.cells[-1].outputs[0].text.splitlines()
    assert {line.split()[1] for line in answers} == {"Bag", "Trouser"}
    assert (folder / "artifacts" / "notebook" / "report" / "index.html").is_file()


def test_it_holds_no_outputs() -> None:
    assert [cell.outputs for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.get("outputs")] == []
