"""The control part of a wire to a device that may disappear."""

import os
import select
import threading

from cdna.cpu cimport load_u32, store_u32
from cdna.nic.wire cimport Wire, shared_wire_t

from cdna import logs
from cdna.nic.link_watch import LinkWatch

log = logs.logger("cdna.nic")


cdef class WatchedWire(Wire):
    """Base of the wires to devices of the kernel's.

    A subclass sets `watched`, has `_find_trouble` and `_device_fds`, and calls `begin_watch`.
    """

    def __cinit__(self, *args, **kwargs):
        self._lock = threading.RLock()
        self._changed_fd = -1
        self._shown = True

    cdef begin_watch(self):
        self._epoll = select.epoll()
        self._changed_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._changed_fd, select.EPOLLIN)
        self._watch = LinkWatch(self)
        self.watched.changed_fd = self._changed_fd
        self.watched.notice = self._watch.notice
        self.look()
        self._watch.start()

    def _device_fds(self):
        """The descriptors that are readable when the device has frames."""
        raise NotImplementedError

    def _find_trouble(self):
        """What is wrong with the device, a few words; None: nothing. Repairs what it can."""
        raise NotImplementedError

    def _show_device(self, plugged):
        """Tells the device whether the wire is plugged in, where it cares."""

    def look(self):
        """Looks after the device and takes the link down or up. Returns whether all is well."""
        with self._lock:
            if self.closed:
                return True
            if load_u32(&self.watched.lost_in) not in (0, os.getpid()):
                trouble = "the device is gone; this process cannot mend it for the one that runs the NIC"
            else:
                trouble = self._find_trouble()
            if trouble != self._trouble:
                self._tell(trouble)
            self._trouble = trouble
            (<shared_wire_t *>self.c).carrier = trouble is None
            self.update_link()
            return trouble is None

    def _tell(self, trouble):
        if trouble is None:
            log.info("%s: the device is back: link up", self.name)
        elif self._trouble is None:
            log.warning("%s: %s: link down", self.name, trouble)
        else:
            log.debug("%s: %s: link still down", self.name, trouble)

    cdef bint update_link(self) except -1:
        cdef bint was = load_u32(&self.c.link)
        cdef bint up
        with self._lock:
            if self._epoll is None:                     # not watched yet, or closed
                return Wire.update_link(self)
            if not (<shared_wire_t *>self.c).carrier:   # a dead device is always readable
                self._wait_for_device(False)
            up = Wire.update_link(self)
            self._wait_for_device(up)
            if (<shared_wire_t *>self.c).plugged != self._shown:
                self._shown = (<shared_wire_t *>self.c).plugged
                self._show_device(bool(self._shown))
            if up != was:
                os.eventfd_write(self._changed_fd, 1)   # before `changed`, so that it is read after
                store_u32(&self.watched.changed, 1)
            return up

    def _wait_for_device(self, wait):
        if wait == self._waits:
            return
        for fd in self._device_fds():
            if wait:
                self._epoll.register(fd, select.EPOLLIN)
            else:
                self._epoll.unregister(fd)
        self._waits = wait

    @property
    def wait_fds(self):
        """One descriptor that stands for all that the device has, whichever device that is."""
        return [] if self._epoll is None else [self._epoll.fileno()]

    def close(self):
        """Takes the wire down for good."""
        with self._lock:
            super().close()
            watch, self._watch = self._watch, None
            epoll, self._epoll = self._epoll, None
            fd, self._changed_fd = self._changed_fd, -1
        if epoll is not None:
            epoll.close()
            os.close(fd)
        if watch is not None:
            watch.stop()
