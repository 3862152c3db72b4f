"""Every command line of README and docs is one that its program takes, and every flag that they name exists."""

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.command_lines import mentioned, problem, served, typed
from tests.docs.markdown import DOCS, PAGES, blocks
from tests.servers import ROOT
from tests.wrong_uses import commands, flags

OTHERS = {
    "--ssl-certfile", "--ssl-keyfile", "--port", "--help", "--env-file", "--shm-size", "--record-seconds",
    "--nproc-per-node", "--nnodes", "--max-restarts", "--rdzv-endpoint", "--num-cpus",
    "--host", "--html", "--think-min", "--think-max", "--fast",
}  # fmt: skip
"""Flags of other programs, of the tests, and of the locustfile."""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_is_accepted(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some commands check at once that the sample photograph is there.
    shutil.copytree(ROOT / "export" / "photos", tmp_path / "export" / "photos")
    monkeypatch.chdir(tmp_path)
    for line in typed(PAGES[page]):
        assert problem(line.copy(), whole=True) == "", line
    for line in mentioned(PAGES[page]):
        assert problem(line.copy(), whole=False) == "", line


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_is_named_exists(page: str) -> None:
    known = {flag.name for command in commands().values() for flag in flags(command.config)} | OTHERS
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    named = set(re.findall(r"`(--[a-z][\w.-]*)", prose))

    assert {flag for flag in named - known if flag.replace("--no-", "--") not in known} == set()


@pytest.mark.parametrize("page", PAGES)
def test_python_in_a_page_compiles(page: str) -> None:
    for code in blocks(PAGES[page], "python"):
        if page != "python" or "import" in code:
            compile(code, page, "exec")


def test_every_path_of_the_api_is_documented() -> None:
    text = DOCS["api"] + DOCS["open-inference"] + DOCS["hot-swap"] + DOCS["answers"]
    text = text.replace("NAME", "{name}").replace("VERSION", "{version}")
    documented = text.replace("[/versions/{version}]", "") + re.sub(r"[\[\]]", "", text)

    assert [path for path in served() if path not in documented] == []
