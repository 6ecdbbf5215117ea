"""The inflight area (vhost-user, "Inflight I/O tracking"): where each ring stands."""

from libc.stdint cimport uint16_t, uint64_t

from cdna.checks cimport (
    CHECK_INFLIGHT_DESCRIPTORS, CHECK_INFLIGHT_END, CHECK_INFLIGHT_INDEX, CHECK_INFLIGHT_QUEUE, broken,
)
from cdna.cpu cimport load_u16
from cdna.nic.virtio.memory cimport guest_memory_t
from cdna.nic.virtio.queue cimport (
    ask_for_kicks, inflight_packed_t, inflight_split_t, packed_table, used_ring, virtqueue_t,
)
from cdna.nic.virtio.queue_setup cimport recover_packed

cdef enum:
    ALIGNMENT = 64              # of a queue's part of the area
    SPLIT_ENTRY = 16            # bytes for each descriptor, which a device that uses in order leaves alone
    PACKED_ENTRY = 32


cdef inline uint64_t inflight_bytes(uint64_t queue_size, bint packed) noexcept:
    """Bytes of one queue's part."""
    cdef uint64_t size
    if packed:
        size = sizeof(inflight_packed_t) + queue_size * PACKED_ENTRY
    else:
        size = sizeof(inflight_split_t) + queue_size * SPLIT_ENTRY
    return (size + ALIGNMENT - 1) & ~<uint64_t>(ALIGNMENT - 1)


cdef inline void place_inflight(const guest_memory_t *memory, virtqueue_t *q, uint64_t queue, uint64_t queues,
                                uint64_t queue_size, uint64_t part) noexcept:
    """Finds the part of a queue in an area of `queues` parts, if it has one that is large enough."""
    if broken(CHECK_INFLIGHT_QUEUE, queue >= queues) or \
            broken(CHECK_INFLIGHT_DESCRIPTORS, q.size > queue_size):
        return
    if not broken(CHECK_INFLIGHT_END, (queue + 1) * part > memory.inflight_size):
        q.inflight = <inflight_split_t *>(memory.inflight + queue * part)


cdef inline void resume_packed(virtqueue_t *q, inflight_packed_t *packed) noexcept:
    """From the inflight area; its last step may not have reached the ring."""
    cdef uint16_t at = load_u16(&packed.old_used_idx), last = load_u16(&packed.used_idx), flags
    cdef bint wrap = packed.old_used_wrap_counter != 0, last_wrap = packed.used_wrap_counter != 0
    if broken(CHECK_INFLIGHT_INDEX, at >= q.size or last >= q.size):
        return
    flags = load_u16(&packed_table(q)[at].flags)
    if (at != last or wrap != last_wrap) and (flags >> 7 & 1) == wrap and (flags >> 15) == wrap:
        at = last
        wrap = last_wrap
    q.last_avail = at
    q.avail_wrap = wrap


cdef inline void resume(virtqueue_t *q) noexcept:
    """Finds out where the ring stands: what was taken and not used is taken again."""
    cdef inflight_packed_t *packed = <inflight_packed_t *>q.inflight
    if q.packed:
        if q.inflight != NULL and packed.version == 1 and packed.desc_num == q.size:
            resume_packed(q, packed)
        else:
            recover_packed(q)
        q.used = q.last_avail
        q.used_wrap = q.avail_wrap
        if q.inflight != NULL:
            packed.version = 1
            packed.desc_num = q.size
            packed.used_idx = packed.old_used_idx = q.used
            packed.used_wrap_counter = packed.old_used_wrap_counter = q.used_wrap
    else:
        q.used = load_u16(&used_ring(q).idx)
        q.last_avail = q.seen_avail = q.used
        if q.inflight != NULL:
            q.inflight.version = 1
            q.inflight.desc_num = q.size
            q.inflight.used_idx = q.used
    q.signalled = q.used
    q.pending = q.unsignalled = 0
    q.signalled_at = 0
    ask_for_kicks(q, False)
