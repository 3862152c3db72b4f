"""The architecture as a test: which package and which room may import which, and what serving must never load."""

import ast
import functools
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.servers import ROOT

PACKAGES = ("models", "training", "export", "serving", "loadtest")
PEERS = "loadtest.peers"
"""Servers that the comparison starts as programs of their own: ours in them is fine, but nothing imports them."""
CHOOSE = "training.choose"
"""Command that trains and exports; nothing else of training imports either of the two."""
ALLOWED = {
    "models": set(),
    "training": {"models"},
    "export": {"models"},
    "serving": {"models", "export"},
    "loadtest": set(),
    PEERS: {"models", "export", "serving"},
    CHOOSE: {"models", "export", "training"},
}
HEAVY = {"torch", "torchvision", "timm", "albumentations", "onnx"}


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name to file, for every module of ours."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@functools.cache
def imports(path: Path) -> set[str]:
    """Every dotted name that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def package_of(name: str) -> str:
    apart = (each for each in (PEERS, CHOOSE) if name == each or name.startswith(f"{each}."))
    return next(apart, name.partition(".")[0])


def test_packages_import_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in sorted(imports(path))
        if (package := package_of(other)) in ALLOWED
        and package != (own := package_of(name))
        and package not in ALLOWED[own]
    ]

    assert wrong == []


def edges() -> dict[str, set[str]]:
    """Module to the modules of ours that it imports; packages are empty (a test says so) and left out."""
    known = modules()
    return {
        name: {other for other in imports(path) & set(known) if is_module(known[other])} for name, path in known.items()
    }


def is_module(path: Path) -> bool:
    return path.name != "__init__.py"


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_import_in_no_circle() -> None:
    assert circle({name: others - {name} for name, others in edges().items()}) == []


def room(module: str) -> str:
    """A file or a folder right under a package; what is below belongs to it."""
    return ".".join(module.split(".")[:2])


def test_rooms_import_in_no_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, others in edges().items():
        graph[room(name)] |= {room(other) for other in others} - {room(name)}

    assert circle(graph) == []


LEVELS = ("telemetry", "http", "settings", "process", "decoding", "batching", "lifecycle", "api")
"""The rooms of a worker, lowest first: each may import those before it."""


def test_a_request_passes_the_rooms_of_serving_in_one_direction() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in edges().items()
        for other in others
        if (mine := room(name).removeprefix("serving.")) in LEVELS
        and (theirs := room(other).removeprefix("serving.")) in LEVELS
        and LEVELS.index(theirs) > LEVELS.index(mine)
    ]

    assert wrong == []


ENTRIES, MENUS = 14, {"export": 18, "loadtest": 21}
"""Files and folders that a folder may hold; the two menus have an entry for each of many commands."""


def test_a_folder_is_seen_at_a_glance() -> None:
    found = {path.parent for path in modules().values()}
    entries = {
        str(folder.relative_to(ROOT)): [
            entry for entry in folder.iterdir() if entry.suffix == ".py" or any(entry.glob("**/*.py"))
        ]
        for folder in found
    }
    counts = {name: len([entry for entry in inside if entry.name != "__init__.py"]) for name, inside in entries.items()}

    assert {name: count for name, count in counts.items() if count > MENUS.get(name, ENTRIES)} == {}
    assert [name for name, count in counts.items() if count < 2] == []
    assert max(name.count("/") for name in counts) == 2


UNRELATED = {("batch", "batching"), ("runtime", "runtimes")}
"""`serving.batch` is a command that scores folders, `serving.batching` the queue of requests; `export.runtime` is what
each file of `export.runtimes` implements."""


def test_no_module_is_named_by_another_form_of_a_neighbour() -> None:
    """Names such as `compare` next to `comparison` hide in which of the two a part lies."""
    for folder in {path.parent for path in modules().values()}:
        names = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()}
        forms = {name: {f"{name.removesuffix('e')}ing", f"{name}s", f"{name}ation", f"{name}ison"} for name in names}
        assert {(name, form) for name in names for form in forms[name] & names} - UNRELATED == set(), folder


def test_packages_are_empty_so_that_importing_a_module_loads_nothing_else() -> None:
    for path in modules().values():
        # It keeps libraries from reporting their use, which must come before their import.
        if path.name == "__init__.py" and path.parent.name != "export":
            body = ast.parse(path.read_text()).body
            assert all(isinstance(node, ast.Expr) for node in body), path


def test_a_server_needs_no_training_library() -> None:
    script = (
        "import sys, serving.service, serving.lifecycle.loading\n"
        "import export.runtimes.onnxruntime, export.runtimes.openvino\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert result.stdout.split() == []


LATE = {"torch", "torchvision", "timm", "albumentations", "matplotlib"}
"""What takes seconds to load, and what help and a request that is refused don't wait for."""


def test_commands_parse_their_flags_before_training_libraries_are_loaded() -> None:
    ends = {name: path.read_text().partition('if __name__ == "__main__":')[2] for name, path in modules().items()}
    commands = sorted(name for name, end in ends.items() if "run(" in end and not name.startswith(PEERS))
    script = f"import importlib, sys\nfor name in {commands!r}: importlib.import_module(name)\n"
    script += f"print(*sorted({LATE!r} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert {"training.__main__", "export.onnx.__main__", "export.parity.__main__"} <= set(commands)
    assert result.stdout.split() == []


def test_requests_are_refused_before_training_libraries_are_loaded(tmp_path: Path) -> None:
    requests = [
        "export --model resnet5", "export.onnx --model resnet5", "export.openvino --model resnet5",
        "export.parity --model resnet5", "export.benchmark --model resnet5", "export.trt --model resnet5",
        "training --model resnet18 --data nowhere --output new", "training --output new --resume",
        "training.benchmark --model resnet18 --data nowhere", "training.evaluate --model resnet5 --data nowhere",
        "training.preview --data nowhere --output new.png",
    ]  # fmt: skip
    script = (
        "import runpy, sys\n"
        "for request in sys.argv[1:]:\n"
        "    sys.argv = request.split()\n"
        "    try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as end: assert end.code == 2, request\n"
        f"print(*sorted({LATE!r} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HALFTONE_ARTIFACTS": str(tmp_path)}

    result = subprocess.run(
        [sys.executable, "-c", script, *requests],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stderr.count("error: ") == len(requests)
    assert result.stdout.split() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["serving", "loadtest"])
def test_no_module_of_a_lean_package_names_a_training_library(package: str) -> None:
    heavy = {name.partition(".")[0] for path in (ROOT / package).rglob("*.py") for name in imports(path)} & HEAVY

    assert heavy == set()
