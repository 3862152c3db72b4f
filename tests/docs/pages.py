"""`python -m tests.docs.pages`: write the parts of the documentation that are made from the code.

They follow the mark in their files; what comes before it is written by hand. A test says when they are stale.
"""

import re
from collections.abc import Callable, Iterator

from tests.commands import run
from tests.docs import flags, messages, python_api
from tests.servers import ROOT
from tests.wrong_uses import commands

MARK = "<!-- from here on written by `make docs` -->\n"

MARKS = re.compile(r"[*\[\]<>]|(?<!\w)_|_(?!\w)")
"""Characters to which Markdown gives a meaning outside code."""

STAGES = {
    "Training and its data": ("training",),
    "Models and bundles": ("models",),
    "Export and proof": ("export",),
    "Serving": ("serving",),
    "Load tests": ("loadtest",),
}
"""Heading to the packages whose messages stand below it."""


def write() -> None:
    """Write every page again."""
    for name, part in PAGES.items():
        path = ROOT / "docs" / name
        path.write_text(whole(path.read_text(), part))


def whole(text: str, part: Callable[[], str]) -> str:
    """Return a page with its last part made again."""
    before, mark, _ = text.partition(MARK)
    assert mark, "the page has no mark"
    return before + mark + re.sub(r"\n{3,}", "\n\n", f"{part().rstrip()}\n")


def troubleshooting() -> str:
    """Return the errors of the HTTP API by code, and the messages of commands by stage."""
    return "\n".join([*_http(), *_commands()])


def _http() -> Iterator[str]:
    yield "\n## Errors of the HTTP API\n"
    found = messages.http_messages()
    for status, code in sorted(messages.http_codes()):
        texts = sorted({escaped(each.text) for each in found if (each.status, each.code) == (status, code)})
        yield f"### {status} `{code}`\n"
        yield from (f"- {text}" for text in texts or ["the message names the cause"])
        yield ""


def _commands() -> Iterator[str]:
    found = messages.command_messages()
    for heading, packages in STAGES.items():
        yield f"## {heading}\n"
        texts = {each.text for each in found if each.module.partition(".")[0] in packages}
        yield from (
            f"- {escaped(text)}" for text in sorted(texts, key=lambda text: (text.lstrip("…-:, `").lower(), text))
        )
        yield ""


def _first_letters(text: str) -> tuple[str, str]:
    return text.lstrip("…-:, `").lower(), text


def flag_tables() -> str:
    """Return a table of the flags for every command."""
    return "\n".join(line for name, command in sorted(commands().items()) for line in _flag_table(name, command.config))


def _flag_table(name: str, config: type) -> Iterator[str]:
    yield f"\n## python -m {name}\n"
    yield f"{escaped(flags.about(config))}\n"
    yield "| flag | |\n|---|---|"
    for row in flags.rows(config):
        # Two columns, which a telephone shows whole.
        ends = {"needed": " Needed.", "": ""}.get(row.default, f" Default: {row.default}.")
        cells = (f"`{row.name}` {row.takes}".rstrip(), escaped(row.meaning) + ends)
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def catalogue_table() -> str:
    """Return the catalogue as the command prints it."""
    return "\n" + run("models", "--format", "markdown").stdout


def python_reference() -> str:
    """Return signature and docstring of everything public."""
    return "\n".join(line for entry in python_api.entries() for line in _entry(*entry)).rstrip() + "\n"


def _entry(name: str, signature: str, text: str) -> Iterator[str]:
    yield f"\n{'##' if signature.startswith('class ') or name.count('.') < 4 else '###'} {name}\n"
    yield f"```python\n{signature}\n```\n"
    yield _sections(escaped(text))


def _sections(text: str) -> str:
    """Return a docstring with its arguments, results and errors as lists."""

    def listed(match: re.Match[str]) -> str:
        body = re.sub(r"\n {8,}", " ", match[2])
        items = [re.sub(r"^(\*{0,2}\w+): ", r"`\1`: ", line.strip()) for line in body.splitlines() if line.strip()]
        return f"{match[1]}:\n\n" + "\n".join(f"- {item}" for item in items) + "\n"

    return re.sub(r"^(Args|Returns|Raises|Yields):\n((?:    .*\n?|\n(?=    ))+)", listed, text, flags=re.MULTILINE)


def escaped(text: str) -> str:
    """Return text in which Markdown finds no marks outside its code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else MARKS.sub(r"\\\g<0>", part) for part in parts)


PAGES: dict[str, Callable[[], str]] = {
    "troubleshooting.md": troubleshooting,
    "flags.md": flag_tables,
    "models.md": catalogue_table,
    "python.md": python_reference,
}
"""Page to the function that makes its last part."""

if __name__ == "__main__":
    write()
