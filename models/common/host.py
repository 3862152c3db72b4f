"""Facts about this machine that a proof or a measured speed depends on."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm"),
)

_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Those that multiply 8-bit integers and add up in 32 bits in one instruction."""


def cores(*, root: Path = Path("/")) -> int:
    """Return the number of processor cores that this process may use, at least 1.

    A container's CPU quota counts, rounded up (cgroup v2 and v1).

    Args:
        root: folder that contains `proc` and `sys`.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *_cpu_quotas(root)]))


def host() -> dict[str, str | int | list[str]]:
    """Describe processor, arithmetic extensions, usable cores and operating system, without the machine's name."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "features": [name for name in _FEATURES if name in flags],
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def multiplies_int8() -> bool:
    """Return True if the processor has instructions for 8-bit products, by which INT8 gains."""
    return any(name in str(host()["features"]) for name in _INT8)


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


def _cpuinfo() -> dict[str, str]:
    text = _text(Path("/proc/cpuinfo"))
    lines = (line.split(":", maxsplit=1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines}


def _text(path: Path) -> str:
    """Return the content of a file, or nothing if it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
