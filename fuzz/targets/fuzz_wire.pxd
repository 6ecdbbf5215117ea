"""A wire whose other end is the fuzzer's input."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.nic.frame cimport frame_t
from cdna.nic.wire cimport Wire

cdef enum:
    WIRE_FRAMES = 8             # that can wait to be received

cdef struct fuzz_wire_t:
    uint32_t room               # frames that it takes until it is given more
    uint32_t sent
    uint32_t waiting            # in `frame`
    uint32_t lent               # of the last call; freed by the next
    frame_t frame[8]            # their bytes are allocations of their own
    frame_t old[8]
    uint64_t sender[16]         # addresses that may be the source of what is sent
    uint32_t senders
    uint32_t spoofed_ok         # 1: some sender may use any address
    uint64_t sum                # of all bytes that were sent: each is read
    const char *trouble         # what was wrong with a frame that was sent, or NULL

cdef class FuzzWire(Wire):
    cdef fuzz_wire_t *state

cdef void wire_reset(fuzz_wire_t *wire) noexcept nogil
# Has the NIC receive a copy of these bytes soon. False: so many wait already.
cdef bint wire_give(fuzz_wire_t *wire, const uint8_t *data, uint32_t len, const frame_t *like) noexcept nogil
