"""The loopback wire: what is sent is received, in order.

Frames wait in slots; the slot that was freed last is used next, so that as much memory is touched as there
are frames waiting. Both functions run in the NIC's thread.
"""
# build: unfuzzed

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport offload_t
from cdna.nic.frame cimport frame_t
from cdna.nic.spsc cimport SLOT_BYTES, SLOT_STRIDE
from cdna.nic.wire cimport Wire, down_tx, is_down, lose_tx
from cdna.nic.wire_contract cimport wire_t

from cdna.nic.limits import check_takes

cdef enum:
    LOOPBACK_FRAMES = 1024
    LARGE_STRIDE = 65600        # bytes of a slot for a frame of MAX_TSO_FRAME and a tag; cache lines, odd

cdef struct waiting_t:
    uint32_t slot
    uint32_t len
    uint32_t has_offload
    offload_t offload

cdef struct loopback_t:
    uint32_t producer           # free-running
    uint32_t consumer
    uint32_t lent               # of the frames before `consumer`, those that the NIC may still read
    uint32_t n_free
    uint32_t free[LOOPBACK_FRAMES]
    waiting_t waiting[LOOPBACK_FRAMES]
    uint32_t stride             # bytes from slot to slot
    uint32_t longest            # frame that fits a slot
    uint8_t *slot


cdef int loopback_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef loopback_t *state = <loopback_t *>self.state
    cdef waiting_t *waiting
    cdef int i
    if is_down(self):
        return down_tx(self, frame, n)
    for i in range(n):
        if state.n_free == 0:
            return i
        if frame[i].len > state.longest:       # no frame of the NIC is
            lose_tx(self, 1)
            continue
        waiting = &state.waiting[state.producer & (LOOPBACK_FRAMES - 1)]
        state.n_free -= 1
        waiting.slot = state.free[state.n_free]
        waiting.len = frame[i].len
        waiting.has_offload = frame[i].has_offload
        waiting.offload = frame[i].offload
        memcpy(state.slot + <uint64_t>waiting.slot * state.stride, frame[i].data, frame[i].len)
        state.producer += 1
    return n


cdef int loopback_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef loopback_t *state = <loopback_t *>self.state
    cdef waiting_t *waiting
    cdef int i
    while state.lent > 0:                   # given to the NIC by the last call
        waiting = &state.waiting[(state.consumer - state.lent) & (LOOPBACK_FRAMES - 1)]
        state.free[state.n_free] = waiting.slot
        state.n_free += 1
        state.lent -= 1
    if is_down(self):
        return 0
    for i in range(min(n, <int>(state.producer - state.consumer))):
        waiting = &state.waiting[state.consumer & (LOOPBACK_FRAMES - 1)]
        frame[i].data = state.slot + <uint64_t>waiting.slot * state.stride
        frame[i].len = waiting.len
        frame[i].has_offload = waiting.has_offload
        frame[i].offload = waiting.offload
        frame[i].timestamp_ns = 0
        state.consumer += 1
        state.lent += 1
    return <int>state.lent


cdef class LoopbackWire(Wire):
    """Receives what was sent, in order. Holds 1024 frames; more wait with the NIC, and nothing is lost.

    offloads: a sum of `abi.Takes`; such frames are looped with their work left to do.
    """

    def __init__(self, *, offloads=0):
        cdef loopback_t *state = <loopback_t *>self.share(sizeof(loopback_t))
        cdef int i
        self.c.offloads = check_takes(offloads, True)
        state.stride = LARGE_STRIDE if offloads else SLOT_STRIDE
        state.longest = LARGE_STRIDE if offloads else SLOT_BYTES
        state.slot = <uint8_t *>self.share(LOOPBACK_FRAMES * <size_t>state.stride)
        state.n_free = LOOPBACK_FRAMES
        for i in range(LOOPBACK_FRAMES):
            state.free[i] = LOOPBACK_FRAMES - 1 - i
        self.name = "loopback"
        self.c.state = state
        self.c.tx = loopback_tx
        self.c.rx = loopback_rx
        self.c.link = 1
