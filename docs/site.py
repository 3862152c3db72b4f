"""Hook of MkDocs: the site holds the Markdown of the repository at its own paths, so that every link stays as it is.

MkDocs reads one folder, which may not be the root of the repository. The pages link to the README and to reports
outside it.
"""

import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of the theme, all pages of the repository, and the files that the pages link to."""
    pages = _pages()
    linked = {_from_root(page, target) for page in pages for target in LINK.findall((ROOT / page).read_text())}
    linked |= {Path(str(name)) for name in config.extra_css}
    attached = sorted(path for path in linked - set(pages) if (ROOT / path).is_file())
    theme = [file for file in files if not Path(file.abs_src_path or "").is_relative_to(ROOT / "docs")]
    return Files([*theme, *(_file(path, config) for path in [*pages, *attached])])


def _pages() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.splitlines() if not name.startswith(".")]


def _from_root(page: Path, target: str) -> Path:
    return (ROOT / page.parent / target).resolve().relative_to(ROOT)


def _file(path: Path, config: MkDocsConfig) -> File:
    # Pages outside docs/ that the menu leaves out are reports and licences: other pages link to them.
    inclusion = InclusionLevel.INCLUDED if path.parts[0] == "docs" else InclusionLevel.NOT_IN_NAV
    return File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path), inclusion=inclusion)
