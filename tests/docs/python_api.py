"""What a user's Python code may import, from the signatures and docstrings in the source; nothing is imported."""

import ast
import inspect
from collections.abc import Iterator

from tests.docs.messages import sources

PUBLIC = {
    "models.catalog": ("catalogue", "architecture"),
    "models.bundle.store": ("open_bundle", "artifacts"),
    "models.bundle.bundle": ("Bundle",),
    "models.spec": ("InputSpec",),
    "models.preprocess.decode": ("decode",),
    "models.preprocess.transform": ("fit", "load"),
    "export.variants": ("load", "runtime_names"),
    "export.runtime": ("Runtime",),
    "export.explain.explainer": ("Explainer", "Explanation", "explain"),
}
"""Module to what is public in it."""


def entries() -> Iterator[tuple[str, str, str]]:
    """Yield the dotted name, the signature and the docstring of everything public, methods of classes included."""
    for module, names in PUBLIC.items():
        found = {node.name: node for node in sources()[module].body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        for name in names:
            yield from _entry(module, found[name])


def _entry(scope: str, node: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, str, str]]:
    dotted, text = f"{scope}.{node.name}", inspect.cleandoc(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        yield dotted, _signature(node), text
        return
    yield dotted, f"class {node.name}", text
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            yield from _entry(dotted, each)


def _signature(node: ast.FunctionDef) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if "property" in decorators:
        return f"{node.name}: {ast.unparse(node.returns)}" if node.returns else node.name
    node.args.args = [each for each in node.args.args if each.arg not in ("self", "cls")]
    node.args.posonlyargs = [each for each in node.args.posonlyargs if each.arg not in ("self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"
