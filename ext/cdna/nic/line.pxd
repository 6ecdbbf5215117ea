"""The rate of an Ethernet line: a frame passes when the line has time for it.

On the line a frame takes its length, four bytes of check sequence (at least 64 with them), eight of preamble
and twelve of gap (IEEE 802.3, 4.2.3.2.2 and 3.1.1): a 60-byte frame takes 84.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport cycles

cdef enum:
    LINE_OVERHEAD = 24          # preamble 8, check sequence 4, gap 12
    LINE_MIN_FRAME = 60         # without the check sequence

cdef struct line_t:
    double bytes_per_cycle      # 0: no limit
    double credit               # bytes; below 0 the line is busy with frames that it has taken
    double depth                # bytes that an unused line saves up at most
    uint64_t at                 # cycle count of the last look


cdef inline void line_set(line_t *line, double bits_per_second, double cycle_rate) noexcept nogil:
    """`bits_per_second` 0: no limit. Time saved up: 50 us, so that a NIC that looks late loses no rate."""
    line.bytes_per_cycle = bits_per_second / 8 / cycle_rate
    line.depth = bits_per_second / 8 * 50e-6
    line.credit = 0
    line.at = cycles()


cdef inline void line_look(line_t *line) noexcept nogil:
    """Brings the credit up to now; once a burst."""
    cdef uint64_t now
    if line.bytes_per_cycle == 0:
        return
    now = cycles()
    line.credit += <double>(now - line.at) * line.bytes_per_cycle
    line.at = now
    if line.credit > line.depth:
        line.credit = line.depth


cdef inline bint line_take(line_t *line, uint32_t length) noexcept nogil:
    """Whether a frame of `length` bytes may start now; if so, the line is charged for it."""
    if line.bytes_per_cycle == 0:
        return True
    if line.credit < 0:
        return False
    line.credit -= (length if length > LINE_MIN_FRAME else LINE_MIN_FRAME) + LINE_OVERHEAD
    return True
