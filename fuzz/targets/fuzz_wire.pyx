"""A wire whose other end is the fuzzer's input: frames come from it, and those that are sent are judged."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cdna.abi cimport MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME
from cdna.nic.demux cimport TAG_LENGTH
from cdna.nic.frame cimport frame_t
from cdna.nic.offload.vnet cimport offload_fault, takes_needed
from cdna.nic.wire_contract cimport wire_t


cdef bint _known(const fuzz_wire_t *wire, const uint8_t *data) noexcept nogil:
    cdef uint64_t source = 0
    cdef uint32_t i
    memcpy(&source, data + 6, 6)
    for i in range(wire.senders):
        if wire.sender[i] == source:
            return True
    return wire.spoofed_ok != 0


cdef const char *_judge(const wire_t *self, fuzz_wire_t *wire, const frame_t *frame) noexcept nogil:
    cdef uint32_t i
    if frame.len < MIN_FRAME:
        return b"a frame without an Ethernet header was sent"
    for i in range(frame.len):
        wire.sum += frame.data[i]
    if not _known(wire, frame.data):
        return b"a frame with a foreign source address was sent"
    if not frame.has_offload and frame.len > <uint32_t>(MAX_FRAME + TAG_LENGTH):
        return b"a frame too long was sent"
    if not frame.has_offload:
        return NULL
    if frame.len > <uint32_t>(MAX_TSO_FRAME + TAG_LENGTH):
        return b"a frame too long was sent, to be segmented"
    if offload_fault(frame.data, frame.len, &frame.offload):
        return b"a frame was sent with an offload that cannot be done"
    if takes_needed(&frame.offload, frame.data, frame.len) & ~self.offloads:
        return b"a frame was sent with an offload that the wire does not take"
    return NULL


cdef int fuzz_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef fuzz_wire_t *wire = <fuzz_wire_t *>self.state
    cdef const char *trouble
    cdef int i = 0
    while i < n and wire.room:
        trouble = _judge(self, wire, &frame[i])
        if trouble != NULL and wire.trouble == NULL:
            wire.trouble = trouble
        wire.room -= 1
        wire.sent += 1
        i += 1
    return i


cdef void _free_old(fuzz_wire_t *wire) noexcept nogil:
    while wire.lent:
        wire.lent -= 1
        free(wire.old[wire.lent].data)


cdef int fuzz_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef fuzz_wire_t *wire = <fuzz_wire_t *>self.state
    cdef uint32_t i, taken = wire.waiting if wire.waiting < <uint32_t>n else n
    _free_old(wire)
    for i in range(taken):
        frame[i] = wire.old[i] = wire.frame[i]
    for i in range(taken, wire.waiting):
        wire.frame[i - taken] = wire.frame[i]
    wire.lent = taken
    wire.waiting -= taken
    return taken


cdef void wire_reset(fuzz_wire_t *wire) noexcept nogil:
    _free_old(wire)
    while wire.waiting:
        wire.waiting -= 1
        free(wire.frame[wire.waiting].data)
    wire.room = 64
    wire.sent = 0
    wire.trouble = NULL


cdef bint wire_give(fuzz_wire_t *wire, const uint8_t *data, uint32_t len, const frame_t *like) noexcept nogil:
    cdef frame_t *frame = &wire.frame[wire.waiting]
    if wire.waiting == WIRE_FRAMES:
        return False
    frame[0] = like[0]
    frame.data = <uint8_t *>malloc(len if len else 1)
    frame.len = len
    memcpy(frame.data, data, len)
    wire.waiting += 1
    return True


cdef class FuzzWire(Wire):
    def __cinit__(self, *args, **kwargs):
        self.state = <fuzz_wire_t *>self.share(sizeof(fuzz_wire_t))

    def __init__(self, offloads=0):
        self.name = "fuzz"
        self.c.state = self.state
        self.c.tx = fuzz_tx
        self.c.rx = fuzz_rx
        self.c.link = 1
        self.c.offloads = offloads
        wire_reset(self.state)
