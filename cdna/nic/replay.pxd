"""The receive side of a pcap wire: frames of a capture, read into memory beforehand."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.nic.context cimport frame_t, wire_t
from cdna.nic.queue_wire cimport QueueWire, queue_state_t

cdef struct captured_t:
    uint8_t *data
    uint32_t len
    uint32_t reserved
    uint64_t timestamp_ns       # of the capture
    uint64_t due_ns             # since the start of a pass; 0 at full speed

cdef struct replay_t:
    queue_state_t queue         # first: queue_tx finds it behind wire_t.state
    captured_t *frame
    uint64_t frames
    uint64_t next
    uint64_t passes             # 0: without end
    uint64_t pass_              # complete ones
    uint64_t pass_ns            # length of a pass
    uint64_t started_ns         # monotonic clock at the start of this pass; 0: not started
    uint32_t recorded           # with the timing of the capture

cdef class ReplayWire(QueueWire):
    cdef replay_t *replay
