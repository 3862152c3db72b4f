"""`python -m loadtest.schema`: test the service against its OpenAPI description with schemathesis.

Starts `bentoml serve` on a free port of 127.0.0.1 and lets schemathesis generate at least `--cases` requests for the
operations of /docs.json. A failure is a 500, a response that the description does not contain, a valid request that
the service refuses, or an invalid one that it accepts. 20,000 cases take about 10 minutes. Exit code 1 after a
failure. Needs the package `schemathesis`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from loadtest.reporting.cli import CompareError, JsonOutput, check_least, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import started

OPERATIONS = 19
"""Approximate number of operations in the description."""

# A generated deadline of a millisecond yields a 504. OpenAPI can't describe how shape and data depend on each other, so
# the service may refuse a well-formed tensor. A version is a hash that no generator guesses (404).
# Nor does the document know which coverage the model can promise, and which classes it has (422). One picture is
# explained at a time, so that behind another one a deadline of a millisecond is refused at once (429).
CONFIG = """\
hooks = "loadtest.schema.hooks"

[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
positive_data_acceptance.expected-statuses = ["2xx", "404", "503", "504"]
negative_data_rejection.expected-statuses = ["400", "401", "404", "405", "408", "413", "415", "422", "431", "504"]

[[operations]]
include-path-regex = "/(classify|classify_batch)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "422", "503", "504"]

[[operations]]
include-path-regex = "/explain$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "422", "429", "503", "504"]

[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
"""


@dataclass(frozen=True, kw_only=True)
class Schema(JsonOutput):
    """Test the service against its OpenAPI description with schemathesis."""

    cases: int = 20_000
    """Minimum number of requests."""

    seed: int = 1
    """Seed of the first run; each further run uses the next number."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 1, "cases")


def main(config: Schema) -> int:
    """Measure and report; return the exit code."""
    tool = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if tool is None:
        raise CompareError(
            "schemathesis is not installed: run `pip install '.[loadtest]'` in the folder of Halftone's pyproject.toml"
        )
    sent = failures = runs = 0
    with started(HALFTONE_LOG_REQUESTS="0") as server, tempfile.TemporaryDirectory() as folder:
        server.wait_until_ready()
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        while sent < config.cases and not failures:
            wanted = max(10, (config.cases - sent) // OPERATIONS)
            text, code = _run(tool, folder, server.port, wanted, config.seed + runs)
            sent, failures, runs = sent + _cases(text), failures + int(code != 0), runs + 1
            if code:
                print(text, file=sys.stderr)
            if not _cases(text):
                print(f"error: the output of schemathesis has no number of requests:\n{text}", file=sys.stderr)
                return 1
    figures = [
        Figure("requests", sent, f"at least {config.cases:,}", sent >= config.cases),
        Figure("runs with a failure", failures, "0", not failures),
    ]
    setting = {"schemathesis": version("schemathesis"), "runs": runs, "seed": config.seed}
    return Findings("The service against its OpenAPI description", figures, setting).report(config.output)


def _run(tool: str, folder: str, port: int, most: int, seed: int) -> tuple[str, int]:
    """Run schemathesis with at most `most` requests per operation; return its output and exit code."""
    command = [tool, "--config-file", str(Path(folder) / "schemathesis.toml"), "run"]
    command += [f"http://127.0.0.1:{port}/docs.json", "--max-examples", str(most), "--seed", str(seed)]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--generation-database", "none"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr, result.returncode


def _cases(text: str) -> int:
    found = re.search(r"([\d,]+) generated", text)
    return int(found[1].replace(",", "")) if found else 0


if __name__ == "__main__":
    run(main, Schema, prog="python -m loadtest.schema", example="--cases 2000")
