"""`python -m loadtest.schema`: schemathesis asks the service what its OpenAPI description allows, and what it forbids.

Starts `bentoml serve` on a free port of 127.0.0.1 and lets schemathesis generate requests for every operation of
/docs.json until there were as many as wanted: an answer of 500, one that the description doesn't tell of, a request
that it allows and the service refuses, or one that it forbids and the service takes is a failure. 20,000 cases in about
10 minutes. Exit code 1 where there was a failure. Needs the package `schemathesis`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tyro

from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import started

OPERATIONS = 18
"""How many operations the description has, about."""

# A generated deadline of a millisecond is a 504; what shape and data have to do with each other can't be described,
# so that a well-formed tensor may still be refused; a version is a hash that no generator guesses (404).
CONFIG = """\
hooks = "loadtest.schema.hooks"

[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
positive_data_acceptance.expected-statuses = ["2xx", "404", "503", "504"]
negative_data_rejection.expected-statuses = ["400", "401", "404", "405", "408", "413", "415", "422", "431", "504"]

[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
"""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Hold the service to its OpenAPI description with schemathesis."""

    cases: int = 20_000
    """Least requests to send."""

    seed: int = 1
    """Of the first run; each further one takes the next."""

    output: Path | None = None
    """Path without ending for the figures as .json and .md, besides what is printed."""


def main(config: Schema) -> int:
    """Run and print; returns the exit code."""
    if config.cases < 1:
        print("error: --cases must be 1 or more", file=sys.stderr)
        return 2
    sent = failures = runs = 0
    with started(HALFTONE_LOG_REQUESTS="0") as server, tempfile.TemporaryDirectory() as folder:
        server.until_ready()
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        while sent < config.cases and not failures:
            wanted = max(10, (config.cases - sent) // OPERATIONS)
            text, code = _run(folder, server.port, wanted, config.seed + runs)
            sent, failures, runs = sent + _cases(text), failures + int(code != 0), runs + 1
            if code:
                print(text, file=sys.stderr)
            if not _cases(text):
                print(f"error: schemathesis does not say how many requests it made:\n{text}", file=sys.stderr)
                return 1
    figures = [
        Figure("requests", sent, f"at least {config.cases:,}", sent >= config.cases),
        Figure("runs with a failure", failures, "0", not failures),
    ]
    setting = {"schemathesis": version("schemathesis"), "runs": runs, "seed": config.seed}
    return Findings("The service against its OpenAPI description", figures, setting).report(config.output)


def _run(folder: str, port: int, most: int, seed: int) -> tuple[str, int]:
    """One run of schemathesis, with so many requests an operation; its output and exit code."""
    tool = Path(sys.executable).parent / "schemathesis"
    command = [str(tool), "--config-file", str(Path(folder) / "schemathesis.toml"), "run"]
    command += [f"http://127.0.0.1:{port}/docs.json", "--max-examples", str(most), "--seed", str(seed)]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--generation-database", "none"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr, result.returncode


def _cases(text: str) -> int:
    found = re.search(r"([\d,]+) generated", text)
    return int(found[1].replace(",", "")) if found else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Schema, prog="python -m loadtest.schema")))
