"""Hypercalls from sockets: received into the VMM's own memory, checked, carried out, answered.

No object is made for a hypercall or for its descriptors. Nothing here waits for a guest: a message that is
not there is none, and a guest that does not read its replies is sent away.
"""
# build: control

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t

from cdna.abi cimport REFUSED_CONTEXT, desc_t
from cdna.checks cimport (
    CHECK_MESSAGE_ENTRIES, CHECK_MESSAGE_HEAD, CHECK_MESSAGE_LENGTH, CHECK_MESSAGE_NO_ENTRIES,
    CHECK_MESSAGE_OP, CHECK_MESSAGE_RESERVED, CHECK_MESSAGE_RING, CHECK_REAP_OWNER, broken,
)
from cdna.protocol.hypercall cimport (
    HYPERCALL_BATCH, HYPERCALL_ENQUEUE, HYPERCALL_MAP, HYPERCALL_STATUS, HYPERCALL_UNMAP,
    hypercall_message_t, hypercall_reply_t, hypercall_t,
)
from cdna.vmm.protection cimport enqueue, iommu_map, iommu_unmap, reap, vmm_t
from cdna.vmm.tables cimport Tables

from cdna.protocol.hypercall import Hypercall, Malformed

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    ssize_t recv(int fd, void *buf, size_t len, int flags)
    ssize_t send(int fd, const void *buf, size_t len, int flags)

cdef inline size_t entry_bytes(uint32_t op) noexcept nogil:
    """Bytes that one entry takes in a message."""
    if op == HYPERCALL_ENQUEUE:
        return sizeof(desc_t)
    if op == HYPERCALL_MAP:
        return 2 * sizeof(uint32_t)
    return sizeof(uint32_t) if op == HYPERCALL_UNMAP else 0


cdef check_message(const hypercall_t *head, size_t length):
    """Raises Malformed unless the message has the shape that its header says."""
    if broken(CHECK_MESSAGE_HEAD, length < sizeof(hypercall_t)):
        raise Malformed(f"a hypercall of {length} bytes: the header alone has {sizeof(hypercall_t)}")
    if broken(CHECK_MESSAGE_OP, not HYPERCALL_ENQUEUE <= head.op <= HYPERCALL_STATUS):
        raise Malformed(f"unknown hypercall {head.op}: see cdna.protocol.hypercall.Hypercall")
    if broken(CHECK_MESSAGE_RESERVED, head.reserved != 0) or \
            broken(CHECK_MESSAGE_RING, head.ring and head.op != HYPERCALL_ENQUEUE):
        raise Malformed(f"{Hypercall(head.op).name} with reserved fields that are not 0")
    if broken(CHECK_MESSAGE_ENTRIES, head.n > HYPERCALL_BATCH) or \
            broken(CHECK_MESSAGE_NO_ENTRIES, head.n and not entry_bytes(head.op)):
        raise Malformed(f"{Hypercall(head.op).name} with {head.n} entries: "
                        f"at most {<int>HYPERCALL_BATCH if entry_bytes(head.op) else 0}")
    expected = sizeof(hypercall_t) + head.n * entry_bytes(head.op)
    if broken(CHECK_MESSAGE_LENGTH, length != expected):
        raise Malformed(
            f"{Hypercall(head.op).name} with {head.n} entries in {length} bytes: it has {expected}")


cdef class HypercallBuffer:
    """Where the VMM receives hypercalls; one buffer serves all connections, one after the other."""

    def __init__(self, Tables tables not None):
        self._tables = tables

    def serve(self, int fd, uint32_t domain, uint32_t context) -> int:
        """Carries out the next hypercall of `domain`, if there is one, and answers it. Returns a `Served`.

        Malformed: a message that is none, or a guest that leaves its replies unread.
        """
        cdef vmm_t *vmm = self._tables.c
        cdef hypercall_reply_t reply
        cdef ssize_t length = recv(fd, &self._message, sizeof(hypercall_message_t), MSG_DONTWAIT | MSG_TRUNC)
        if length < 0:
            return SERVED_NOTHING if errno == EAGAIN or errno == EINTR else SERVED_END
        if length == 0:
            return SERVED_END
        check_message(&self._message.head, length)
        if self._message.head.op == HYPERCALL_STATUS:
            return SERVED_STATUS
        vmm.refused_index = vmm.refused_page = 0
        reply.status = self._dispatch(domain, context)
        reply.index, reply.page, reply.reserved = vmm.refused_index, vmm.refused_page, 0
        if send(fd, &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
            if errno == EAGAIN:
                raise Malformed("replies to hypercalls are left unread")
            return SERVED_END
        return SERVED_HYPERCALL

    cdef int _dispatch(self, uint32_t domain, uint32_t context) noexcept nogil:
        cdef vmm_t *vmm = self._tables.c
        cdef const hypercall_t *head = &self._message.head
        cdef const uint32_t *page = <const uint32_t *>self._message.entry
        if head.op == HYPERCALL_ENQUEUE:
            return enqueue(vmm, domain, context, head.ring, self._message.entry, head.n)
        if head.op == HYPERCALL_MAP:
            return iommu_map(vmm, domain, context, page, page + head.n, head.n)
        if head.op == HYPERCALL_UNMAP:
            return iommu_unmap(vmm, domain, context, page, head.n)
        if broken(CHECK_REAP_OWNER, vmm.context[context].domain != domain):
            return REFUSED_CONTEXT
        reap(vmm, context)
        return 0
