"""A wire as Python holds it: a `wire_t` in memory that forked processes share, and its owner."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport load_u32
from cdna.nic.frame cimport frame_t
from cdna.nic.wire_contract cimport wire_t

# What the NIC runs is the first member; a wire's function finds the rest behind the same pointer.
cdef struct shared_wire_t:
    wire_t wire
    uint64_t tx_lost            # frames taken from the NIC that no one will see: the link was down
    # The link is up while both are 1.
    uint32_t plugged            # what `Wire.link` was set to
    uint32_t carrier            # the device behind the wire is there, and up

cdef class Wire:
    cdef wire_t *c
    cdef public str name
    cdef readonly bint closed
    cdef list _regions
    # Zeroed memory, page aligned, that lives as long as the wire.
    cdef void *share(self, size_t size) except NULL
    # What follows from `plugged` and `carrier`. Returns whether the link is up.
    cdef bint update_link(self) except -1

# The functions of a wire that is down: frames are taken, lost and counted; none arrives.
cdef int down_tx(wire_t *self, frame_t *frame, int n) noexcept nogil
cdef int down_rx(wire_t *self, frame_t *frame, int n) noexcept nogil
# Rate of cpu.cycles(), measured once.
cdef double cycles_per_second() noexcept nogil


cdef inline bint is_down(wire_t *self) noexcept nogil:
    return load_u32(&self.link) == 0


cdef inline void lose_tx(wire_t *self, uint64_t frames) noexcept nogil:
    (<shared_wire_t *>self).tx_lost += frames
