"""NEEDS A DOCSTRING."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from loadtest.servers.process import usable_cores

_OWN_PACKAGES = (
    "bentoml",
    "cykooz-resizer",
    "httptools",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "pillow",
    "simplejpeg",
    "uvloop",
)

_PEER_PACKAGES = ("fastapi", "litserve", "mlserver", "nvidia-pytriton", "onnxruntime", "openvino", "ray", "uvicorn")

_NOTHING = "–"


def finite(value: Any) -> Any:
    """The value with null for the percentiles of nothing, which JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], *, texts: int = 2) -> list[str]:
    """The lines of a table whose first `texts` columns are text, the others figures."""
    rule = [*["---"] * texts, *["---:"] * (len(header) - texts)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *body)]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)


def hardware() -> dict[str, str | int]:
    """Processor, usable cores, memory-independent facts of the system; no name of the machine."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "extensions": " ".join(flag for flag in wanted if flag in flags),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def versions(requirements: Sequence[str]) -> dict[str, dict[str, str]]:
    """Versions of the packages that matter: of this environment, and of each peer's as its file pins them."""
    return {"here": _installed()} | {name: _pinned(name) for name in sorted(set(requirements))}


def _installed() -> dict[str, str]:
    found = {}
    for name in _OWN_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _pinned(requirements: str) -> dict[str, str]:
    text = (files("loadtest.peers") / "requirements" / f"{requirements}.txt").read_text()
    pairs = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {name.strip(): pinned.strip() for name, _, pinned in pairs if name.strip() in _PEER_PACKAGES}
