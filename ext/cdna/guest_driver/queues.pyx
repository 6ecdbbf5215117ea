"""The native driver for Python callers: batches of frames, as bytes or as views of the buffers themselves."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from numbers import Integral
from typing import SupportsIndex

from cdna.abi cimport (
    COMPLETION_F_EOP, CONTEXT_FAULTED, DESC_F_EOP, DESC_F_OFFLOAD, IO_PAGES_PER_SLOT, IOMMU_SINGLE_USE,
    MAILBOX_INTERRUPT_ENABLE, MAX_FRAGMENTS, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME, PAGE_SIZE, PROTECTION_IOMMU,
    RING_TX, VNET_HEADER, completion_t, desc_t, offload_t,
)
from cdna.cpu cimport load_u32
from cdna.doorbell cimport ring_doorbell
from cdna.memory cimport SharedRegion

from cdna.errors import ConfigError
from cdna.guest_driver.buffers import RxBuffer, TxBuffer


cdef enum:
    MAX_BUFFER = 65472          # bytes: a descriptor's length has 16 bits, and buffers start cache lines


cdef uint64_t pool_bytes(uint32_t buffers, uint32_t buffer_size) noexcept:
    return (<uint64_t>buffers * buffer_size + PAGE_SIZE - 1) & ~<uint64_t>(PAGE_SIZE - 1)


cdef uint64_t driver_bytes(uint32_t tx_ring, uint32_t rx_ring, uint32_t buffer_size) noexcept:
    """Guest memory that a driver needs: a page of requests and a buffer for each descriptor."""
    return PAGE_SIZE + pool_bytes(tx_ring, buffer_size) + pool_bytes(rx_ring, buffer_size)


def memory_needed(uint32_t tx_ring, uint32_t rx_ring, uint32_t buffer_size) -> int:
    """Bytes of guest memory for a driver with these rings."""
    return driver_bytes(tx_ring, rx_ring, buffer_size)


cdef size_t queue_bytes(uint32_t size) noexcept:
    return 2 * size * sizeof(uint32_t)


cdef uint8_t *queue_init(queue_t *q, uint8_t *at, uint32_t size, desc_t *ring) noexcept:
    """An empty queue whose arrays lie at `at`; returns what is behind them."""
    cdef uint32_t i
    q.size = size
    q.buffers = size
    q.ring = ring
    q.slot = <uint32_t *>at
    q.free = q.slot + size
    for i in range(size):
        give_free(q, size - 1 - i)
    return at + queue_bytes(size)


cdef SharedRegion driver_init(driver_t *d, uint32_t tx_ring, uint32_t rx_ring, uint32_t max_ring,
                              uint32_t buffer_size, uint8_t *rings, uint32_t io_pages):
    """Lays a driver over its memory and rings; context, page, memory and calls are set. Returns its state."""
    cdef size_t io = sizeof(io_map_t) + io_pages * sizeof(uint16_t)
    cdef SharedRegion state = SharedRegion(queue_bytes(tx_ring) + queue_bytes(rx_ring) + io + 128)
    cdef uint8_t *at = state.base
    d.buffer_size = buffer_size
    d.tx_pool = PAGE_SIZE
    d.rx_pool = d.tx_pool + pool_bytes(tx_ring, buffer_size)
    d.request = <desc_t *>d.memory
    at = queue_init(&d.tx, at, tx_ring, <desc_t *>rings)
    at = queue_init(&d.rx, at, rx_ring, <desc_t *>(rings + max_ring * sizeof(desc_t)))
    d.completion = <const completion_t *>(rings + 2 * max_ring * sizeof(desc_t))
    if d.protection == PROTECTION_IOMMU:
        d.io = <io_map_t *>(state.base + ((at - state.base + 63) & ~63))
        d.io.pages = io_pages
        d.io.uses = <uint16_t *>(d.io + 1)
    return state


def frame_bytes(frame, number):
    """A frame as bytes. TypeError: it is a number, of which bytes() would make as many zeroes."""
    if isinstance(frame, Integral):
        raise TypeError(f"frame {number} is {frame!r}: give a sequence of frames, each of bytes")
    return bytes(frame)


def check_offload(offload):
    """The four fields of an offload request. ConfigError: something else."""
    fields = tuple(offload)
    if len(fields) != 4 or not all(isinstance(n, SupportsIndex) and 0 <= n < 1 << 16 for n in fields):
        raise ConfigError(
            f"offload {offload!r:.80}: give (csum_start, csum_offset, mss, hdr_len), each from 0 to 65535")
    return fields


cdef class Queues:
    """The transmit and receive queues of one context. `Driver` is the class to use.

    One thread at a time may use a driver. A subclass sets up `c`: where the context's page, rings and the
    guest's memory are mapped, and how to reach the VMM.
    """

    cdef _setup(self, uint32_t tx_ring, uint32_t rx_ring, uint32_t max_ring, uint32_t buffer_size,
                uint8_t *rings):
        if buffer_size < 64 or buffer_size % 64 or buffer_size > MAX_BUFFER:
            raise ConfigError(f"buffers of {buffer_size} bytes: give a multiple of 64 from 64 to 65472")
        if self.c.protection == PROTECTION_IOMMU and self.c.strategy == IOMMU_SINGLE_USE \
                and buffer_size > (<int>IO_PAGES_PER_SLOT - 1) * <int>PAGE_SIZE:
            raise ConfigError(
                f"single-use buffers of {buffer_size} bytes: "
                f"give up to {(<int>IO_PAGES_PER_SLOT - 1) * <int>PAGE_SIZE}, or another strategy")
        needed = driver_bytes(tx_ring, rx_ring, buffer_size)
        if needed > self.c.size:
            raise ConfigError(
                f"a driver with rings of {tx_ring} and {rx_ring} and buffers of {buffer_size} bytes "
                f"needs {needed} bytes, the guest has {self.c.size}: give it more memory")
        self._state = driver_init(&self.c, tx_ring, rx_ring, max_ring, buffer_size, rings,
                                  <uint32_t>(self.c.size // PAGE_SIZE))

    # --- transmit -----------------------------------------------------------------------------------------

    def send(self, frames, offload=None) -> int:
        """Sends frames, a sequence of bytes; returns how many were posted, fewer when the ring is full.

        offload: (csum_start, csum_offset, mss, hdr_len) for every frame of the batch: the NIC finishes the
        transport checksum, and with mss > 0 cuts the frame: into TCP segments, or with an `abi.OffloadKind`
        added to hdr_len into UDP datagrams, or fragments of one. ConfigError: a frame of no possible length.
        Refused: the VMM refused.
        """
        cdef int posted = 0
        cdef uint32_t header = VNET_HEADER if self.vnet_header else 0
        cdef uint32_t least = MIN_FRAME + header, limit = MAX_TSO_FRAME + header if header else MAX_FRAME
        cdef bytes data
        cdef uint64_t packed = 0
        cdef offload_t fields
        if offload is not None:
            fields.csum_start, fields.csum_offset, fields.mss, fields.hdr_len = check_offload(offload)
            packed = (<uint64_t *>&fields)[0]
            if fields.mss:
                limit = MAX_TSO_FRAME
        tx_reclaim(&self.c)
        try:
            for frame in frames:
                data = frame if type(frame) is bytes else frame_bytes(frame, posted)
                if not least <= len(data) <= limit:
                    raise ConfigError(f"frame {posted} has {len(data)} bytes: give {least} to {limit}")
                if not self._post_frame(data, offload is not None, packed):
                    break
                posted += 1
        finally:                        # what stands before a frame that cannot be is sent
            self._announce(&self.c.tx, RING_TX)
        return posted

    cdef bint _post_frame(self, bytes data, bint offload, uint64_t packed):
        """Copies a frame into as many buffers as it needs and posts them; False: no room."""
        cdef queue_t *q = &self.c.tx
        cdef const uint8_t *source = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef uint32_t left = PyBytes_GET_SIZE(data), n, buffer
        cdef uint32_t needed = (left + self.c.buffer_size - 1) // self.c.buffer_size
        if needed > MAX_FRAGMENTS - 1 or needed + 1 > q.size:
            raise ConfigError(f"a frame of {left} bytes needs {needed} buffers of {self.c.buffer_size}: "
                              f"give the driver larger buffers")
        if room(q) < needed + offload or q.n_free < needed:
            return False
        if offload:
            post(&self.c, q, RING_TX, packed, 0, DESC_F_OFFLOAD, NO_COOKIE)
        while left:
            n = left if left < self.c.buffer_size else self.c.buffer_size
            buffer = take_free(q)
            memcpy(buffer_at(&self.c, self.c.tx_pool, buffer), source, n)
            source += n
            left -= n
            post(&self.c, q, RING_TX, buffer_maddr(&self.c, self.c.tx_pool, buffer), n,
                 0 if left else DESC_F_EOP, buffer)
        return True

    cdef _announce(self, queue_t *q, uint32_t ring):
        announce(&self.c, q, ring)
        self._raise_refusal()

    cdef _raise_refusal(self):
        """Raises what the VMM refused since the last call, also in the middle of a batch."""
        reason = self.c.refusal
        self.c.refusal = 0
        if reason:
            self._refused(reason)

    def _refused(self, int reason):
        raise NotImplementedError

    def tx_views(self, uint32_t n) -> list:
        """Up to n free transmit buffers as writable numpy arrays, to be filled and given to `submit`."""
        cdef uint32_t buffer
        tx_reclaim(&self.c)
        views = []
        n = min(n, room(&self.c.tx), self.c.tx.n_free)
        for _ in range(n):
            buffer = take_free(&self.c.tx)
            views.append(TxBuffer(self._buffer(self.c.tx_pool, buffer), buffer))
        return views

    def submit(self, buffers) -> int:
        """Sends buffers of `tx_views`, each with its `length` set. Nothing is copied. Returns how many."""
        for buffer in buffers:
            if buffer.number < 0:
                raise ConfigError("this transmit buffer was submitted already: take another from tx_views")
            if not MIN_FRAME <= buffer.length <= min(<int>self.c.buffer_size, <int>MAX_FRAME):
                raise ConfigError(f"buffer with length {buffer.length}: give {<int>MIN_FRAME} to "
                                  f"{min(<int>self.c.buffer_size, <int>MAX_FRAME)}")
            post(&self.c, &self.c.tx, RING_TX, buffer_maddr(&self.c, self.c.tx_pool, buffer.number),
                 buffer.length, DESC_F_EOP, buffer.number)
            buffer.number = -1
        self._announce(&self.c.tx, RING_TX)
        return len(buffers)

    @property
    def tx_pending(self) -> int:
        """Descriptors posted that the NIC has not completed."""
        tx_reclaim(&self.c)
        return self.c.tx.producer - self.c.tx.consumer

    # --- receive ------------------------------------------------------------------------------------------

    def refill(self):
        """Posts all free receive buffers."""
        rx_refill(&self.c)
        self._raise_refusal()

    def recv(self, int max_frames=64) -> list:
        """Up to `max_frames` received frames, as bytes; their buffers are posted again."""
        frames = []
        while len(frames) < max_frames:
            parts = self._take_frame()
            if not parts:
                break
            frames.append(b"".join([
                PyBytes_FromStringAndSize(<char *>buffer_at(&self.c, self.c.rx_pool, number), length)
                for number, length, _, _ in parts]))
            for number, _, _, _ in parts:
                give_free(&self.c.rx, number)
        self.refill()
        return frames

    def recv_views(self, int max_frames=64) -> list:
        """Up to `max_frames` received frames, each a list of `RxBuffer` (numpy views, no copy).

        Give them back to `release`, or the ring runs dry.
        """
        frames = []
        while len(frames) < max_frames:
            parts = self._take_frame()
            if not parts:
                break
            frames.append([RxBuffer(self._buffer(self.c.rx_pool, number)[:length], number, flags, vlan)
                           for number, length, flags, vlan in parts])
        return frames

    def release(self, frames):
        """Posts the buffers of frames from `recv_views` again."""
        for frame in frames:
            for buffer in frame:
                if buffer.number < 0:
                    raise ConfigError("this receive buffer was released already")
                give_free(&self.c.rx, buffer.number)
                buffer.number = -1
        self.refill()

    cdef list _take_frame(self):
        """(buffer, length, flags, vlan) of each buffer of the next frame; empty: no whole frame is there."""
        cdef uint32_t ready = rx_ready(&self.c), i, slot
        cdef completion_t completion
        cdef list parts = []
        for i in range(ready):
            slot = (self.c.rx.consumer + i) & (self.c.rx.size - 1)
            if self.c.completion[slot].flags & COMPLETION_F_EOP:
                break
        else:
            return parts
        for _ in range(i + 1):
            number = rx_take(&self.c, &completion)
            parts.append((number, min(completion.len, self.c.buffer_size), completion.flags, completion.vlan))
        return parts

    @property
    def rx_waiting(self) -> int:
        """Receive buffers that the NIC has filled and nobody has taken."""
        return rx_ready(&self.c)

    cdef _buffer(self, uint64_t pool, uint32_t number):
        cdef uint64_t start = pool + <uint64_t>number * self.c.buffer_size
        return self._memory[start:start + self.c.buffer_size]

    # --- state --------------------------------------------------------------------------------------------

    def enable_interrupts(self, bint on=True):
        """Asks the NIC for interrupts, or for none. After asking, look at the rings before sleeping."""
        ring_doorbell(self.c.page, MAILBOX_INTERRUPT_ENABLE, on, self.c.first_level, self.c.context)

    @property
    def faulted(self) -> bool:
        """Whether the NIC has stopped this context."""
        return load_u32(&self.c.page.state) == CONTEXT_FAULTED

    @property
    def link(self) -> bool:
        return bool(load_u32(&self.c.page.link))

    @property
    def hypercalls(self) -> int:
        return self.c.hypercalls
