"""The memory that a cgroup allows, read from files as the kernel has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdna.base.cgroup import MemoryGroup

MIB = 1 << 20
RAM = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
PAGE = os.sysconf("SC_PAGE_SIZE")
NONE_1 = str((1 << 63) - 4096)  # version 1: there is no limit

VERSION_2 = ("memory.max", "memory.current", "file {cache}\nshmem {shared}\nanon 0\n")
VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "cache 1\nshmem 2\ntotal_cache {cache}\ntotal_shmem {shared}\n",
)


def machine(tmp_path: Path, cgroup: str, mountinfo: str) -> Path:
    """A /proc, of a process with 3 MiB of which 1 MiB is its own."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    for name, text in {
        "cgroup": cgroup,
        "mountinfo": mountinfo,
        "statm": f"99999 {3 * MIB // PAGE} {2 * MIB // PAGE} 1 0 1 0\n",
    }.items():
        (tmp_path / "proc" / "self" / name).write_text(text)
    return tmp_path / "proc"


def group(folder: Path, version, limit: object, usage: int = 0, cache: int = 0, shared: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_file, usage_file, stat = version
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(stat.format(cache=cache, shared=shared))


def mounts(tmp_path: Path, kind: str, root: str = "/") -> str:
    options = "rw,memory" if kind == "cgroup" else "rw"
    return (
        f"24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw\n"
        f"25 24 0:23 {root} {tmp_path}/fs rw,nosuid shared:4 - {kind} none {options}\n"
        f"26 24 0:24 / {tmp_path}/other rw - cgroup none rw,cpu\n"
    )


@pytest.mark.parametrize(("kind", "version"), [("cgroup2", VERSION_2), ("cgroup", VERSION_1)])
def test_the_smallest_limit_on_the_path_up(tmp_path, kind, version):
    line = "0::/a/b\n" if kind == "cgroup2" else "5:cpu:/x\n4:memory:/a/b\n0::/\n"
    proc = machine(tmp_path, line, mounts(tmp_path, kind))
    none = "max" if kind == "cgroup2" else NONE_1
    group(tmp_path / "fs", version, none)
    group(tmp_path / "fs/a", version, 64 * MIB, usage=30 * MIB, cache=12 * MIB, shared=5 * MIB)
    group(tmp_path / "fs/a/b", version, none)
    with MemoryGroup(proc) as found:
        assert found.limit == 64 * MIB
        assert found.own() == MIB
        assert found.others() == (30 - 7 - 1) * MIB  # without the page cache, and what is its own
        group(tmp_path / "fs/a", version, 64 * MIB, usage=31 * MIB, cache=5 * MIB, shared=5 * MIB)
        assert found.others() == 30 * MIB
    group(tmp_path / "fs/a/b", version, 63 * MIB)
    with MemoryGroup(proc) as found:
        assert found.limit == 63 * MIB


def test_a_container_sees_its_own_part_of_the_tree(tmp_path):
    proc = machine(tmp_path, "0::/box/server\n", mounts(tmp_path, "cgroup2", "/box"))
    group(tmp_path / "fs/server", VERSION_2, 32 * MIB)
    with MemoryGroup(proc) as found:
        assert found.limit == 32 * MIB


@pytest.mark.parametrize("mountinfo", ["", "25 24 0:23 / /nowhere rw - cgroup2 none rw\n"])
def test_without_a_limit_it_is_the_machine(tmp_path, mountinfo):
    with MemoryGroup(machine(tmp_path, "0::/\n", mountinfo)) as found:
        assert found.limit == RAM
        assert found.others() == 0


def test_this_process_has_memory_of_its_own():
    before = MemoryGroup()
    kept = bytearray(os.urandom(MIB)) * 16
    assert before.own() > len(kept)
    before.close()
