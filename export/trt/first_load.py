"""Complete a plan's proof on a GPU before the plan serves for the first time.

A plan can be built on a machine that can't run it. Its parity record then says that only the graph was proved
(`verified_on`), and `export.parity.record.proof` rejects it. On a machine with a GPU, `verify_on_first_load` runs the
plan and replaces the record.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from export.parity.record import ParityRecord, UnprovenError, current, proof
from export.trt.engine import TensorRt
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError


def verify_on_first_load(bundle: Bundle, variant: str, *, data: Path | None = None) -> ParityRecord:
    """Return the passed proof of a variant; if only its graph was proved so far, prove the plan now.

    A replacement for `export.parity.record.proof`, with the same errors. The comparison runs in another process, as it
    needs torch, which a server does not load.

    Args:
        bundle: the opened bundle; its manifest is read again after the comparison.
        variant: `RUNTIME-PRECISION`.
        data: labelled images to prove on, or None for the sample photographs.

    Raises:
        UnprovenError: there is no record, the record failed or is for other files, or this machine can't run the plan;
            the message names the cause and the fix.
        BundleError: the record does not match its hash in the manifest.
    """
    record = current(bundle, variant)
    if record.verdict == "PASSED" and record.verified_on == "graph":
        try:
            problem = _prove(bundle, variant, data)
        except HalftoneError as error:
            problem = str(error)
        bundle.manifest = Bundle.open(bundle.folder).manifest
        if current(bundle, variant) == record:
            raise UnprovenError(
                f"only the graph of {variant} of {bundle.name} was proved so far, and {record.source} can't "
                f"be verified here: {problem}"
            )
    return proof(bundle, variant)


def _prove(bundle: Bundle, variant: str, data: Path | None) -> str:
    """Run `export.parity`, which replaces the record; return the last line of its standard error."""
    runtime, _ = runtime_of(variant)
    if issubclass(runtime, TensorRt):
        runtime.require()
    if importlib.util.find_spec("torch") is None:
        raise HalftoneError("the torch reference is not installed: `pip install '.[export]'` in the checkout")
    command = [sys.executable, "-m", "export.parity", "--model", bundle.folder.name, "--variant", variant]
    command += ["--data", str(data)] if data else []
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(bundle.folder.parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
