"""The base of all wires.

The NIC calls `tx` and `rx` of the `wire_t`, in one thread, and counts what they take and give. Python makes
the wire, looks at it, and closes it once the NIC no longer runs it. All state that the two functions use lies
in shared memory, so the NIC may be in a process forked after the wire was made.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport MAX_FRAME, MIN_FRAME
from cdna.cpu cimport cycles, load_u32, monotonic_ns, store_u32
from cdna.memory cimport SharedRegion
from cdna.nic.context cimport BURST, frame_t, wire_t

from cdna.errors import ConfigError, ResourceError

cdef double _rate = 0


cdef double cycles_per_second() noexcept nogil:
    global _rate
    cdef uint64_t from_cycles, from_ns
    if _rate == 0:
        from_ns = monotonic_ns()
        from_cycles = cycles()
        while monotonic_ns() - from_ns < 10_000_000:    # 10 ms: better than 0.01 %
            pass
        _rate = <double>(cycles() - from_cycles) * 1e9 / <double>(monotonic_ns() - from_ns)
    return _rate


def cycle_rate() -> float:
    """Cycles of the processor's counter in a second."""
    return cycles_per_second()


cdef int down_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    lose_tx(self, n)
    return n


cdef int down_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    return 0


cdef class Wire:
    """What the NIC sends to and receives from. Close it when the NIC runs it no more."""

    def __cinit__(self, *args, **kwargs):
        self._regions = []
        self.name = "wire"
        self.c = <wire_t *>self.share(sizeof(shared_wire_t))
        self.c.tx = down_tx
        self.c.rx = down_rx

    cdef void *share(self, size_t size) except NULL:
        cdef SharedRegion region = SharedRegion(size)
        self._regions.append(region)
        return region.base

    @property
    def link(self):
        """Whether the wire is up; clear it to pull the cable: then frames are lost, and counted."""
        return bool(load_u32(&self.c.link))

    @link.setter
    def link(self, up):
        if up and self.closed:
            raise ResourceError(f"the wire {self.name} is closed")
        store_u32(&self.c.link, 1 if up else 0)

    def stats(self):
        """Counters since the wire was made: tx_frames, tx_bytes, rx_frames, rx_bytes, tx_lost."""
        return {
            "tx_frames": self.c.tx_frames,
            "tx_bytes": self.c.tx_bytes,
            "rx_frames": self.c.rx_frames,
            "rx_bytes": self.c.rx_bytes,
            "tx_lost": (<shared_wire_t *>self.c).tx_lost,
        }

    def transmit(self, list frames):
        """Sends frames as the NIC would; returns how many the wire took. Not while a NIC runs the wire."""
        cdef frame_t burst[BURST]
        cdef bytes data
        cdef int i, n, taken = 0, done = 0, total = len(frames)
        for i in range(total):
            check_frame(frames[i], i)
        while done < total:
            n = min(total - done, BURST)
            for i in range(n):
                data = frames[done + i]
                burst[i].data = <uint8_t *>PyBytes_AS_STRING(data)
                burst[i].len = <uint32_t>PyBytes_GET_SIZE(data)
                burst[i].timestamp_ns = 0
            with nogil:
                taken = self.c.tx(self.c, burst, n)
            for i in range(taken):
                self.c.tx_frames += 1
                self.c.tx_bytes += burst[i].len
            done += taken
            if taken < n:
                break
        return done

    def receive(self, int max_frames=BURST):
        """Receives at most `max_frames` frames, as bytes, as the NIC would. Not while a NIC runs the wire."""
        return [data for data, _ in self.receive_timed(max_frames)]

    def receive_timed(self, int max_frames=BURST):
        """As `receive`, each frame with its time stamp: nanoseconds since 1970, 0 where there is none."""
        cdef frame_t burst[BURST]
        cdef int i, n = BURST
        cdef list frames = []
        while n == BURST and len(frames) < max_frames:
            n = min(max_frames - <int>len(frames), BURST)
            with nogil:
                n = self.c.rx(self.c, burst, n)
            for i in range(n):
                self.c.rx_frames += 1
                self.c.rx_bytes += burst[i].len
                data = PyBytes_FromStringAndSize(<char *>burst[i].data, burst[i].len)
                frames.append((data, burst[i].timestamp_ns))
        return frames

    def close(self):
        """Takes the wire down for good. Closing twice is harmless."""
        self.closed = True
        store_u32(&self.c.link, 0)
        self.c.tx = down_tx
        self.c.rx = down_rx

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: {'up' if self.link else 'down'}>"


def check_frame(frame, index):
    """Raises ConfigError unless this is the bytes of a frame that the NIC could carry."""
    if not isinstance(frame, bytes):
        raise ConfigError(f"frame {index} is {type(frame).__name__}; give bytes")
    if not MIN_FRAME <= len(frame) <= MAX_FRAME:
        raise ConfigError(f"frame {index} has {len(frame)} bytes; give {<int>MIN_FRAME} to {<int>MAX_FRAME}")
