"""A wire to a device of the kernel's, which may disappear while the wire runs, and come back.

Two threads are at work. The engine finds that a system call fails because the device is gone: it takes the
link down and goes on; from then on frames are lost and counted. Only the wire's watch (a Python thread, woken
by the engine or by the kernel's news of links) finds out what is wrong, repairs it and takes the link up.
Descriptors keep their numbers for as long as the wire lives: a new device is put behind an old number (dup2),
which the kernel does in one step, so the engine has nothing to follow. Where the engine is wrong, because it
used the old device a moment too long, the watch looks again and takes the link up again.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from cdna.cpu cimport load_u32, store_u32
from cdna.nic.wire cimport Wire
from cdna.nic.wire_contract cimport wire_t

cdef extern from "<unistd.h>" nogil:
    int getpid()
    ssize_t read_descriptor "read"(int fd, void *buffer, size_t size)
    ssize_t write_descriptor "write"(int fd, const void *buffer, size_t size)

cdef struct watched_t:          # the first member of what `wire_t.state` of such a wire points to
    int32_t notice              # event descriptor: the engine has lost the device
    int32_t changed_fd          # event descriptor: wakes a loop that sleeps, to see the new state of the link
    uint32_t changed            # 1: `changed_fd` is to be read
    uint32_t lost_in            # process whose engine has lost the device

cdef class WatchedWire(Wire):
    cdef watched_t *watched
    cdef object _lock
    cdef object _watch
    cdef object _epoll          # readable when the device's descriptors or changed_fd are
    cdef int _changed_fd        # here as well: the shared memory may be gone before this object
    cdef bint _waits            # `_epoll` has the device's descriptors
    cdef bint _shown            # what the device was told of `plugged`
    cdef str _trouble           # what is wrong with the device; None: nothing
    cdef object __weakref__
    # The last step of a subclass's __init__.
    cdef begin_watch(self)


cdef inline void device_lost(wire_t *self, watched_t *watched) noexcept nogil:
    """The engine's part: the link goes down, and the watch is told."""
    cdef uint64_t one = 1
    if load_u32(&self.link):
        store_u32(&self.link, 0)
        store_u32(&watched.lost_in, getpid())
        write_descriptor(watched.notice, &one, sizeof(one))


cdef inline void take_change(watched_t *watched) noexcept nogil:
    """The engine has looked: whatever it does next, it does with the link as it is now."""
    cdef uint64_t count
    if load_u32(&watched.changed):
        store_u32(&watched.changed, 0)
        read_descriptor(watched.changed_fd, &count, sizeof(count))
