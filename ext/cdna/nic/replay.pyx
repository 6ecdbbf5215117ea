"""Replay in the NIC's thread, at full speed or when the capture says, by the monotonic clock."""
# build: explored

from libc.stdint cimport int64_t, uint64_t

from cdna.cpu cimport load_u64, monotonic_ns
from cdna.nic.captured cimport CapturedFrames, captured_t
from cdna.nic.frame cimport frame_t
from cdna.nic.wire cimport down_tx, is_down
from cdna.nic.wire_contract cimport wire_t

from cdna.errors import ConfigError
from cdna.nic.wire import check_frame


cdef int replay_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef replay_t *state = <replay_t *>self.state
    cdef captured_t *captured
    cdef uint64_t now = 0
    cdef int i
    if is_down(self):
        return 0
    if state.recorded:
        now = monotonic_ns()
        if state.started_ns == 0:           # the first frame is due when the NIC first looks
            state.started_ns = now
    for i in range(n):
        if state.next == state.frames and not next_pass(state):
            return i
        captured = &state.frame[state.next]
        # a later pass may start in the future: compare by subtraction
        if state.recorded and <int64_t>(now - state.started_ns) < <int64_t>captured.due_ns:
            return i
        frame[i].data = captured.data
        frame[i].len = captured.len
        frame[i].has_offload = 0
        frame[i].timestamp_ns = captured.timestamp_ns
        state.next += 1
    return n


cdef bint next_pass(replay_t *state) noexcept nogil:
    if state.frames == 0 or state.pass_ + 1 == state.passes:
        return False
    state.next = 0
    state.started_ns += state.pass_ns
    state.pass_ += 1
    return True


cdef int discard_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    """Sends where no capture is written."""
    return down_tx(self, frame, n)


cdef class ReplayWire(QueueWire):
    """Receives `frames` in this order; sends as a QueueWire does.

    frames: `CapturedFrames`, to which nothing can be added from now on, or pairs of bytes and nanoseconds
    since 1970. loop: how often they are received, 0: without end. recorded: with the distances of their time
    stamps, where a clock that was set back goes on from where it was; a pass then ends one mean distance
    after its last frame. keep_sent: without it, what is sent is discarded and counted as lost.
    """

    def __cinit__(self, *args, **kwargs):
        self.replay = <replay_t *>self.share(sizeof(replay_t))
        self.queues = &self.replay.queue

    def __init__(self, frames, *, loop=1, recorded=False, keep_sent=True, depth=1024):
        super().__init__(depth)
        if loop < 0:
            raise ConfigError(f"{loop} passes through a capture: give 1 or more, or 0 for no end")
        self.name = "replay"
        self.replay.passes = loop
        self.replay.recorded = recorded
        self._keep(frames)
        if not keep_sent:
            self.c.tx = discard_tx
        self.c.rx = replay_rx

    def _keep(self, frames):
        """Keeps the frames of a capture as they are, and copies of others."""
        cdef CapturedFrames kept
        cdef uint64_t n, due
        if isinstance(frames, CapturedFrames):
            kept = frames
        else:
            kept = CapturedFrames()
            for i, (data, timestamp) in enumerate(frames):
                check_frame(data, i)
                kept.append(data, timestamp)
        kept.sealed = True
        self.captured = kept
        n, due = kept.c.frames, <uint64_t>kept.c.due
        self.replay.frame = kept.c.frame
        self.replay.frames = n
        self.replay.pass_ns = due + (due // (n - 1) if n > 1 else 0)

    def put(self, list frames):
        """Not for a replay: raises ConfigError."""
        raise ConfigError("a wire that replays a capture receives nothing else; use a QueueWire")

    @property
    def frames(self):
        """Frames of one pass."""
        return self.replay.frames

    @property
    def done(self):
        """Whether all passes are over."""
        cdef replay_t *state = self.replay
        cdef bint last = state.frames == 0 or load_u64(&state.pass_) + 1 == state.passes
        return bool(last and load_u64(&state.next) == state.frames)
