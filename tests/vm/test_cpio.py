"""The archives that a guest's kernel unpacks."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from cdna.vm.cpio import LINK, PROGRAM, Archive


def archive() -> bytes:
    made = Archive()
    made.add("init", b"#!/bin/sh\n", PROGRAM)
    made.add("lib/deep/down/file", b"x" * 5)
    made.add("lib/empty")
    made.add("bin/link", b"../init", LINK)
    made.add("init", b"added twice: the first stays")
    return made.finish()


def test_layout() -> None:
    """The fields of the first entry, as the kernel's documentation numbers them."""
    data = archive()
    assert data[:6] == b"070701"
    fields = [int(data[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
    _inode, mode, uid, gid, links, _mtime, size, *_, name_size, checksum = fields
    assert (mode, uid, gid, links, size) == (stat.S_IFREG | 0o755, 0, 0, 1, 10)
    assert (name_size, checksum) == (5, 0)
    assert data[110:115] == b"init\0"
    assert data[116:126] == b"#!/bin/sh\n"
    assert b"TRAILER!!!\0" in data
    assert len(data) % 4 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    command = ["cpio", "--extract", "--make-directories", "--quiet"]
    subprocess.run(command, input=archive(), cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o111
    assert (tmp_path / "lib/deep/down/file").read_bytes() == b"xxxxx"
    assert (tmp_path / "lib/empty").read_bytes() == b""
    assert (tmp_path / "bin/link").readlink() == Path("../init")
