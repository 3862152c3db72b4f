"""Test the number of usable cores under the CPU quota of a container."""

import os
from pathlib import Path

import pytest

from export.__main__ import ExportAllConfig
from models.common.host import cores, multiplies_int8


@pytest.fixture(autouse=True)
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a host with 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 64),
        ({"sys/fs/cgroup/cpu.max": ""}, 64),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n"}, 64),
    ],
)
def test_the_quota_limits_the_cores(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    write(tmp_path, files)

    assert cores(root=tmp_path) == expected


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_the_group_of_the_process_limits_the_cores(tmp_path: Path, controllers: str) -> None:
    folder = "sys/fs/cgroup/cpu"
    files = {
        "proc/self/cgroup": f"12:cpuset:/other\n4:{controllers}:/jobs/mine\n1:name=systemd:/x\n0::/unified\n",
        f"{folder}/cpu.cfs_quota_us": "-1\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
        f"{folder}/jobs/mine/cpu.cfs_quota_us": "400000\n",
        f"{folder}/jobs/mine/cpu.cfs_period_us": "100000\n",
        f"{folder}/other/cpu.cfs_quota_us": "100000\n",
        f"{folder}/other/cpu.cfs_period_us": "100000\n",
    }
    write(tmp_path, files)

    assert cores(root=tmp_path) == 4


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags : fpu avx2 fma", False),
        ("flags : avx2 avx512f avx512_vnni", True),
        ("flags : avx2 avx_vnni", True),
        ("Features : fp asimd", False),
        ("Features : fp asimd asimddp", True),
        ("", False),
    ],
)
def test_int8_instructions_are_read_from_the_processor(
    monkeypatch: pytest.MonkeyPatch, line: str, expected: bool
) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **given: line if str(path) == "/proc/cpuinfo" else read(path, **given)
    )

    assert multiplies_int8() is ExportAllConfig(model="mine").int8 is expected
