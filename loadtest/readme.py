"""`python -m loadtest.readme`: write the figures of the newest reports into the README, between its two marks.

Reads the newest DATE-compare.json or DATE-…/compare.json of loadtest/reports, and likewise for `sweep` and `tune`, if
they exist. With `--check` nothing is written, and the exit code is 1 if the README differs from the reports.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.reporting.cli import CompareError, JsonOutput, publish, run
from loadtest.reporting.intervals import tie
from loadtest.reporting.tables import NOTHING, markdown_table

BEGIN, END = "<!-- performance -->", "<!-- /performance -->"
DONE, ANSWER_IS_NO = 0, 1
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?=-)")

Report = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config(JsonOutput):
    """Write the README's performance section."""

    readme: Path = Path("README.md")
    """File with the marks `<!-- performance -->` and `<!-- /performance -->`."""

    reports: Path = Path("loadtest/reports")
    """Folder of the reports."""

    check: bool = False
    """Write nothing; exit with 1 if the section differs from the reports."""


def main(config: Config) -> int:
    """Write the section, or compare it; return the exit code."""
    try:
        text = config.readme.read_text()
    except OSError as error:
        raise CompareError(f"--readme {config.readme}: {error.strerror}") from None
    found = re.search(f"{BEGIN}\n.*?{END}", text, re.DOTALL)
    if not found:
        raise CompareError(
            f"--readme {config.readme} has no lines {BEGIN} and {END}: put them where the figures belong"
        )
    figures = section(config.reports, config.readme.parent)
    updated = f"{text[: found.start()]}{BEGIN}\n{figures}{END}{text[found.end() :]}"
    publish({"file": str(config.readme), "up_to_date": updated == text, "written": not config.check})
    if config.check:
        same = updated == text
        print("up to date" if same else f"{config.readme} is older than the reports: run `python -m loadtest.readme`")
        return DONE if same else ANSWER_IS_NO
    partial = config.readme.with_name(f"{config.readme.name}.partial")
    partial.write_text(updated)
    partial.replace(config.readme)
    print(f"written: {config.readme}")
    return DONE


def section(folder: Path, root: Path) -> str:
    """Return the Markdown of the newest report of each kind.

    Args:
        folder: holds the reports.
        root: folder that the links are relative to.

    Raises:
        CompareError: there is no report, or one can't be read.
    """
    parts = []
    for kind, write in _WRITERS.items():
        path = newest(folder, kind)
        if path is None:
            continue
        try:
            report = json.loads(path.read_text())
            parts.append("\n".join([*write(report), "", _source(Path(os.path.relpath(path, root)), report), ""]))
        except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
            raise CompareError(f"{path} is no report that this version reads ({error!r}): measure again") from None
    if not parts:
        raise CompareError(f"--reports {folder} holds no report: run `python -m loadtest.compare`, sweep or tune first")
    return "\n".join(["", *parts])


def newest(folder: Path, kind: str) -> Path | None:
    """Return the report of a kind with the latest date in its name or in its folder's name."""
    paths = [*folder.glob(f"*-{kind}.json"), *folder.glob(f"*/{kind}.json")]
    dated = {path: date for path in paths if (date := _DATE.match(path.relative_to(folder).as_posix()))}
    return max(dated, key=lambda path: (dated[path][0], path), default=None)


def _source(path: Path, report: Report) -> str:
    hardware = report["hardware"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores ({hardware['extensions']}), {hardware['system']}"
    return f"{machine}; {report['date'][:10]}; all of it: [{path.stem}]({path.with_suffix('.md').as_posix()})."


def _compare_lines(report: Report) -> list[str]:
    clients = report["clients"]
    middle, ratio = len(clients) // 2, next(iter(_measured(report)["levels"][0]["ratios"]))
    header = [
        "server",
        "engine",
        *(f"req/s, {number} client{'s' * (number > 1)}" for number in clients),
        f"p99 ms, {clients[middle]} clients",
        f"{ratio}, {clients[middle]} clients",
        "peak MB",
    ]
    body = [_server(row, middle, ratio, len(header)) for row in report["rows"]]
    return [
        "Against other servers, with the same photos, preprocessing and machine:",
        "",
        *markdown_table(header, body),
    ]


def _measured(report: Report) -> Mapping[str, Any]:
    return next(row for row in report["rows"] if row["levels"])


def _server(row: Mapping[str, Any], middle: int, ratio: str, width: int) -> list[str]:
    start = [row["title"], row["engine"]]
    if not row["levels"]:
        return [*start, "not measured", *[NOTHING] * (width - 3)]
    level = row["levels"][middle]
    return [
        *start,
        *(f"{each['rate']['median']:.0f}" for each in row["levels"]),
        _figure(level["p99_ms"]["median"], 0),
        f"{_figure(level['ratios'][ratio], 2)}{' tie' * tie(level.get('ratio_intervals', {}).get(ratio))}",
        _figure(row["peak_mib"]["median"] if row["peak_mib"] else None, 0),
    ]


def _sweep_lines(report: Report) -> list[str]:
    server, scenarios, target = report["server"], report["scenarios"], report["target_ms"]
    body = [["Server", f"{report['highest_rate']:.0f} requests/s", f"random arrivals, p99 ≤ {target:g} ms"]]
    for name, percent in (("SingleStream", "90"), ("MultiStream", "99")):
        if name in scenarios:
            what = f"{scenarios[name]['pictures']} a request, p{percent}"
            body.append([name, f"{_figure(scenarios[name]['latency_ms'][percent], 1)} ms", what])
    if "Offline" in scenarios:
        body.append(["Offline", f"{scenarios['Offline']['images_per_second']:.0f} images/s", "everything at once"])
    return [
        f"`{server['model']}` as {server['variant']}, by the scenarios of MLPerf (in seconds, so no MLPerf results):",
        "",
        *markdown_table(["scenario", "result", "which is"], body, texts=3),
    ]


def _tune_lines(report: Report) -> list[str]:
    chosen, plan, untuned = report["chosen"], report["plan"], report["untuned"]
    needed = [f"{each['replicas']} for {each['requests_per_second']:g} requests/s" for each in plan["traffic"]]
    return [
        f"Tuned for p99 ≤ {report['target_ms']:g} ms: {chosen['setting']} holds {chosen['rate']:.0f} requests/s "
        f"(untuned {untuned['rate']:.0f}), and {plan['confirmed']:.0f} in a second run. Replicas of {plan['cores']} "
        f"cores and {plan['memory_mib']} MiB: {'; '.join(needed)}.",
    ]


def _figure(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


_WRITERS: dict[str, Callable[[Report], Sequence[str]]] = {
    "compare": _compare_lines,
    "sweep": _sweep_lines,
    "tune": _tune_lines,
}


if __name__ == "__main__":
    run(main, Config, prog="python -m loadtest.readme", example="--check")
