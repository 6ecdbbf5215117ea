"""The base of all wires.

The NIC calls `tx` and `rx` of the `wire_t`, in one thread, and counts what they take and give. Python makes
the wire, looks at it, and closes it once the NIC no longer runs it. All state that the two functions use lies
in shared memory, so the NIC may be in a process forked after the wire was made.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME
from cdna.cpu cimport cycles, load_u32, monotonic_ns, store_u32
from cdna.memory cimport SharedRegion
from cdna.nic.frame cimport BURST, frame_t
from cdna.nic.offload.fragment_id cimport FRAGMENT_SECRET, begin_fragment_ids, fragment_ids_t
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish
from cdna.nic.offload.vnet cimport offload_fault, takes_needed
from cdna.nic.wire_contract cimport wire_t

import os
from collections import namedtuple

from cdna.errors import ConfigError, ResourceError

# What is left to do to a frame, as `cdna.abi` has it in an offload descriptor; mss 0: the checksum only.
# hdr_len has the OffloadKind in its two top bits.
Offload = namedtuple("Offload", ("csum_start", "csum_offset", "mss", "hdr_len"), defaults=(0, 0))

cdef double _rate = 0
cdef fragment_ids_t _fragment_ids
begin_fragment_ids(&_fragment_ids, os.urandom(<int>FRAGMENT_SECRET))


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
        (<shared_wire_t *>self.c).plugged = 1
        (<shared_wire_t *>self.c).carrier = 1

    cdef void *share(self, size_t size) except NULL:
        cdef SharedRegion region = SharedRegion(size)
        self._regions.append(region)
        return region.base

    cdef bint update_link(self) except -1:
        cdef shared_wire_t *shared = <shared_wire_t *>self.c
        cdef bint up = shared.plugged and shared.carrier and not self.closed
        store_u32(&self.c.link, up)
        return up

    @property
    def link(self):
        """Whether the wire is up; clear it to pull the cable: then frames are lost, and counted.

        Set, it is up as soon as the device behind the wire is.
        """
        return bool(load_u32(&self.c.link))

    @link.setter
    def link(self, up):
        if up and self.closed:
            raise ResourceError(f"the wire {self.name} is closed")
        (<shared_wire_t *>self.c).plugged = 1 if up else 0
        self.update_link()

    @property
    def offloads(self):
        """What the wire takes frames with, a sum of `abi.Takes`: without a checksum, or large."""
        return self.c.offloads

    @property
    def mtu(self):
        """Bytes of the longest packet that the device behind the wire takes, without tags; None: any."""
        return None

    @property
    def wait_fds(self):
        """Descriptors that are readable when the wire has frames for the NIC, or its link has changed.

        They stay the same until the wire is closed, whatever becomes of the device.
        """
        return []

    @property
    def needs_poll(self):
        """Whether frames may come at any time without one of `wait_fds` being readable."""
        return False

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
        return self.transmit_offload([(data, None) for data in frames])

    def transmit_offload(self, list frames):
        """As `transmit`, pairs of a frame and its Offload or None, for a wire with `offloads`."""
        cdef frame_t burst[BURST]
        cdef int i, n, taken = 0, done = 0, total = len(frames)
        for i in range(total):
            self._check(frames[i], i)
        while done < total:
            n = min(total - done, BURST)
            for i in range(n):
                fill_frame(&burst[i], frames[done + i][0], frames[done + i][1])
            with nogil:
                taken = self.c.tx(self.c, burst, n)
            for i in range(taken):
                self.c.tx_frames += 1
                self.c.tx_bytes += burst[i].len
            done += taken
            if taken < n:
                break
        return done

    def _check(self, pair, index):
        cdef frame_t frame
        data, offload = pair
        if offload is None:
            check_frame(data, index)
            return
        if not self.c.offloads:
            raise ConfigError(f"frame {index} has an offload: the wire {self.name} takes none")
        if not isinstance(data, bytes) or not MIN_FRAME <= len(data) <= MAX_TSO_FRAME:
            raise ConfigError(
                f"frame {index} with an offload: give {<int>MIN_FRAME} to {<int>MAX_TSO_FRAME} bytes")
        fill_frame(&frame, data, offload)
        if offload_fault(frame.data, frame.len, &frame.offload):
            raise ConfigError(f"frame {index}: {offload} does not fit its headers")
        if takes_needed(&frame.offload, frame.data, frame.len) & ~self.c.offloads:
            raise ConfigError(f"frame {index}: the wire {self.name} does not take {offload}")

    def receive(self, int max_frames=BURST):
        """Receives at most `max_frames` frames, as bytes, as the NIC would. Not while a NIC runs the wire."""
        return [data for data, _ in self.receive_timed(max_frames)]

    def receive_timed(self, int max_frames=BURST):
        """As `receive`, each frame with its time stamp: nanoseconds since 1970, 0 where there is none.

        A checksum that is missing is computed; a large frame is cut, and counts as one.
        """
        return [(data, stamp) for frame, offload, stamp in self._receive(max_frames)
                for data in ([frame] if offload is None else finish_offload(frame, offload))]

    def receive_offload(self, int max_frames=BURST):
        """As `receive`, pairs of a frame as it came and its Offload or None."""
        return [(data, offload) for data, offload, _ in self._receive(max_frames)]

    def _receive(self, int max_frames):
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
                offload = None
                if burst[i].has_offload:
                    offload = Offload(burst[i].offload.csum_start, burst[i].offload.csum_offset,
                                      burst[i].offload.mss, burst[i].offload.hdr_len)
                frames.append((data, offload, burst[i].timestamp_ns))
        return frames

    def close(self):
        """Takes the wire down for good. Closing twice is harmless."""
        self.closed = True
        self.update_link()
        self.c.tx = down_tx
        self.c.rx = down_rx

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: {'up' if self.link else 'down'}>"


cdef fill_frame(frame_t *frame, bytes data, offload):
    frame.data = <uint8_t *>PyBytes_AS_STRING(data)
    frame.len = <uint32_t>PyBytes_GET_SIZE(data)
    frame.timestamp_ns = 0
    frame.has_offload = offload is not None
    if offload is not None:
        frame.offload.csum_start, frame.offload.csum_offset = offload[:2]
        frame.offload.mss, frame.offload.hdr_len = offload[2:]


def finish_offload(bytes frame, offload):
    """The frames that are on the wire when all that is left has been done. ConfigError: it cannot be."""
    cdef frame_t f
    cdef segmentation_t segmentation
    cdef uint32_t len
    cdef bytearray out = bytearray(frame)
    cdef list segments = []
    fill_frame(&f, frame, offload)
    if f.offload.mss == 0 and not checksum_finish(<uint8_t *>out, f.len, &f.offload):
        return [bytes(out)]
    if f.offload.mss == 0 or segment_begin(&segmentation, f.data, f.len, &f.offload):
        raise ConfigError(f"a frame of {f.len} bytes: {offload} does not fit its headers")
    out = bytearray(MAX_FRAME)
    while True:
        len = segment_next(&segmentation, &_fragment_ids, <uint8_t *>out, MAX_FRAME)
        if len == 0:
            return segments
        segments.append(bytes(out[:len]))


def check_frame(frame, index):
    """Raises ConfigError unless this is the bytes of a frame that the NIC could carry."""
    if not isinstance(frame, bytes):
        raise ConfigError(f"frame {index} is {type(frame).__name__}; give bytes")
    if not MIN_FRAME <= len(frame) <= MAX_FRAME:
        raise ConfigError(f"frame {index} has {len(frame)} bytes; give {<int>MIN_FRAME} to {<int>MAX_FRAME}")
