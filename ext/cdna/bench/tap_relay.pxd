"""The state of a relay between pairs of taps."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cdna.nic.moderation cimport moderation_t

cdef enum:
    RELAY_ENDS = 256            # taps; two a guest
    RELAY_BUFFER = 65600        # bytes: a virtio-net header, and the largest frame that a stack hands over
    RELAY_BURST = 32            # frames of one tap before the next one has its turn

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
