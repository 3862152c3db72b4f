"""Size of the environment that serving needs, library by library: `python -m serving.footprint`.

Follows the base dependencies of pyproject.toml, which a Bento installs without an extra, and their requirements in
turn, and adds up the installed files of each. Takes some seconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@dataclass(frozen=True, kw_only=True)
class FootprintConfig(JsonOutput):
    """Sizes of the libraries that serving needs, as installed here."""

    top: int = 12
    """Number of libraries to list, largest first; the sum is of all."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise HalftoneError(f"--top must be at least 1, not {self.top}")


def needed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed libraries that these requirements need, directly or indirectly, by canonical name.

    Args:
        requirements: PEP 508 requirements; those whose marker excludes this machine are left out.

    Raises:
        HalftoneError: a library is not installed.
    """
    libraries: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(Requirement(text), "") for text in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = _canonical(requirement.name)
        libraries[name] = _installed(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                queue += [(Requirement(text), wanted) for text in libraries[name].requires or ()]
    return libraries


def size(library: Distribution) -> int:
    """Return the bytes of the library's files, compiled ones included."""
    return sum(path.stat().st_size for path in _files(library))


def _files(library: Distribution) -> Iterator[Path]:
    for file in library.files or ():
        path = Path(str(library.locate_file(file)))
        if path.is_file():
            yield path


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise HalftoneError(
            f"{name}, which serving needs, is not installed: run `pip install --constraint constraints.txt .`"
        ) from None


def main(config: FootprintConfig) -> int:
    """Print the sizes; return the exit code."""
    requirements = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    libraries = needed(requirements)
    sizes = {name: size(library) for name, library in sorted(libraries.items())}
    publish(sizes)
    table = Table("library", "version", "MiB")
    largest = sorted(sizes, key=lambda name: -sizes[name])
    for name in largest[: config.top]:
        table.add_row(name, libraries[name].version, f"{sizes[name] / 2**20:.1f}")
    rest = sum(sizes[name] for name in largest[config.top :])
    table.add_row(f"{len(largest[config.top :])} others", "", f"{rest / 2**20:.1f}", end_section=True)
    table.add_row(f"all {len(sizes)}", "", f"{sum(sizes.values()) / 2**20:.1f}")
    Console().print(table)
    return DONE


if __name__ == "__main__":
    run(main, FootprintConfig, prog="python -m serving.footprint", example="--top 20")
