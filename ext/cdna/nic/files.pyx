"""Memory files: a context's page and rings, moved to where another process can map them and nothing else."""
# build: control

import fcntl
import os

from libc.stdint cimport uint8_t
from posix.mman cimport MAP_FAILED, MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap

from cdna.errors import ResourceError

F_SEAL_FUTURE_WRITE = 0x0010    # linux/fcntl.h; Python names it from 3.14 on


cdef move_to_file(uint8_t *at, size_t size, bint writable):
    """Replaces the memory at an address by a memory file with the same contents; returns its descriptor."""
    cdef void *base
    fd = os.memfd_create("cdna-context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, memoryview(<uint8_t[:size]>at), 0)
        base = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0)
        if base == MAP_FAILED:
            raise ResourceError("cannot map a context's memory file")
        _seal(fd, writable)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _seal(fd, writable):
    """A file that neither shrinks nor grows, and that nobody maps writable from now on, unless `writable`."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if not writable:
        seals |= F_SEAL_FUTURE_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
