"""The receive side of a pcap wire: frames of a capture, read into memory beforehand."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.captured cimport CapturedFrames, captured_t
from cdna.nic.frame cimport frame_t
from cdna.nic.queue_wire cimport QueueWire, queue_state_t
from cdna.nic.wire_contract cimport wire_t

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
    cdef CapturedFrames captured    # it owns the frames
