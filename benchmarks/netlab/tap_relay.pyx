"""The baseline of namespace guests: each guest's tap joined to a tap on a kernel bridge, by one thread.

What the pump (`cdna.guests.pump`) and the NIC are to a CDNA guest, this loop and the kernel's bridge
are to the guest of the baseline; everything else is the same. A frame is read from one tap and written to the
other, with its virtio-net header, so that checksums stay undone and large segments uncut. Towards the guest
datagrams of one flow are joined as the pump does; towards the bridge no backend does that. A tap never makes
its writer wait, so a buffer for each frame of a burst is enough.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport read, write

from cdna.cpu cimport cycles, load_u32, store_u32
from cdna.epoll cimport (
    EPOLL_CLOEXEC, EPOLLET, EPOLLIN, epoll_create1, epoll_event, epoll_wait,
    precise_timers, spun_out, watch,
)
from cdna.nic.moderation cimport moderate, moderation_init, moderation_t
from cdna.guests.udp_gro cimport gro_join, gro_t, gro_write
from cdna.memory cimport SharedRegion
from cdna.nic.wire cimport cycles_per_second

import os

from cdna.errors import ConfigError

cdef enum:
    EVENTS = 64
    MOVES = 2                   # of a frame from guest to guest: to the bridge, and from it
    RELAY_ENDS = 256            # taps; two a guest
    RELAY_BUFFER = 65600        # bytes: a virtio-net header, and the largest frame that a stack hands over
    RELAY_BURST = 32            # frames of one tap before the next one has its turn
    STOP = RELAY_ENDS           # event of the wake descriptor

cdef struct relay_end_t:
    int fd
    uint32_t peer               # where its frames go
    uint32_t readable           # 1: it may have frames; 0: its next event will tell
    bint joins                  # takes joined datagrams: a guest's tap
    uint64_t frames             # moved from here to the peer
    uint64_t lost               # that the peer did not take

cdef struct relay_t:
    int epoll
    int wake_fd                 # written to stop
    uint32_t ends
    uint32_t stop
    int64_t spin_cycles         # -1: never sleeps
    uint64_t sleeps
    moderation_t moderation
    relay_end_t end[256]
    uint8_t *frame              # RELAY_BURST buffers of RELAY_BUFFER bytes


cdef int relay_end(relay_t *relay, relay_end_t *end) noexcept nogil:
    """Moves frames from one tap to its peer. Returns how many."""
    cdef relay_end_t *to = &relay.end[end.peer]
    cdef gro_t gro
    cdef uint8_t *frame
    cdef ssize_t length
    cdef int n = 0
    gro.n = 0
    while n < RELAY_BURST:
        frame = relay.frame + n * RELAY_BUFFER
        length = read(end.fd, frame, RELAY_BUFFER)
        if length < 0:
            end.readable = errno == EINTR
            break
        n += 1
        if to.joins and gro_join(&gro, frame, <uint32_t>length, 0):
            continue
        if gro.n:
            end.lost += gro_write(&gro, to.fd, &to.joins)
            gro.n = 0
            if to.joins and gro_join(&gro, frame, <uint32_t>length, 0):
                continue
        end.lost += write(to.fd, frame, length) < 0
    if gro.n:
        end.lost += gro_write(&gro, to.fd, &to.joins)
    end.frames += n
    return n


cdef void relay_note(relay_t *relay, const epoll_event *event, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        if event[i].data.u32 < relay.ends:
            relay.end[event[i].data.u32].readable = 1


cdef void relay_run(relay_t *relay) noexcept nogil:
    cdef epoll_event event[EVENTS]
    cdef uint64_t idle_since = 0
    cdef uint32_t i
    cdef int moved
    precise_timers()
    while not load_u32(&relay.stop):
        relay_note(relay, event, epoll_wait(relay.epoll, event, EVENTS, 0))
        moved = 0
        for i in range(relay.ends):
            if relay.end[i].readable:
                moved += relay_end(relay, &relay.end[i])
        if moved:
            idle_since = 0
            moderate(&relay.moderation, moved // MOVES)
            continue
        if spun_out(&idle_since, relay.spin_cycles):
            relay.sleeps += 1
            relay_note(relay, event, epoll_wait(relay.epoll, event, EVENTS, -1))
            idle_since = cycles()


cdef class Relay:
    """Moves frames between pairs of taps: `run`, in a thread of its own, until `stop`.

    spin_us: microseconds without a frame after which the loop sleeps; -1: it never does.
    """

    cdef relay_t c
    cdef SharedRegion frames

    def __cinit__(self):
        self.c.epoll = self.c.wake_fd = -1
        self.frames = SharedRegion(RELAY_BURST * RELAY_BUFFER)
        self.c.frame = self.frames.base

    def __init__(self, *, spin_us=1000.0):
        self.c.spin_cycles = -1 if spin_us < 0 else <int64_t>(spin_us * 1e-6 * cycles_per_second())
        moderation_init(&self.c.moderation)
        self.c.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.c.epoll < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        self.c.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch(self.c.wake_fd, STOP, EPOLLIN)

    cdef int _watch(self, int fd, uint32_t which, uint32_t events) except -1:
        if watch(self.c.epoll, fd, which, events) < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        return 0

    def add(self, int guest, int bridge):
        """Joins two taps, nonblocking and with virtio-net headers; before `run`. Close them after it."""
        cdef uint32_t first = self.c.ends, i
        if first + 2 > RELAY_ENDS:
            raise ConfigError(f"{first // 2 + 1} pairs of taps: give {<int>RELAY_ENDS // 2} at most")
        for i in range(2):
            memset(&self.c.end[first + i], 0, sizeof(relay_end_t))
            self.c.end[first + i].fd = bridge if i else guest
            self.c.end[first + i].peer = first + 1 - i
            self.c.end[first + i].readable = 1
            self.c.end[first + i].joins = not i
            self._watch(self.c.end[first + i].fd, first + i, EPOLLIN | <uint32_t>EPOLLET)
        self.c.ends += 2

    def run(self):
        """The loop, until `stop`."""
        with nogil:
            relay_run(&self.c)

    def stop(self):
        """Ends the loop, from another thread."""
        store_u32(&self.c.stop, 1)
        os.eventfd_write(self.c.wake_fd, 1)

    def stats(self):
        """frames moved and lost, and sleeps."""
        cdef uint32_t i
        frames = lost = 0
        for i in range(self.c.ends):
            frames += self.c.end[i].frames
            lost += self.c.end[i].lost
        return {"frames": frames, "lost": lost, "sleeps": self.c.sleeps}

    def close(self):
        """Gives its descriptors back, once the loop has ended. Closing twice is harmless."""
        if self.c.epoll >= 0:
            os.close(self.c.epoll)
            os.close(self.c.wake_fd)
            self.c.epoll = self.c.wake_fd = -1
