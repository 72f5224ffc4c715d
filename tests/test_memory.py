"""The memory that a process can get, by trees of control groups as Linux shows them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from napari_mgbpv2.memory import available_memory

GIB = 2**30
V2_MOUNT = "31 23 0:28 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which 64 GiB are available."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))


def tree(root: Path, groups: str, mounts: str, **files: str | int) -> Path:
    """Write a tree of control groups; names of files have "__" for "/" and "_" for "."."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def v2(root: Path, group: str, mounted: str = "/", **files: str | int) -> Path:
    named = {name.replace("memory_", "memory."): content for name, content in files.items()}
    return tree(root, f"0::{group}\n", V2_MOUNT.format(mounted=mounted), **named)


def test_no_control_groups(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == 64 * GIB


def test_version_2(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max=4 * GIB, job__memory_current=GIB)
    assert available_memory(root) == 3 * GIB


def test_version_2_without_a_limit(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max="max", job__memory_current=GIB)
    assert available_memory(root) == 64 * GIB


def test_a_limit_beyond_the_machine(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max=900 * GIB, job__memory_current=GIB)
    assert available_memory(root) == 64 * GIB


def test_cached_files_are_not_counted_as_used(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        "/job",
        job__memory_max=4 * GIB,
        job__memory_current=3 * GIB,
        job__memory_stat=f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 0",
    )
    assert available_memory(root) == 3 * GIB


def test_the_level_from_which_the_kernel_slows_a_group_down(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max=4 * GIB, job__memory_high=2 * GIB, job__memory_current=GIB)
    assert available_memory(root) == GIB


def test_the_limit_of_a_parent(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        "/pod/container",
        pod__memory_max=3 * GIB,
        pod__memory_current=2 * GIB,
        pod__container__memory_max=8 * GIB,
        pod__container__memory_current=GIB,
    )
    assert available_memory(root) == GIB


def test_a_container_that_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    root = v2(tmp_path, "/docker/abc", "/", memory_max=2 * GIB, memory_current=0)
    assert available_memory(root) == 2 * GIB


def test_a_group_below_the_one_that_is_mounted(tmp_path: Path) -> None:
    root = v2(tmp_path, "/docker/abc/part", "/docker/abc", part__memory_max=2 * GIB, part__memory_current=0)
    assert available_memory(root) == 2 * GIB


def test_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "3:cpu:/job\n4:memory:/job\n0::/\n",
        V1_MOUNTS,
        **{
            "memory__job__memory.limit_in_bytes": 4 * GIB,
            "memory__job__memory.usage_in_bytes": 3 * GIB,
            "memory__job__memory.stat": f"total_inactive_file {GIB}",
            "memory__memory.limit_in_bytes": 2**63 - 4096,
            "memory__memory.usage_in_bytes": 9 * GIB,
        },
    )
    assert available_memory(root) == 2 * GIB


def test_a_full_group_has_nothing_left(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max=GIB, job__memory_current=2 * GIB)
    assert available_memory(root) == 0


def test_damaged_files(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", job__memory_max="many", job__memory_current="none", job__memory_stat="inactive_file")
    assert available_memory(root) == 64 * GIB
