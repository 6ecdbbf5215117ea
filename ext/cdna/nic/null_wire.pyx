"""The null wire's sink."""
# build: unfuzzed

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.nic.frame cimport frame_t
from cdna.nic.line cimport line_look, line_set, line_take
from cdna.nic.traffic cimport (
    FRAME_FLOW, FRAME_HEADER, FRAME_OK, FRAME_SEQUENCE, frame_check, frame_is_stamped, frame_stamp,
)
from cdna.nic.wire cimport cycles_per_second, down_rx, down_tx, is_down
from cdna.nic.wire_contract cimport wire_t

from cdna.errors import ConfigError
from cdna.nic.traffic import FrameError

cdef enum:
    MAX_FLOWS = 1 << 20


cdef void note_bad(sink_t *sink, const frame_t *frame, uint32_t flow, int error, uint64_t expected,
                   uint64_t found) noexcept nogil:
    cdef bad_frame_t *first = &sink.first_bad
    if sink.bad == 0:
        first.number = sink.frames
        first.expected = expected
        first.found = found
        first.flow = flow
        first.length = frame.len
        first.error = error
    sink.bad += 1


cdef inline void check_one(sink_t *sink, const frame_t *frame) noexcept nogil:
    cdef const uint8_t *data = frame.data
    cdef sink_flow_t *flow
    cdef uint32_t id
    cdef uint64_t seq
    cdef int error
    if not frame_is_stamped(data, frame.len):
        note_bad(sink, frame, 0, FRAME_HEADER, 0, 0)
        return
    id = frame_stamp(data).flow
    seq = frame_stamp(data).seq
    if id >= sink.flows:
        note_bad(sink, frame, id, FRAME_FLOW, sink.flows, seq)
        return
    flow = &sink.flow[id]
    error = frame_check(data, frame.len, sink.load, id, flow.expected)
    if error == FRAME_OK:
        flow.expected += 1
        return
    note_bad(sink, frame, id, error, flow.expected, seq)
    if error != FRAME_SEQUENCE:
        flow.expected += 1
    elif seq > flow.expected:           # a gap counts once
        flow.expected = seq + 1


cdef int null_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef sink_t *sink = <sink_t *>self.state
    cdef int i
    if is_down(self):
        return down_tx(self, frame, n)
    line_look(&sink.line)
    for i in range(n):
        if not line_take(&sink.line, frame[i].len):
            return i
        if sink.load != NULL:
            check_one(sink, &frame[i])
        sink.frames += 1
    return n


cdef class NullWire(Wire):
    """Counts what it is sent. With `check`, checks every frame as number so-and-so of its flow.

    check: what the `flows` flows 0, 1, ... send, each in order from sequence number 0; None: nothing is
    checked. line_rate: bits a second on the line (see ext/cdna/nic/line.pxd); None: as fast as it goes.
    """

    def __cinit__(self, *args, **kwargs):
        self.sink = <sink_t *>self.share(sizeof(sink_t))

    def __init__(self, check=None, *, flows=0, line_rate=None):
        if not 0 <= flows <= MAX_FLOWS:
            raise ConfigError(f"{flows} flows on a wire: give 0 to {<int>MAX_FLOWS}")
        self.name = "null"
        self.sink.flow = <sink_flow_t *>self.share((flows + 1) * sizeof(sink_flow_t))
        self.sink.flows = flows
        self.check = check
        if check is not None:
            self.sink.load = self.check.c
        line_set(&self.sink.line, check_rate(line_rate), cycles_per_second())
        self.c.state = self.sink
        self.c.tx = null_tx
        self.c.rx = down_rx
        self.c.link = 1

    def stats(self):
        """Wire.stats and tx_bad, frames that were not what their flow should have sent."""
        return {**super().stats(), "tx_bad": self.bad}

    @property
    def bad(self):
        """Frames that were not what their flow should have sent; a gap counts once."""
        return self.sink.bad

    @property
    def first_bad(self):
        """What was wrong with the first bad frame, one line; None if there is none."""
        if self.bad == 0:
            return None
        cdef bad_frame_t *bad = &self.sink.first_bad
        if bad.error == FRAME_HEADER and bad.expected == bad.found == 0:
            return f"frame {bad.number}: {bad.length} bytes without a stamp of the benchmark"
        if bad.error == FRAME_FLOW:
            return f"frame {bad.number}: stamped as of flow {bad.flow}, of {bad.expected} flows"
        return (
            f"frame {bad.number}: {FrameError(bad.error).name} in flow {bad.flow}, {bad.length} bytes,"
            f" sequence number {bad.found}, expected {bad.expected}"
        )


def check_rate(line_rate):
    """A line rate in bits a second as a number, 0 for None. Raises ConfigError unless positive and finite."""
    if line_rate is None:
        return 0.0
    if not 0 < line_rate < float("inf"):
        raise ConfigError(f"a line rate of {line_rate} bit/s: give a positive number, or None for no limit")
    return float(line_rate)
