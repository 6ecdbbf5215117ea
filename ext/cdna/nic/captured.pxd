"""Frames of a capture in memory: their bytes in chunks, and a table."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    DUE_MAX = 0x4000000000000000    # ns; a replay that lasts 146 years
    REORDERED = 1000000         # ns that stamps of one interface go back without the clock having been set
    INTERLEAVED = 1000000000    # the same between interfaces, which are captured in batches

cdef struct captured_t:
    uint8_t *data
    uint32_t len
    uint32_t wire_len           # shorter frames were cut by the capture's snapshot length
    uint64_t timestamp_ns       # since 1970; 0: the capture has none
    uint64_t due_ns             # since the first frame, by a clock that never goes back

cdef struct chunk_t:
    chunk_t *before
    size_t size                 # bytes behind this head

cdef struct store_t:
    captured_t *frame
    size_t frames
    size_t room                 # frames that the table holds
    chunk_t *chunk              # the newest
    size_t used                 # bytes of it
    int64_t base                # time stamp of due_ns 0; moves when the clock was set back
    int64_t due                 # greatest due_ns
    bint dated                  # a frame with a time stamp was there

cdef int store_add(store_t *store, const uint8_t *data, uint32_t len, uint32_t wire_len,
                   uint64_t timestamp_ns, int64_t *latest) noexcept nogil

cdef class CapturedFrames:
    cdef store_t c
    cdef int64_t _latest
    cdef bint sealed

    cdef int check_open(self) except -1
