"""What a frontend says of a ring, checked: for the rings of frames and for the control queue alike."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from cdna.checks cimport (
    CHECK_RING_BASE, CHECK_RING_EMPTY, CHECK_RING_INDEX, CHECK_RING_LOCATED, CHECK_RING_POWER,
    CHECK_RING_STARTED, broken,
)
from cdna.nic.virtio.memory cimport guest_memory_t
from cdna.nic.virtio.queue cimport virtqueue_t
from cdna.virtio cimport VIRTIO_MAX_RING

from cdna.errors import ConfigError, whole
from cdna.virtio import Feature


cdef forget_ring(virtqueue_t *q):
    """As before a frontend said anything of it."""
    memset(q, 0, sizeof(virtqueue_t))
    q.kick_fd = q.call_fd = q.err_fd = -1
    q.avail_wrap = q.used_wrap = 1


cdef _not_started(virtqueue_t *q, queue):
    if broken(CHECK_RING_STARTED, q.started):
        raise ConfigError(f"queue {queue} is started: stop it first")


cdef set_ring_size(virtqueue_t *q, queue, size):
    _not_started(q, queue)
    size = whole(f"size of queue {queue}", size, 1, VIRTIO_MAX_RING)
    if not q.packed and broken(CHECK_RING_POWER, size & (size - 1)):
        raise ConfigError(f"size of queue {queue} {size}: give a power of two")
    q.size = size


cdef set_ring_base(virtqueue_t *q, queue, base):
    _not_started(q, queue)
    base = whole(f"base of queue {queue}", base, 0, (1 << 32) - 1)
    if q.packed and broken(CHECK_RING_BASE, (base & 0x7FFF) >= max(q.size, 1)):
        raise ConfigError(f"base of queue {queue} {base:#x}: index {base & 0x7FFF} in a ring of {q.size}")
    set_position(q, base)


cdef set_ring_addresses(const guest_memory_t *memory, virtqueue_t *q, queue, desc, driver, device, log):
    """A started ring may move while its contents stay."""
    q.desc_user, q.driver_user, q.device_user = desc, driver, device
    q.logs = log is not None
    q.log_addr = log or 0
    locate(memory, q)


cdef set_ring_features(virtqueue_t *q, uint64_t features):
    """What the driver accepted of the ring's own."""
    q.packed = features >> <int>Feature.VIRTIO_F_RING_PACKED & 1
    q.event_idx = features >> <int>Feature.VIRTIO_F_EVENT_IDX & 1
    q.indirect = features >> <int>Feature.VIRTIO_F_INDIRECT_DESC & 1


cdef locate_ring(const guest_memory_t *memory, virtqueue_t *q, queue):
    """Before a ring is started: it has a size, stands at an index that it has, and lies in memory."""
    if broken(CHECK_RING_EMPTY, q.size == 0):
        raise ConfigError(f"queue {queue} has no size yet")
    if q.packed and broken(CHECK_RING_INDEX, q.last_avail >= q.size):
        raise ConfigError(f"queue {queue}: it cannot begin at index {q.last_avail} of {q.size}")
    locate(memory, q)
    located(q, queue)


cdef located(const virtqueue_t *q, queue):
    if broken(CHECK_RING_LOCATED, q.desc == NULL):
        raise ConfigError(f"queue {queue}: its ring is outside the guest's memory, or not aligned")


cdef dict ring_info(const virtqueue_t *q, bint ready):
    """State of a ring, and how many buffers it has used and interrupts it has sent."""
    return {"size": q.size, "started": bool(q.started), "enabled": bool(q.enabled), "ready": bool(ready),
            "avail": q.last_avail, "used": q.used, "frames": q.frames, "calls": q.calls,
            "packed": bool(q.packed)}
