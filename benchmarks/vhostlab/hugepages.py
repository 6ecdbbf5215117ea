"""Hugepages for both contenders, or for none: DPDK's memory is guest memory on our side too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_PAGE_MEGABYTES = 2


@contextlib.contextmanager
def hugepages(megabytes: int) -> Iterator[bool]:
    """Whether so much is free. Where that is allowed pages are reserved for it, and given back."""
    reserved = _PAGES / "nr_hugepages"
    try:
        before = int(reserved.read_text())
        missing = megabytes // _PAGE_MEGABYTES - int((_PAGES / "free_hugepages").read_text())
    except OSError:
        yield False
        return
    if missing <= 0:
        yield True
        return
    try:
        reserved.write_text(str(before + missing))
    except OSError:
        yield False
        return
    try:  # the kernel reserves what it finds, and says nothing
        yield int(reserved.read_text()) >= before + missing
    finally:
        reserved.write_text(str(before))
