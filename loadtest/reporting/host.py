"""Hardware and package versions of this machine, which every report states."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

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
_EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")


def usable_cores(*, root: Path = Path("/")) -> int:
    """Return the number of processor cores that this process may use, at least 1.

    A container's CPU quota counts, rounded up (cgroup v2 and v1), as it does for the service's own threads: otherwise
    each peer would get a worker for every core of the host.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *_cpu_quotas(root)]))


def hardware() -> dict[str, str | int]:
    """Return processor, usable cores and system; no memory and no name of the machine."""
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "extensions": " ".join(flag for flag in _EXTENSIONS if flag in flags),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def versions(requirements: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the versions of the packages that matter: of this environment, and the pinned ones of each peer's."""
    return {"here": _installed()} | {name: _pinned(name) for name in sorted(set(requirements))}


def _cpu_quotas(root: Path) -> Iterator[int]:
    """Yield the CPU quotas of this process in cores, rounded up: none if it has no quota (cgroups(7))."""
    cgroup = root / "sys/fs/cgroup"
    # cgroup v1: a container sees its own group at the top of the mount; elsewhere /proc names the group.
    groups = re.findall(r"^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:/(.*)$", _text(root / "proc/self/cgroup"), re.MULTILINE)
    limits = [_text(cgroup / "cpu.max")]
    for folder in (cgroup / "cpu" / group for group in ("", *groups)):
        limits.append(f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}")
    for limit in limits:
        # No quota: `max` (v2) or -1 (v1).
        if numbers := re.fullmatch(r"(\d+)\s+([1-9]\d*)\s*", limit):
            yield -(-int(numbers[1]) // int(numbers[2]))


def _text(path: Path) -> str:
    """Return the content of a file, or nothing if it can't be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _installed() -> dict[str, str]:
    installed = {}
    for name in _OWN_PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _pinned(requirements: str) -> dict[str, str]:
    text = (files("loadtest.peers") / "requirements" / f"{requirements}.txt").read_text()
    pairs = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {name.strip(): pinned.strip() for name, _, pinned in pairs if name.strip() in _PEER_PACKAGES}
