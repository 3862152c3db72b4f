"""The example clients in every language get the same answer from a real service, and show its errors."""

import ast
import os
import subprocess
import sys

import pytest

from tests.docs.markdown import DOCS, blocks
from tests.servers import PHOTOS, ROOT, Server

EXAMPLES = ROOT / "examples"
CLIENTS = [
    pytest.param([sys.executable, "classify.py"], id="python"),
    pytest.param(["node", "classify.mjs"], id="javascript", marks=pytest.mark.tool("node")),
    pytest.param(["java", "Classify.java"], id="java", marks=pytest.mark.tool("java")),
    pytest.param(["go", "run", "classify.go"], id="go", marks=pytest.mark.tool("go")),
]


def ask(command: list[str], picture: str, server: str) -> subprocess.CompletedProcess[str]:
    """Run an example as its first line says."""
    # Go keeps what it has compiled.
    settings = os.environ | {"GOCACHE": str(ROOT / ".pytest_cache" / "go"), "GOTOOLCHAIN": "local"}
    return subprocess.run(
        [*command, picture, server], cwd=EXAMPLES, env=settings, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_shows_the_classes_or_the_error(server: Server, command: list[str]) -> None:
    shown = ask(command, str(PHOTOS / "cat.jpg"), server.url)
    refused = ask(command, str(ROOT / "LICENSE"), server.url)

    assert (shown.returncode, shown.stderr) == (0, "")
    probabilities, labels = zip(*(line.split(maxsplit=1) for line in shown.stdout.splitlines()), strict=True)
    assert [*labels] == ["tiger cat", "Egyptian cat", "tabby"]
    assert [*probabilities] == sorted(probabilities, reverse=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "are not a picture: use a JPEG, PNG or WebP file" in refused.stderr


def test_the_client_of_triton_gets_the_classes(server: Server) -> None:
    shown = ask([sys.executable, "classify_triton.py"], str(PHOTOS / "cat.jpg"), server.url.removeprefix("http://"))

    assert [line.split(maxsplit=1)[1] for line in shown.stdout.splitlines()] == ["tiger cat", "Egyptian cat", "tabby"]


def test_the_example_with_requests_runs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (each for each in blocks(DOCS["clients"], "python") if "import requests\n" in each)

    exec(code.replace("http://127.0.0.1:3000", server.url).replace("photo.jpg", str(PHOTOS / "cat.jpg")), {})

    assert capsys.readouterr().out == "tiger cat\n"


def test_the_gradio_page_sends_what_the_service_takes(server: Server) -> None:
    # Gradio itself is not installed with the tests: the function is taken out of the file.
    tree = ast.parse((EXAMPLES / "gradio_app.py").read_text())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.Import) and node.names[0].name == "gradio")]
    namespace: dict[str, object] = {"__name__": "gradio_app"}
    exec(compile(tree, "gradio_app.py", "exec"), namespace)
    namespace["SERVER"] = server.url

    classes = namespace["classify"](str(PHOTOS / "cat.jpg"))  # type: ignore[operator]

    assert max(classes, key=classes.get) == "tiger cat"


@pytest.mark.parametrize("name", ["classify.py", "classify_triton.py", "classify.mjs", "Classify.java", "classify.go"])
def test_the_page_of_clients_shows_the_file(name: str) -> None:
    language = {".py": "python", ".mjs": "js", ".java": "java", ".go": "go"}["." + name.partition(".")[2]]

    assert (EXAMPLES / name).read_text() in blocks(DOCS["clients"], language)
