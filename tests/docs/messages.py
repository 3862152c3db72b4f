"""The error messages of the code, as a user reads them; a value that changes is shown as `…`."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from serving.http.errors import _IMAGE_ERRORS
from tests.servers import ROOT

PACKAGES = ("models", "training", "export", "serving", "loadtest")
REFUSALS = {"HalftoneError", "CompareError"}
"""They end a command with exit code 2, and so do the errors derived from them."""
IMAGE_CODES = {kind.__name__: (status, code) for kind, status, code in _IMAGE_ERRORS}
"""Error of a picture to its status and code."""
LEAST_TEXT = 12
"""Characters that a message has without its values; those with less are made from another message."""


@dataclass(frozen=True, order=True)
class Message:
    """An error message in the code."""

    module: str
    line: int
    text: str
    status: int = 0
    """HTTP status; 0 for the message of a command."""
    code: str = ""
    """Of the HTTP API."""


@cache
def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of ours by its dotted name."""
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text()) for path in files}


@cache
def refusals() -> frozenset[str]:
    """Return the names of the errors that end a command with exit code 2."""
    classes = [node for tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found = set(REFUSALS)
    for _ in range(5):
        found |= {each.name for each in classes if found & {ast.unparse(base) for base in each.bases}}
    return frozenset(found)


def command_messages() -> list[Message]:
    """Return what commands and the start of the service refuse."""
    found = []
    for module, call in _calls():
        if _name(call) in refusals() and call.args and not _is_of_request(module, call):
            found += [Message(module, call.lineno, text) for text in _texts(call.args[0], module)]
    return _readable(found)


def http_messages() -> list[Message]:
    """Return the errors of the HTTP API, those of pictures included."""
    return _readable([each for each in _http_errors() if each.text])


def http_codes() -> set[tuple[int, str]]:
    """Return status and code of every error of the HTTP API."""
    return {(each.status, each.code) for each in _http_errors()} | set(IMAGE_CODES.values())


def _http_errors() -> Iterator[Message]:
    """Yield every error of the HTTP API; the text is empty if it is made elsewhere."""
    for module, call in _calls():
        match _name(call), call.args:
            case "RequestError", [ast.Constant(value=int(status)), ast.Constant(value=str(code)), message, *_]:
                pass
            case "unavailable", [ast.Constant(value=str(code)), message]:
                status = 503
            case "bad_parameter", [message]:
                status, code = 422, "bad_parameter"
            case name, [message] if _is_of_request(module, call):
                status, code = IMAGE_CODES[name]
            case _:
                continue
        yield from (Message(module, call.lineno, text, status, code) for text in _texts(message, module) or [""])


def _is_of_request(module: str, call: ast.Call) -> bool:
    """Return True for the error of a picture, unless it is in a file of the training's data."""
    return _name(call) in IMAGE_CODES and not module.startswith("training.")


@cache
def _calls() -> list[tuple[str, ast.Call]]:
    trees = sources().items()
    return [(module, node) for module, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _texts(node: ast.expr, module: str) -> list[str]:
    """Return the text of a message, or those that it chooses from; nothing if it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return [*_texts(one, module), *_texts(other, module)]
        case ast.Name(id=name):
            before = [each for each in _assigned(module, name) if each.lineno < node.lineno]
            return _texts(before[-1], module) if before else []
    return []


def _assigned(module: str, name: str) -> list[ast.expr]:
    """Return what a module assigns to a name, in the order of its lines."""
    values = [
        node.value
        for node in ast.walk(sources()[module])
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]
    ]
    return sorted(values, key=lambda value: value.lineno)


def _readable(messages: list[Message]) -> list[Message]:
    return sorted({each.text: each for each in messages if len(each.text.replace("…", "")) >= LEAST_TEXT}.values())
