"""The notebook: its Python compiles, its commands are accepted, and it holds no outputs. Running it takes minutes."""

import json
import shlex

from tests.docs.command_lines import problem
from tests.servers import ROOT

NOTEBOOK = json.loads((ROOT / "examples" / "own_pictures.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_its_python_compiles_and_its_commands_are_accepted() -> None:
    commands = [cell.strip("!\n").replace("\\\n", "") for cell in CELLS if cell.startswith("!")]
    typed = [shlex.split(command.format(PICTURES="training/sample")) for command in commands]

    for cell in CELLS:
        if not cell.startswith("!"):
            compile(cell, "own_pictures.ipynb", "exec")
    assert len(typed) == 3
    assert [found for words in typed if (found := problem(words, whole=True))] == []


def test_it_holds_no_outputs() -> None:
    assert [cell["outputs"] for cell in NOTEBOOK["cells"] if cell.get("outputs")] == []
