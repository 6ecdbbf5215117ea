"""Frames to and from Python, in another thread than the NIC's or in another process."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.cpu cimport realtime_ns, store_u32
from cdna.nic.frame cimport frame_t
from cdna.nic.spsc cimport SLOT_BYTES, SLOT_STRIDE, slot_data, slot_t, spsc_put, spsc_slot, spsc_t, spsc_used
from cdna.nic.wire cimport down_tx, is_down, lose_tx
from cdna.nic.wire_contract cimport wire_t

from cdna.errors import ConfigError, ResourceError
from cdna.nic.wire import check_frame

cdef enum:
    MAX_DEPTH = 65536


cdef int queue_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef queue_state_t *state = <queue_state_t *>self.state
    cdef uint64_t now
    cdef int i
    if is_down(self):                       # nobody may be there any more to take the frames out
        return down_tx(self, frame, n)
    now = realtime_ns()
    for i in range(n):
        if frame[i].len > SLOT_BYTES:       # no frame of the NIC is
            lose_tx(self, 1)
        elif not spsc_put(&state.out, frame[i].data, frame[i].len, now):
            return i
    return n


cdef int queue_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef queue_state_t *state = <queue_state_t *>self.state
    cdef spsc_t *ring = &state.into
    cdef slot_t *slot
    cdef int i
    if state.lent > 0:                      # given to the NIC by the last call
        store_u32(&ring.consumer, ring.consumer + state.lent)
    n = 0 if is_down(self) else min(n, <int>spsc_used(ring))
    for i in range(n):
        slot = spsc_slot(ring, ring.consumer + i)
        frame[i].data = slot_data(slot)
        frame[i].len = slot.len
        frame[i].has_offload = 0
        frame[i].timestamp_ns = slot.timestamp_ns
    state.lent = n
    return n


cdef class QueueWire(Wire):
    """Two bounded queues of `depth` frames each, rounded up to a power of two.

    What the NIC sends waits for `get`; when that queue is full the NIC waits, and nothing is lost. What is
    `put` arrives at the NIC. One thread may use get and another put while the NIC runs.
    """

    def __cinit__(self, *args, **kwargs):
        self.queues = <queue_state_t *>self.share(sizeof(queue_state_t))

    def __init__(self, depth=1024):
        if not 1 <= depth <= MAX_DEPTH:
            raise ConfigError(f"a queue of {depth} frames: give 1 to {<int>MAX_DEPTH}")
        size = 1 << (depth - 1).bit_length()
        self.queues.out.size = self.queues.into.size = size
        self.queues.out.slot = <uint8_t *>self.share(size * SLOT_STRIDE)
        self.queues.into.slot = <uint8_t *>self.share(size * SLOT_STRIDE)
        self.name = "queue"
        self.c.state = self.queues
        self.c.tx = queue_tx
        self.c.rx = queue_rx
        self.c.link = 1

    @property
    def needs_poll(self):
        """True: what Python puts, no descriptor tells of."""
        return True

    @property
    def depth(self):
        """Frames that each queue holds."""
        return self.queues.out.size

    @property
    def waiting(self):
        """Frames that the NIC has sent and nobody has got."""
        return spsc_used(&self.queues.out)

    def get(self, uint32_t max_frames=1024):
        """At most `max_frames` of the frames that the NIC has sent, oldest first; also after close."""
        return [frame for frame, _ in self.get_timed(max_frames)]

    def get_timed(self, uint32_t max_frames=1024):
        """As `get`, each frame with the time at which it was sent, in nanoseconds since 1970."""
        cdef spsc_t *ring = &self.queues.out
        cdef uint32_t _i, n = min(max_frames, spsc_used(ring))
        cdef slot_t *slot
        cdef list frames = []
        for _i in range(n):
            slot = spsc_slot(ring, ring.consumer)
            frames.append((PyBytes_FromStringAndSize(<char *>slot_data(slot), slot.len), slot.timestamp_ns))
            store_u32(&ring.consumer, ring.consumer + 1)
        return frames

    def put(self, list frames):
        """Gives frames to the NIC; returns how many there was room for."""
        cdef bytes frame
        cdef uint8_t *data
        cdef uint32_t i
        if self.closed:
            raise ResourceError(f"the wire {self.name} is closed")
        for i in range(<uint32_t>len(frames)):
            check_frame(frames[i], i)
        for i in range(<uint32_t>len(frames)):
            frame = frames[i]
            data = <uint8_t *>PyBytes_AS_STRING(frame)
            if not spsc_put(&self.queues.into, data, <uint32_t>PyBytes_GET_SIZE(frame), 0):
                return i
        return len(frames)
