"""The tap wire: the host's network stack on the other end.

One system call a frame: a tap has no other way, and it is the kernel's price for the bridges that it is
compared with, too. A tap that is down takes no frames (EIO): they are lost and counted, as behind a cable
that leads nowhere. When the device is gone, the link goes down for good.
"""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.unistd cimport read, write

from cdna.abi cimport MAX_FRAME
from cdna.cpu cimport store_u32
from cdna.nic.context cimport BURST, frame_t, wire_t
from cdna.nic.spsc cimport SLOT_BYTES, SLOT_STRIDE
from cdna.nic.wire cimport Wire, down_tx, is_down, lose_tx

import os

from cdna.nic.tap import open_tap

cdef extern from "<errno.h>" nogil:
    int EBADFD

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)

cdef struct tap_t:
    int fd
    uint32_t reserved
    uint64_t rx_oversize        # frames that no NIC here carries
    uint8_t *slot


cdef int tap_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef tap_t *tap = <tap_t *>self.state
    cdef int i
    if is_down(self):
        return down_tx(self, frame, n)
    for i in range(n):
        if write(tap.fd, frame[i].data, frame[i].len) >= 0:
            continue
        if errno in (EAGAIN, EINTR, ENOBUFS, ENOMEM):
            return i                        # offered again
        if errno == EBADFD:
            store_u32(&self.link, 0)
        lose_tx(self, 1)
    return n


cdef int tap_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef tap_t *tap = <tap_t *>self.state
    cdef uint8_t *slot = tap.slot
    cdef ssize_t length
    cdef int i = 0
    if is_down(self):
        return 0
    if n > BURST:
        n = BURST
    while i < n:
        length = read(tap.fd, slot, SLOT_BYTES)
        if length < 0:
            if errno == EBADFD:
                store_u32(&self.link, 0)
            return i
        if length > MAX_FRAME:              # and cut to SLOT_BYTES, perhaps
            tap.rx_oversize += 1
            continue
        frame[i].data = slot
        frame[i].len = <uint32_t>length
        frame[i].timestamp_ns = 0
        slot += SLOT_STRIDE
        i += 1
    return n


cdef class TapWire(Wire):
    """A wire to the tap device `name`, made if there is none, and brought up.

    Needs CAP_NET_ADMIN or a persistent tap of the user's own; otherwise ResourceError says so.
    """

    cdef tap_t *tap
    cdef int fd                 # here as well: the shared memory may be gone before this object

    def __cinit__(self, *args, **kwargs):
        self.tap = <tap_t *>self.share(sizeof(tap_t))
        self.tap.fd = self.fd = -1

    def __init__(self, name):
        self.tap.slot = <uint8_t *>self.share(BURST * SLOT_STRIDE)
        self.tap.fd = self.fd = open_tap(name)
        self.name = name
        self.c.state = self.tap
        self.c.tx = tap_tx
        self.c.rx = tap_rx
        self.c.link = 1

    def fileno(self):
        """The descriptor, readable when the host has sent something; -1 after close."""
        return self.fd

    def stats(self):
        """Wire.stats and rx_oversize, frames longer than any NIC here carries."""
        return {**super().stats(), "rx_oversize": self.tap.rx_oversize}

    def close(self):
        """Takes the wire down and gives the tap back; unless it is persistent, it is gone."""
        super().close()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.tap.fd = -1
            os.close(fd)

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)
