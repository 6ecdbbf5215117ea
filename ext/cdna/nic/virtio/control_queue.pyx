"""The control queue of a virtio-net device (virtio 1.2, 5.1.6.5): commands one at a time, and their answers.

    written by the driver         written by the device
    +-------+---------+------+    +-----+
    | class | command | data |    | ack |       class, command, ack: a byte each
    +-------+---------+------+    +-----+

It is no part of the data path: the VMM's thread serves it, and what a command means is Python's. The chain
may be cut into descriptors anywhere. It is read once, and as hostile as any other; one that breaks a rule
stops the context. A buffer is taken when it is answered, so who takes over from a device that died in between
carries the command out again.
"""
# build: control explored

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from cdna.abi cimport (
    CONTEXT_RUNNING, FAULT_AVAIL, FAULT_DIRECTION, FAULT_HEADER, FAULT_NONE, RING_CONTROL,
)
from cdna.checks cimport CHECK_COMMAND_ANSWER, CHECK_COMMAND_HEAD, CHECK_COMMAND_LONG, broken
from cdna.cpu cimport cycles, load_u16, load_u32
from cdna.eventfd cimport signal_eventfd
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.device cimport Nic
from cdna.nic.frame cimport gather
from cdna.nic.virtio.chain cimport CHAIN_COMMAND, chain_t, read_chain
from cdna.nic.virtio.mapping cimport GuestMapping
from cdna.nic.virtio.memory cimport guest_memory_t, log_bytes
from cdna.nic.virtio.notify cimport stop_guest
from cdna.nic.virtio.queue cimport (
    BEYOND_RING, ask_for_kicks, calls, has_available, packed_available, publish_used, split_available, take,
    use, used_ring, virtqueue_t,
)
from cdna.nic.virtio.queue_setup cimport (
    forget_ring, locate, locate_ring, located, position, recover_packed, ring_descriptors, ring_info,
    set_ring_addresses, set_ring_base, set_ring_features, set_ring_size,
)

from cdna.nic.event_fd import event_descriptor, exchanged, signal_descriptor

cdef enum:
    COMMAND_HEAD = 2            # bytes: class and command

MAX_COMMAND = 16384             # bytes; a table of 2000 addresses

# --- chains -----------------------------------------------------------------------------------------------

cdef uint32_t read_command(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain) noexcept nogil:
    """The memory of the next available buffer, which there is. Returns a Fault."""
    cdef uint32_t fault
    memset(chain, 0, sizeof(chain_t))
    fault = read_chain(memory, q, chain, 0, CHAIN_COMMAND)
    if fault:
        return fault
    if broken(CHECK_COMMAND_HEAD, chain.readable_len < COMMAND_HEAD):
        chain.found = chain.readable_len
        return FAULT_HEADER
    if broken(CHECK_COMMAND_ANSWER, chain.n == chain.readable):     # nowhere to put it
        chain.found = chain.n
        return FAULT_DIRECTION
    return FAULT_NONE


# --- the queue --------------------------------------------------------------------------------------------

cdef class ControlQueue:
    """The control queue of the context `index`, whose guest has this memory.

    Its methods for setting up are those of `VirtioDevice`, with the number that the frontend has for it,
    which matters to nobody but the reader of an error. The memory table must not change during a call.
    """

    cdef virtqueue_t q
    cdef Nic nic
    cdef GuestMapping memory
    cdef readonly int index
    cdef uint8_t *ack           # of the command that was popped and not answered, or NULL
    cdef uint16_t id
    cdef uint32_t slots

    def __init__(self, Nic nic, index, GuestMapping memory):
        self.nic = nic
        self.index = index
        self.memory = memory
        self._forget()

    cdef _forget(self):
        forget_ring(&self.q)
        self.ack = NULL

    # --- setting up ---------------------------------------------------------------------------------------

    def set_features(self, features):
        """What the driver accepted; the ring's format."""
        set_ring_features(&self.q, features)

    def set_size(self, queue, size):
        set_ring_size(&self.q, queue, size)

    def set_addresses(self, queue, desc, driver, device, log=None):
        set_ring_addresses(self.memory.c, &self.q, queue, desc, driver, device, log)
        if self.q.started:
            located(&self.q, queue)

    def set_base(self, queue, base):
        set_ring_base(&self.q, queue, base)

    @property
    def descriptors(self) -> int:
        """How many of the frontend's it has."""
        return ring_descriptors(&self.q)

    @property
    def kick_fd(self) -> int:
        return self.q.kick_fd

    def set_kick(self, queue, fd):
        if fd >= 0:
            event_descriptor(fd, f"kick descriptor of queue {queue}")
        self.q.kick_fd = exchanged(self.q.kick_fd, fd)

    def set_call(self, queue, fd):
        if fd >= 0:
            signal_descriptor(fd, f"call descriptor of queue {queue}")
        self.q.call_fd = exchanged(self.q.call_fd, fd)
        if self.q.started:
            self._interrupt(self.q.call_fd)     # what was answered before is told of again

    def set_err(self, queue, fd):
        if fd >= 0:
            signal_descriptor(fd, f"error descriptor of queue {queue}")
        self.q.err_fd = exchanged(self.q.err_fd, fd)

    cdef void _interrupt(self, int fd) noexcept:
        if fd >= 0:
            signal_eventfd(fd)

    def start(self, queue):
        cdef virtqueue_t *q = &self.q
        if q.started:
            return
        locate_ring(self.memory.c, q, queue)
        if q.packed:
            recover_packed(q)
            q.used = q.last_avail
            q.used_wrap = q.avail_wrap
        else:
            q.used = q.last_avail = q.seen_avail = load_u16(&used_ring(q).idx)
        q.signalled = q.used
        q.pending = q.unsignalled = 0
        q.started = 1
        self.ack = NULL
        self._interrupt(q.call_fd)              # what was answered before, and perhaps not told

    @property
    def fresh(self) -> bool:
        """Whether it stands where a driver begins."""
        return self.q.last_avail == 0 and (not self.q.packed or self.q.avail_wrap)

    def stop(self, queue) -> int:
        self.q.started = 0
        self.ack = NULL
        return position(&self.q)

    def enable(self, queue, on):
        self.q.enabled = bool(on)

    @property
    def ready(self) -> bool:
        """Whether its commands are carried out, as far as the ring is in memory."""
        return bool(self.q.started and self.q.enabled)

    def info(self, queue) -> dict:
        cdef virtqueue_t *q = &self.q
        locate(self.memory.c, q)
        return ring_info(q, self.ready and q.desc != NULL)

    def reset(self):
        """As after its creation."""
        for fd in (self.q.kick_fd, self.q.call_fd, self.q.err_fd):
            exchanged(fd, -1)
        self._forget()

    # --- commands -----------------------------------------------------------------------------------------

    def pop(self):
        """The next command: class, command and data; b"" of one longer than MAX_COMMAND. None: there is none.

        It has to be answered before the next one. The driver kicks when there is one after None.
        """
        cdef virtqueue_t *q = &self.q
        cdef chain_t chain
        cdef uint32_t fault = FAULT_NONE
        cdef bint available
        if not self.ready or self._context() == NULL:
            return None
        locate(self.memory.c, q)
        if q.desc == NULL:
            return None
        data = b""
        chain.found = 0
        available = self._await()
        if available and not q.packed and split_available(q) == BEYOND_RING:
            fault = FAULT_AVAIL
            chain.found = q.seen_avail
        elif available:
            fault = read_command(self.memory.c, q, &chain)
            if not fault and not broken(CHECK_COMMAND_LONG, chain.readable_len > <uint32_t>MAX_COMMAND):
                data = self._gather(&chain)
        if fault or load_u32(&self.memory.c.gone):      # then what was read are zeros of ours
            self._stop_context(fault, chain.found)
            available = False
        if not available:
            return None
        self.ack = <uint8_t *>chain.piece[chain.readable].data
        self.id = chain.id
        self.slots = chain.slots
        return data

    cdef bint _await(self) noexcept:
        """Whether there is a buffer, or more than can be. If not, the driver was asked to kick."""
        cdef virtqueue_t *q = &self.q
        cdef int _
        for _ in range(2):
            if packed_available(q, q.last_avail, q.avail_wrap) if q.packed else split_available(q) != 0:
                return True
            ask_for_kicks(q, True)
            if not has_available(q):
                return False
        return False                            # it wavers, so it will kick

    cdef bytes _gather(self, const chain_t *chain):
        cdef bytearray data = bytearray(chain.readable_len)
        cdef uint8_t[::1] to = data
        gather(&to[0], chain.piece, 0, chain.readable_len)
        return bytes(data)

    def answer(self, ack):
        """Gives the popped command's buffer back with this byte, and tells a driver that wants to be told."""
        cdef virtqueue_t *q = &self.q
        cdef const guest_memory_t *memory = self.memory.c
        if self.ack == NULL:
            return
        self.ack[0] = ack
        if memory.log != NULL:
            log_bytes(memory, self.ack, 1)
        self.ack = NULL
        take(q, self.slots)
        use(q, self.id, 1, self.slots)
        publish_used(memory, q)
        if calls(q, cycles()):
            self._interrupt(q.call_fd)

    # --- faults -------------------------------------------------------------------------------------------

    cdef context_t *_context(self) noexcept:
        """The context while it runs for this guest, or NULL."""
        cdef context_t *context = &self.nic.c.context[self.index]
        if context.rings != RINGS_VIRTIO or context.virtio.memory != self.memory.c:
            return NULL
        return context if context.state == CONTEXT_RUNNING else NULL

    cdef _stop_context(self, uint32_t fault, uint32_t found):
        with self.nic.quiesced(self.index):
            if self._context() != NULL:
                stop_guest(self.nic.c, self._context(), &self.q, RING_CONTROL, fault, found)
        self._interrupt(self.q.err_fd)
