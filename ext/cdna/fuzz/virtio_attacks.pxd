"""Attacks on virtio rings, as steps: see ext/cdna/fuzz/virtio_attacks.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.fuzz.action cimport action_t
from cdna.fuzz.arena cimport Arena
from cdna.fuzz.virtio_guest cimport guest_t

cpdef enum VirtioOp:
    VIRTIO_POST             # buffers of all shapes, some of them wrong
    VIRTIO_INDEX            # indices, heads and flags that cannot be
    VIRTIO_CHANGE           # ring, tables and headers rewritten after the NIC has begun
    VIRTIO_SCRIBBLE         # over descriptors and tables
    VIRTIO_DEVICE_AREA      # over what the device writes
    VIRTIO_RESET            # the device is reset in the middle of anything
    VIRTIO_MEMORY           # a region is taken from the memory table in the middle of anything, for a while
    VIRTIO_RECONNECT        # the context is revoked, and another device made
    VIRTIO_POLL             # rounds of the NIC
    VIRTIO_OPS
    VIRTIO_PLANT            # never made from a seed: a flaw of the memory table, for tests of the watch

cdef class VirtioAttacks(Arena):
    cdef guest_t *guest
    cdef uint32_t guests
    cdef object _region_of_guests
    cdef list _control
    cdef _adopt(self, guest_t *who, bint fill)
    cdef void _find_memory(self, guest_t *who) noexcept
    cdef void _by_control(self, guest_t *who, uint32_t op) noexcept
    cdef void _step(self, const action_t *action) noexcept nogil
    cdef uint64_t _run(self, const action_t *action, uint64_t n) noexcept nogil
