"""A frame inside the NIC: a list of pieces while it is switched, a `frame_t` between NIC and wire."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport offload_t
from cdna.cpu cimport copy_bytes

cdef enum:
    BURST = 32                  # frames between the NIC and its wire at a time
    HEADER_COPY = 64            # bytes of a frame that the NIC reads before it decides
    FRAME_PIECES = 20           # of a frame behind its copied first bytes, at most: Linux sends up to 19
    MAX_PIECES = FRAME_PIECES + 4       # and those bytes, a tag between two of them, a virtio-net header

cdef struct piece_t:            # a run of bytes that the NIC may read
    const uint8_t *data
    uint32_t len

# What the wire and the NIC hand each other. `data` stays valid until the next call of the same function, and
# the NIC may change it.
cdef struct frame_t:
    uint8_t *data
    uint32_t len                # to MAX_FRAME, or to MAX_TSO_FRAME where offload.mss is set
    uint32_t has_offload        # 1: `offload` says what is left to do; only where both sides take such frames
    offload_t offload
    uint64_t timestamp_ns       # when the wire received it; 0: now


cdef inline void gather(uint8_t *to, const piece_t *piece, uint32_t skip, uint32_t len) noexcept nogil:
    """Copies bytes [skip, skip + len) of a list of pieces, which holds that many."""
    cdef uint32_t n
    while len:
        if skip >= piece.len:
            skip -= piece.len
        else:
            n = piece.len - skip
            if n > len:
                n = len
            copy_bytes(to, piece.data + skip, n)
            to += n
            len -= n
            skip = 0
        piece += 1
