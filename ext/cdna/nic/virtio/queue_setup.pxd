"""Where a virtqueue lies and where it stands, before a device serves it and when its memory changes."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from cdna.checks cimport CHECK_RING_ALIGNED, CHECK_RING_NOTED, broken
from cdna.cpu cimport load_u16
from cdna.nic.virtio.memory cimport guest_memory_t, user_bytes
from cdna.nic.virtio.queue cimport (
    POSITION_NOTED, packed_available, packed_table, take, virtqueue_t, write_used,
)
from cdna.virtio cimport (
    VRING_DESC_F_NEXT, VRING_PACKED_DESC_F_USED, vring_packed_desc_t, vring_packed_event_t,
)


cdef inline void locate(const guest_memory_t *memory, virtqueue_t *q) noexcept nogil:
    """Looks up where the parts of a ring are; `desc` is NULL where one is not in memory, or not aligned."""
    cdef uint64_t n = q.size
    cdef uint8_t *desc = user_bytes(memory, q.desc_user, 16 * n)
    cdef uint8_t *driver = user_bytes(memory, q.driver_user, 4 if q.packed else 6 + 2 * n)
    cdef uint8_t *device = user_bytes(memory, q.device_user, 4 if q.packed else 6 + 8 * n)
    cdef bint aligned = not (<uintptr_t>desc & 15 or <uintptr_t>driver & 1 or <uintptr_t>device & 3)
    q.desc = q.driver = q.device = NULL
    q.hint = 0
    if n and desc != NULL and driver != NULL and device != NULL and \
            not broken(CHECK_RING_ALIGNED, not aligned):
        q.desc, q.driver, q.device = desc, driver, device


cdef inline void set_position(virtqueue_t *q, uint32_t base) noexcept nogil:
    """The next buffer to take: an index of a split ring; of a packed one two, each with its wrap counter."""
    if q.packed and base >> 16:         # what another device took and did not use is to be done again
        base >>= 16
    q.last_avail = base & 0x7FFF if q.packed else <uint16_t>base
    q.avail_wrap = base >> 15 & 1


cdef inline uint64_t position(const virtqueue_t *q) noexcept nogil:
    """The base of a ring that was stopped (GET_VRING_BASE), as `set_position` takes it."""
    if not q.packed:
        return q.last_avail
    return q.last_avail | q.avail_wrap << 15 | <uint64_t>q.used << 16 | <uint64_t>q.used_wrap << 31


cdef inline bint is_used(const virtqueue_t *q) noexcept nogil:
    """Whether the slot where a packed ring stands was used in this lap."""
    cdef uint16_t flags = load_u16(&packed_table(q)[q.last_avail].flags)
    return (flags >> 7 & 1) == q.avail_wrap and flags >> 15 == q.avail_wrap


cdef inline bint is_filled_again(const virtqueue_t *q) noexcept nogil:
    """Whether the driver has filled the slot where a packed ring stands once more, for the next lap.

    A slot of the lap before may have the same flags: the middle of a chain, which nobody marks as used. But a
    driver fills one slot after the other, so it has then filled the slot in front of this one again, too.
    """
    cdef uint32_t before = q.last_avail
    cdef uint16_t wrap = q.avail_wrap, flags
    if before == 0:
        before = q.size
        wrap ^= 1
    flags = load_u16(&packed_table(q)[before - 1].flags)
    return packed_available(q, q.last_avail, not q.avail_wrap) and (flags >> 7 & 1) != wrap


cdef inline void recover_packed(virtqueue_t *q) noexcept nogil:
    """Where a packed ring stands whose device may have died in service.

    Behind the position that was noted there may be used slots: shown and not noted, so that the driver may
    have filled them again, or not yet shown, as the one before them is not. That one is given back with
    nothing in it, so that the driver gets at the others. Of chains in the ring, only the first slot tells
    that they were used: where a device died before it noted its position, the next one may take up the rest
    of such a chain as a buffer.
    """
    cdef uint16_t noted = load_u16(&(<vring_packed_event_t *>q.device).off_wrap)
    cdef vring_packed_desc_t *first
    cdef uint32_t left = q.size
    if q.size <= POSITION_NOTED and noted & POSITION_NOTED and \
            not broken(CHECK_RING_NOTED, (noted & (POSITION_NOTED - 1)) >= q.size):
        q.last_avail = noted & (POSITION_NOTED - 1)
        q.avail_wrap = noted >> 15
    if packed_available(q, q.last_avail, q.avail_wrap):
        first = &packed_table(q)[q.last_avail]
        take(q, 1)
        if first.flags & VRING_DESC_F_NEXT or not is_used(q):
            q.last_avail = <uint16_t>(first - packed_table(q))  # as it was: nothing behind it was used
            if q.last_avail == q.size - 1:
                q.avail_wrap ^= 1
            return
        write_used(first, first.id, 0, first.flags ^ <uint16_t>VRING_PACKED_DESC_F_USED)
    # A slot that was filled again was used in this lap, and the driver has seen that.
    while left and (is_used(q) or is_filled_again(q)):
        take(q, 1)
        left -= 1


cdef inline int ring_descriptors(const virtqueue_t *q) noexcept:
    """How many of the frontend's descriptors a ring has."""
    return (q.kick_fd >= 0) + (q.call_fd >= 0) + (q.err_fd >= 0)


# What a frontend says of a ring (ext/cdna/nic/virtio/queue_setup.pyx); ConfigError. `queue`
# is the number that it has for it. The engine does not serve it meanwhile.
cdef forget_ring(virtqueue_t *q)
cdef set_ring_size(virtqueue_t *q, queue, size)
cdef set_ring_base(virtqueue_t *q, queue, base)
cdef set_ring_addresses(const guest_memory_t *memory, virtqueue_t *q, queue, desc, driver, device, log)
cdef set_ring_features(virtqueue_t *q, uint64_t features)
cdef located(const virtqueue_t *q, queue)
cdef locate_ring(const guest_memory_t *memory, virtqueue_t *q, queue)
cdef dict ring_info(const virtqueue_t *q, bint ready)
