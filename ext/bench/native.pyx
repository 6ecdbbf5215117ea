"""The inner loops of `cdna bench`: the host's side of the native path, memcpy, and the bare ring.

Each runs in the calling thread until a time, without the interpreter's lock, while the NIC runs in its own
thread on its own core. What is counted is what arrived, read at the start and at the end of the time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.cpu cimport cpu_relax, cycles, load_u64
from cdna.guest_driver.synthetic cimport SyntheticGuest, offer, synthetic_t, take
from cdna.memory cimport SharedRegion
from cdna.nic.wire cimport Wire, cycles_per_second

cdef extern from "bare_ring.h" nogil:
    enum:
        BARE_RING_SLOTS
        BARE_PACKET_BUFFER
    struct bare_page:
        uint32_t owner
        uint32_t pins
    struct bare_ring:
        uint8_t *frames
        uint8_t *packet
        bare_page *page
        uint32_t size
        uint32_t stride
        int cpu
    uint64_t bare_ring_run(bare_ring *ring, uint64_t until)
    uint64_t memcpy_run(uint8_t *frames, uint8_t *packet, uint32_t packet_bytes, uint32_t buffers, uint32_t size,
                        uint32_t stride, uint64_t until)

cdef enum:
    BATCH = 64
    WARM_UP = 8                 # the first eighth of the time is not counted


cdef uint64_t deadline(double seconds) noexcept:
    return cycles() + <uint64_t>(seconds * cycles_per_second())


def guest_to_wire(SyntheticGuest guest, Wire wire, double seconds) -> tuple[int, float]:
    """Offers frames for `seconds`; returns (frames that reached the wire, seconds they took)."""
    cdef synthetic_t *sender = guest.c
    cdef uint64_t start, end, at, before
    with nogil:
        with gil:
            end = deadline(seconds / WARM_UP)
        while cycles() < end:
            offer(sender, BATCH)
        start, before = cycles(), load_u64(&wire.c.tx_frames)
        with gil:
            end = deadline(seconds)
        while cycles() < end:
            if offer(sender, BATCH) == 0:
                cpu_relax()
        at = cycles()
        before = load_u64(&wire.c.tx_frames) - before
    return before, (at - start) / cycles_per_second()


def wire_to_guest(SyntheticGuest guest, double seconds) -> tuple[int, float]:
    """Takes frames for `seconds`; returns (frames taken, seconds they took)."""
    cdef synthetic_t *receiver = guest.c
    cdef uint64_t start, end = deadline(seconds / WARM_UP), before
    with nogil:
        while cycles() < end:
            take(receiver, BATCH)
        start, before = cycles(), receiver.received
        with gil:
            end = deadline(seconds)
        while cycles() < end:
            if take(receiver, BATCH) == 0:
                cpu_relax()
        end = cycles()
    return receiver.received - before, (end - start) / cycles_per_second()


def guest_to_guest(SyntheticGuest guest, SyntheticGuest peer, int window, double seconds) -> tuple[int, float]:
    """One guest offers and another takes, in turns on this core, at most `window` frames under way."""
    cdef synthetic_t *sender = guest.c
    cdef synthetic_t *receiver = peer.c
    cdef uint64_t start = 0, end = deadline(seconds / WARM_UP), before = 0
    cdef int rounds
    with nogil:
        for rounds in range(2):
            while cycles() < end:
                if sender.sent - receiver.received + BATCH <= <uint64_t>window:
                    offer(sender, BATCH)
                take(receiver, BATCH)
            if rounds == 0:
                start, before = cycles(), receiver.received
                with gil:
                    end = deadline(seconds)
        end = cycles()
    return receiver.received - before, (end - start) / cycles_per_second()


def memcpy_frames(uint32_t size, uint32_t stride, uint32_t buffers, uint32_t burst_bytes, bint scatter,
                  double seconds) -> tuple[int, float]:
    """memcpy of frames between `buffers` buffers, `stride` bytes apart, and a burst's room of `burst_bytes`.

    scatter: from the burst to the buffers, as in reception; otherwise the other way, as in transmission.
    """
    cdef SharedRegion frames = SharedRegion(<size_t>buffers * stride), burst = SharedRegion(burst_bytes + size)
    cdef uint64_t start, n
    cdef uint32_t slots = burst_bytes // stride
    frames.view()[:] = 1
    burst.view()[:] = 1
    cdef uint64_t end = deadline(seconds / WARM_UP)
    with nogil:
        for _ in range(2):
            start = cycles()
            if scatter:
                n = memcpy_run(burst.base, frames.base, buffers * stride, slots, size, stride, end)
            else:
                n = memcpy_run(frames.base, burst.base, burst_bytes, buffers, size, stride, end)
            with gil:
                start, end = cycles(), deadline(seconds)
    return n, seconds


def bare_ring_frames(uint32_t size, uint32_t stride, int cpu, double seconds) -> tuple[int, float]:
    """The bare ring, its consumer on `cpu`; returns (frames moved, seconds)."""
    cdef SharedRegion frames = SharedRegion(<size_t>BARE_RING_SLOTS * stride)
    cdef SharedRegion packet = SharedRegion(BARE_PACKET_BUFFER)
    cdef SharedRegion state = SharedRegion(sizeof(bare_ring) + (frames.size >> 12) * sizeof(bare_page) + 64)
    cdef bare_ring *ring = <bare_ring *>state.base
    cdef uint64_t n, start
    cdef uint32_t i
    frames.view()[:] = 1
    packet.view()[:] = 1
    ring.frames, ring.packet = frames.base, packet.base
    ring.page = <bare_page *>(state.base + ((sizeof(bare_ring) + 63) & ~63))
    ring.size, ring.stride, ring.cpu = size, stride, cpu
    for i in range(<uint32_t>(frames.size >> 12)):
        ring.page[i].owner = 1
    cdef uint64_t end = deadline(seconds)
    with nogil:
        start = cycles()
        n = bare_ring_run(ring, end)
        end = cycles()
    return n, (end - start) / cycles_per_second()
