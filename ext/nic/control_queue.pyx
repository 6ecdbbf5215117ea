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

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.abi cimport (
    CONTEXT_RUNNING, FAULT_AVAIL, FAULT_CHAIN, FAULT_DIRECTION, FAULT_HEADER, FAULT_INDIRECT, FAULT_NONE,
    RING_CONTROL,
)
from cdna.cpu cimport cycles, load_u16, load_u32
from cdna.eventfd cimport signal_eventfd
from cdna.nic.context cimport context_t
from cdna.nic.device cimport Nic
from cdna.nic.guest_mapping cimport GuestMapping
from cdna.nic.guest_memory cimport guest_memory_t, log_bytes
from cdna.nic.virtio_chain cimport add_buffer, chain_t, indirect_table
from cdna.nic.virtio_signal cimport stop_guest
from cdna.nic.virtqueue cimport (
    BEYOND_RING, ask_for_kicks, call, has_available, packed_available, publish_used, read_words,
    split_available, split_head, take, use, used_ring, virtqueue_t,
)
from cdna.nic.virtqueue_setup cimport locate, position, recover_packed, set_position
from cdna.virtio cimport (
    VIRTIO_MAX_RING, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, vring_desc_t,
    vring_packed_desc_t,
)

from cdna.errors import ConfigError, whole
from cdna.nic.event_fd import event_descriptor, exchanged
from cdna.virtio import Feature

cdef enum:
    COMMAND_HEAD = 2            # bytes: class and command

MAX_COMMAND = 16384             # bytes; a table of 2000 addresses

cdef struct command_t:
    chain_t chain
    uint32_t readable           # pieces that the driver wrote; the others are the device's to write
    uint32_t len                # bytes in them
    bint writable               # such a one was found


# --- chains -----------------------------------------------------------------------------------------------

cdef uint32_t add_part(const guest_memory_t *memory, virtqueue_t *q, command_t *c, uint64_t addr,
                       uint32_t len, uint32_t flags) noexcept nogil:
    """Adds one descriptor's memory. What the driver wrote comes first (2.7.4.2). Returns a Fault."""
    cdef bint writable = flags & VRING_DESC_F_WRITE != 0
    cdef uint32_t fault
    if c.writable and not writable:
        c.chain.found = flags
        return FAULT_DIRECTION
    c.writable = writable
    fault = add_buffer(memory, q, &c.chain, addr, len, writable, flags)
    if not writable:
        c.readable = c.chain.n
        c.len = c.chain.len
    return fault


cdef uint32_t walk_split(const guest_memory_t *memory, virtqueue_t *q, command_t *c,
                         uint32_t index) noexcept nogil:
    cdef const uint8_t *table = q.desc
    cdef uint32_t entries = q.size, seen = 0, fault
    cdef vring_desc_t desc
    while True:
        if index >= entries or seen >= entries:         # outside, or round and round
            c.chain.found = index
            return FAULT_CHAIN
        seen += 1
        read_words(table, index, &desc)
        if desc.flags & VRING_DESC_F_INDIRECT:
            # Descriptors of the ring may precede a table (2.7.5.3.1).
            table = indirect_table(memory, q, &c.chain, &desc, VRING_DESC_F_NEXT) if table == q.desc else NULL
            if table == NULL:
                return FAULT_INDIRECT
            entries = desc.len >> 4
            index = seen = 0
            continue
        fault = add_part(memory, q, c, desc.addr, desc.len, desc.flags)
        if fault or not desc.flags & VRING_DESC_F_NEXT:
            return fault
        index = desc.next


cdef uint32_t walk_packed_table(const guest_memory_t *memory, virtqueue_t *q, command_t *c,
                                const vring_desc_t *desc) noexcept nogil:
    cdef vring_desc_t entry
    cdef uint32_t i, fault
    cdef const uint8_t *table = indirect_table(memory, q, &c.chain, desc, VRING_DESC_F_NEXT)
    if table == NULL:
        return FAULT_INDIRECT
    for i in range(desc.len >> 4):
        read_words(table, i, &entry)
        fault = add_part(memory, q, c, entry.addr, entry.len,
                         (<vring_packed_desc_t *>&entry).flags & VRING_DESC_F_WRITE)
        if fault:
            return fault
    return FAULT_NONE


cdef uint32_t walk_packed(const guest_memory_t *memory, virtqueue_t *q, command_t *c) noexcept nogil:
    cdef vring_desc_t desc
    cdef const vring_packed_desc_t *packed = <const vring_packed_desc_t *>&desc
    cdef uint32_t at = q.last_avail, fault
    while True:
        if c.chain.slots == q.size:
            c.chain.found = c.chain.slots
            return FAULT_CHAIN
        read_words(q.desc, at, &desc)
        c.chain.slots += 1
        c.chain.id = packed.id
        if packed.flags & VRING_DESC_F_INDIRECT:
            desc.flags = packed.flags       # where `indirect_table` looks for them
            return walk_packed_table(memory, q, c, &desc)
        fault = add_part(memory, q, c, desc.addr, desc.len, packed.flags)
        if fault or not packed.flags & VRING_DESC_F_NEXT:
            return fault
        at = at + 1 if at + 1 < q.size else 0


cdef uint32_t read_command(const guest_memory_t *memory, virtqueue_t *q, command_t *c) noexcept nogil:
    """The memory of the next available buffer, which there is. Returns a Fault."""
    cdef uint32_t fault
    memset(c, 0, sizeof(command_t))
    if q.packed:
        fault = walk_packed(memory, q, c)
    else:
        c.chain.id = split_head(q, 0)
        fault = walk_split(memory, q, c, c.chain.id)
    if fault:
        return fault
    if c.len < COMMAND_HEAD:
        c.chain.found = c.len
        return FAULT_HEADER
    if c.chain.n == c.readable:             # nowhere to put the answer
        c.chain.found = c.chain.n
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
        memset(&self.q, 0, sizeof(virtqueue_t))
        self.q.kick_fd = self.q.call_fd = self.q.err_fd = -1
        self.q.avail_wrap = self.q.used_wrap = 1
        self.ack = NULL

    # --- setting up ---------------------------------------------------------------------------------------

    def set_features(self, features):
        """What the driver accepted; the ring's format."""
        self.q.packed = features >> <int>Feature.VIRTIO_F_RING_PACKED & 1
        self.q.event_idx = features >> <int>Feature.VIRTIO_F_EVENT_IDX & 1
        self.q.indirect = features >> <int>Feature.VIRTIO_F_INDIRECT_DESC & 1

    def set_size(self, queue, size):
        self._not_started(queue)
        size = whole(f"size of queue {queue}", size, 1, VIRTIO_MAX_RING)
        if not self.q.packed and size & (size - 1):
            raise ConfigError(f"size of queue {queue} {size}: give a power of two")
        self.q.size = size

    cdef _not_started(self, queue):
        if self.q.started:
            raise ConfigError(f"queue {queue} is started: stop it first")

    def set_addresses(self, queue, desc, driver, device, log=None):
        cdef virtqueue_t *q = &self.q
        q.desc_user, q.driver_user, q.device_user = desc, driver, device
        q.logs = log is not None
        q.log_addr = log or 0
        locate(self.memory.c, q)
        if q.started and q.desc == NULL:
            raise ConfigError(f"queue {queue}: its ring is outside the guest's memory, or not aligned")

    def set_base(self, queue, base):
        self._not_started(queue)
        base = whole(f"base of queue {queue}", base, 0, (1 << 32) - 1)
        if self.q.packed and (base & 0x7FFF) >= max(self.q.size, 1):
            raise ConfigError(f"base of queue {queue} {base:#x}: index {base & 0x7FFF} in a ring of "
                              f"{self.q.size}")
        set_position(&self.q, base)

    @property
    def kick_fd(self) -> int:
        return self.q.kick_fd

    def set_kick(self, queue, fd):
        if fd >= 0:
            event_descriptor(fd, f"kick descriptor of queue {queue}")
        self.q.kick_fd = exchanged(self.q.kick_fd, fd)

    def set_call(self, queue, fd):
        if fd >= 0:
            event_descriptor(fd, f"call descriptor of queue {queue}")
        self.q.call_fd = exchanged(self.q.call_fd, fd)
        if self.q.started:
            self._interrupt(self.q.call_fd)     # what was answered before is told of again

    def set_err(self, queue, fd):
        if fd >= 0:
            event_descriptor(fd, f"error descriptor of queue {queue}")
        self.q.err_fd = exchanged(self.q.err_fd, fd)

    cdef void _interrupt(self, int fd) noexcept:
        if fd >= 0:
            signal_eventfd(fd)

    def start(self, queue):
        cdef virtqueue_t *q = &self.q
        if q.started:
            return
        if q.size == 0:
            raise ConfigError(f"queue {queue} has no size yet")
        if q.packed and q.last_avail >= q.size:
            raise ConfigError(f"queue {queue}: it cannot begin at index {q.last_avail} of {q.size}")
        locate(self.memory.c, q)
        if q.desc == NULL:
            raise ConfigError(f"queue {queue}: its ring is outside the guest's memory, or not aligned")
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
        return {"size": q.size, "started": bool(q.started), "enabled": bool(q.enabled),
                "ready": bool(self.ready and q.desc != NULL), "avail": q.last_avail, "used": q.used,
                "frames": q.frames, "calls": q.calls, "packed": bool(q.packed)}

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
        cdef command_t c
        cdef uint32_t fault = FAULT_NONE
        cdef bint available
        if not self.ready or self._context() == NULL:
            return None
        locate(self.memory.c, q)
        if q.desc == NULL:
            return None
        data = b""
        c.chain.found = 0
        available = self._await()
        if available and not q.packed and split_available(q) == BEYOND_RING:
            fault = FAULT_AVAIL
            c.chain.found = q.seen_avail
        elif available:
            fault = read_command(self.memory.c, q, &c)
            if not fault and c.len <= <uint32_t>MAX_COMMAND:
                data = self._gather(&c)
        if fault or load_u32(&self.memory.c.gone):      # then what was read are zeros of ours
            self._stop_context(fault, c.chain.found)
            available = False
        if not available:
            return None
        self.ack = <uint8_t *>c.chain.piece[c.readable].data
        self.id = c.chain.id
        self.slots = c.chain.slots
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

    cdef bytes _gather(self, command_t *c):
        cdef bytearray data = bytearray(c.len)
        cdef uint8_t[::1] to = data
        cdef uint32_t i, at = 0
        for i in range(c.readable):
            memcpy(&to[at], c.chain.piece[i].data, c.chain.piece[i].len)
            at += c.chain.piece[i].len
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
        call(q, cycles())

    # --- faults -------------------------------------------------------------------------------------------

    cdef context_t *_context(self) noexcept:
        """The context while it runs for this guest, or NULL."""
        cdef context_t *context = &self.nic.c.context[self.index]
        if context.virtio == NULL or context.virtio.memory != self.memory.c:
            return NULL
        return context if context.state == CONTEXT_RUNNING else NULL

    cdef _stop_context(self, uint32_t fault, uint32_t found):
        with self.nic.quiesced():
            if self._context() != NULL:
                stop_guest(self.nic.c, self._context(), &self.q, RING_CONTROL, fault, found)
        self._interrupt(self.q.err_fd)
