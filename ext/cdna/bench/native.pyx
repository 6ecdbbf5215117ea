"""The inner loops of `cdna bench`: the host's side of the native path, memcpy, and the bare ring.

Each runs in the calling thread until a time, without the interpreter's lock, while the NIC runs in its own
thread on its own core. What is counted is what arrived, read at the start and at the end of the time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.cpu cimport cpu_relax, cycles, load_u64
from cdna.guests.synthetic cimport SyntheticGuest, offer, synthetic_t, take
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
    struct frame_pool:
        uint8_t *base
        uint32_t buffers
        uint32_t stride
    uint64_t memcpy_run(frame_pool source, frame_pool to, uint32_t size, uint64_t until)

cdef enum:
    BATCH = 64
    WARM_UP = 8                 # the first eighth of the time is not counted


cdef uint64_t deadline(double seconds) noexcept:
    return cycles() + <uint64_t>(seconds * cycles_per_second())


def guest_to_wire(SyntheticGuest guest, Wire wire, double seconds) -> tuple[int, float]:
    """Offers frames for `seconds`; returns (frames that reached the wire, seconds they took)."""
    cdef synthetic_t *sender = guest.c
    cdef uint64_t start = 0, before = 0, end
    for share in (WARM_UP, 1):
        start, before, end = cycles(), load_u64(&wire.c.tx_frames), deadline(seconds / share)
        with nogil:
            while cycles() < end:
                if offer(sender, BATCH) == 0:
                    cpu_relax()
    return load_u64(&wire.c.tx_frames) - before, (cycles() - start) / cycles_per_second()


def wire_to_guest(SyntheticGuest guest, double seconds) -> tuple[int, float]:
    """Takes frames for `seconds`; returns (frames taken, seconds they took)."""
    cdef synthetic_t *receiver = guest.c
    cdef uint64_t start = 0, before = 0, end
    for share in (WARM_UP, 1):
        start, before, end = cycles(), receiver.received, deadline(seconds / share)
        with nogil:
            while cycles() < end:
                if take(receiver, BATCH) == 0:
                    cpu_relax()
    return receiver.received - before, (cycles() - start) / cycles_per_second()


def guest_to_guest(SyntheticGuest guest, SyntheticGuest peer, int window,
                   double seconds) -> tuple[int, float]:
    """One guest offers and another takes, in turns on this core, at most `window` frames under way."""
    cdef synthetic_t *sender = guest.c
    cdef synthetic_t *receiver = peer.c
    cdef uint64_t start = 0, before = 0, end
    for share in (WARM_UP, 1):
        start, before, end = cycles(), receiver.received, deadline(seconds / share)
        with nogil:
            while cycles() < end:
                if sender.sent - receiver.received + BATCH <= <uint64_t>window:
                    offer(sender, BATCH)
                take(receiver, BATCH)
    return receiver.received - before, (cycles() - start) / cycles_per_second()


def memcpy_frames(uint32_t size, tuple source, tuple to, double seconds) -> tuple[int, float]:
    """memcpy of frames of `size` bytes from one pool to another, each (buffers, stride in bytes)."""
    cdef frame_pool pools[2]
    cdef uint64_t start = 0, n = 0, end
    cdef int i
    regions = []
    for i, (buffers, stride) in enumerate((source, to)):
        regions.append(SharedRegion(buffers * stride + size))
        regions[i].view()[:] = 1
        pools[i].base = (<SharedRegion>regions[i]).base
        pools[i].buffers, pools[i].stride = buffers, stride
    for share in (WARM_UP, 1):
        start = cycles()
        end = deadline(seconds / share)
        with nogil:
            n = memcpy_run(pools[0], pools[1], size, end)
    return n, (cycles() - start) / cycles_per_second()


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
