"""The last step of a plan's proof: run it on a GPU before it serves for the first time.

A plan can be built where it can't be run. Its record then says that only the graph was checked (`verified_on`), and
`export.parity.record.proof` refuses it. Where there is a GPU, `verify_on_first_load` runs the plan itself and replaces the
record.
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
    """The passed proof of a variant, made now where so far only its graph was checked and a GPU is here.

    It raises what `export.parity.record.proof` raises and so can stand in its place. The comparison runs in a process of its
    own, as it needs torch, which a server does not load.

    Args:
        bundle: the opened bundle; its manifest is read again after the comparison.
        variant: `RUNTIME-PRECISION`.
        data: labelled pictures to prove on, or None for the sample photographs.

    Raises:
        UnprovenError: there is no record, it failed, it is for other files, or the plan can't be run here; the message
            says why and the fix.
        BundleError: the record was tampered with.
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
                f"only the graph of {variant} of {bundle.manifest.name} was checked so far, and {record.source} can't "
                f"be verified here: {problem}"
            )
    return proof(bundle, variant)


def _prove(bundle: Bundle, variant: str, data: Path | None) -> str:
    """Run `export.parity`, which replaces the record; returns the last line of its complaints."""
    runtime, _ = runtime_of(variant)
    if issubclass(runtime, TensorRt):
        runtime.require()
    if importlib.util.find_spec("torch") is None:
        raise HalftoneError("the torch reference is not installed: `pip install 'halftone[export]'`")
    command = [sys.executable, "-m", "export.parity", "--model", bundle.folder.name, "--variant", variant]
    command += ["--data", str(data)] if data else []
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(bundle.folder.parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
