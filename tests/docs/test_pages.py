"""What the documentation takes from the code is what the code has now, and its Python runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, blocks
from tests.docs.messages import command_messages, http_messages
from tests.docs.pages import PAGES, escaped, whole
from tests.servers import ROOT, environment


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_made_from_the_code_is_up_to_date(name: str) -> None:
    text = (ROOT / "docs" / name).read_text()

    assert text == whole(text, PAGES[name]), f"docs/{name} is stale: run `make docs`"


def test_a_message_that_a_user_sees_is_on_the_page_of_troubleshooting() -> None:
    page = DOCS["troubleshooting"]

    assert len(command_messages()) > 300
    assert len(http_messages()) > 60
    for seen in (
        "there is no architecture …: …`python -m models` lists all …",
        "the picture is empty (0 bytes): use a … file",
    ):
        assert escaped(seen) in page


def test_the_example_of_the_python_page_runs(artifacts: Path) -> None:
    (code, *_) = blocks(DOCS["python"], "python")

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=True
    )

    assert result.stdout == "tiger cat\n"


def test_every_file_of_the_architecture_page_exists() -> None:
    folders = "models|training|export|serving|loadtest|tests|docs|examples"
    named = set(re.findall(rf"`((?:{folders})/[\w/.]*)`", DOCS["architecture"])) - {"export/runtimes/NAME.py"}

    assert len(named) > 60
    assert {name for name in named if not (ROOT / name).exists()} == set()
