"""A driver whose hypercalls are messages on a socket: the guest maps its own memory, page and rings only.

A hypercall is one message and one reply (`cdna.protocol.hypercall`), and the interpreter's lock is free
meanwhile.
One thread at a time may use a driver.
"""
# build: unfuzzed

import os

from cpython.pystate cimport PyThreadState
from libc.errno cimport EINTR, ENOTCONN, EPROTO, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from cdna.abi cimport PAGE_SIZE, REFUSED_CONTEXT, completion_t, context_page_t, desc_t
from cdna.checks cimport cdna_step
from cdna.guest_driver.queues cimport Queues
from cdna.uio cimport MSG_NOSIGNAL, iovec, msghdr, sendmsg
from cdna.protocol.hypercall cimport (
    HYPERCALL_ENQUEUE, HYPERCALL_MAP, HYPERCALL_REAP, HYPERCALL_UNMAP, hypercall_reply_t, hypercall_t,
)

from cdna.errors import ResourceError

import numpy as np

cdef extern from "Python.h" nogil:
    int PyGILState_Check()
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buf, size_t len, int flags)


cdef class Mapping:
    """The memory file `fd`, all of it, shared with the VMM; closes the descriptor, even on an error."""

    def __init__(self, int fd, bint writable):
        try:
            self.size = os.fstat(fd).st_size
            self.writable = writable
            base = mmap(NULL, self.size, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0)
            if base == MAP_FAILED:
                raise ResourceError(f"cannot map {self.size} bytes that the VMM shares: {os.strerror(errno)}")
            self.base = <uint8_t *>base
        finally:
            os.close(fd)

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)

    def view(self):
        """The bytes as a numpy array, which keeps the mapping."""
        return np.asarray(self)

    @property
    def __array_interface__(self):
        return {"version": 3, "shape": (self.size,), "typestr": "|u1",
                "data": (<size_t>self.base, not self.writable)}


cdef int call(remote_caller_t *caller, iovec *part, size_t parts) noexcept nogil:
    """Sends a message of some parts and waits for the reply: its status."""
    cdef msghdr message
    cdef ssize_t length
    if caller.lost:
        return REFUSED_CONTEXT
    memset(&message, 0, sizeof(msghdr))
    message.msg_iov = part
    message.msg_iovlen = parts
    cdna_step()
    length = sendmsg(caller.fd, &message, MSG_NOSIGNAL)
    while length < 0 and errno == EINTR:
        length = sendmsg(caller.fd, &message, MSG_NOSIGNAL)
    cdna_step()
    if length >= 0:
        length = recv(caller.fd, &caller.reply, sizeof(hypercall_reply_t), 0)
        while length < 0 and errno == EINTR:
            length = recv(caller.fd, &caller.reply, sizeof(hypercall_reply_t), 0)
    cdna_step()
    if length == sizeof(hypercall_reply_t):
        return caller.reply.status
    caller.lost = errno if length < 0 else ENOTCONN if length == 0 else EPROTO
    return REFUSED_CONTEXT


cdef int call_vmm(remote_caller_t *caller, uint32_t op, uint32_t ring, const void *entries, size_t bytes_,
                  const void *more, size_t more_bytes, int n) noexcept nogil:
    """A hypercall, with the interpreter's lock released where this thread holds it."""
    cdef hypercall_t head
    cdef iovec part[3]
    cdef PyThreadState *state = NULL
    cdef int status
    head.op = op
    head.ring = ring
    head.n = n
    head.reserved = 0
    part[0].iov_base, part[0].iov_len = &head, sizeof(hypercall_t)
    part[1].iov_base, part[1].iov_len = <void *>entries, bytes_
    part[2].iov_base, part[2].iov_len = <void *>more, more_bytes
    if PyGILState_Check():
        state = PyEval_SaveThread()
    status = call(caller, part, 3)
    if state != NULL:
        PyEval_RestoreThread(state)
    return status


cdef int call_enqueue(void *caller, uint32_t context, uint32_t ring, const desc_t *request,
                      int n) noexcept nogil:
    cdef size_t length = n * sizeof(desc_t)
    return call_vmm(<remote_caller_t *>caller, HYPERCALL_ENQUEUE, ring, request, length, NULL, 0, n)


cdef int call_iommu(void *caller, uint32_t context, const uint32_t *io_page, const uint32_t *page,
                    int n) noexcept nogil:
    cdef size_t length = n * sizeof(uint32_t)
    if page == NULL:
        return call_vmm(<remote_caller_t *>caller, HYPERCALL_UNMAP, 0, io_page, length, NULL, 0, n)
    return call_vmm(<remote_caller_t *>caller, HYPERCALL_MAP, 0, io_page, length, page, length, n)


cdef class RemoteQueues(Queues):
    """The queues of a context whose VMM is at the other end of socket `fd`.

    geometry: what the VMM answered (`cdna.vmm.server.geometry`). memory, page, rings: `Mapping`s.
    """

    def __init__(self, int fd, dict geometry, Mapping memory not None, Mapping page not None,
                 Mapping rings not None, uint32_t buffer_size=2048):
        cdef size_t max_ring = geometry["max_ring"]
        cdef size_t ring_bytes = max_ring * (2 * sizeof(desc_t) + sizeof(completion_t))
        if memory.size != geometry["size"] or page.size != PAGE_SIZE or rings.size < ring_bytes:
            raise ResourceError("the VMM's memory files are not as large as it says")
        self._keep = (memory, page, rings)
        self._caller.fd = fd
        self._memory = memory.view()
        self.c.context = geometry["context"]
        self.c.protection = geometry["protection"]
        self.c.strategy = geometry["strategy"]
        self.c.page = <context_page_t *>page.base
        self.c.first_level = NULL       # the NIC looks at the page by itself
        self.c.memory = memory.base
        self.c.size = memory.size
        self.c.maddr = geometry["maddr"]
        self.c.enqueue = call_enqueue
        self.c.iommu = call_iommu
        self.c.vmm = &self._caller
        self._setup(geometry["tx_ring"], geometry["rx_ring"], max_ring, buffer_size, rings.base)

    def reap(self):
        """Has the VMM drop the pins of what was completed; sending and posting do that by themselves."""
        call_vmm(&self._caller, HYPERCALL_REAP, 0, NULL, 0, NULL, 0, 0)

    @property
    def lost(self) -> int:
        """The error number of a connection to the VMM that has ended, or 0."""
        return self._caller.lost

    @lost.setter
    def lost(self, int number):
        self._caller.lost = number

    @property
    def refused(self) -> tuple[int, int]:
        """Of the last hypercall, where it was refused: index of the entry, and the page to blame."""
        return self._caller.reply.index, self._caller.reply.page
