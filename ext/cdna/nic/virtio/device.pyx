"""virtio-net as a device (virtio 1.2, 5.1): the rings of one context's guest, as a frontend sets them up.

Everything here is control, and changes nothing while the engine runs: each method has it stand still. What
the engine does with rings is in `queue.pxd`, `tx.pxd`, `rx.pxd` and `notify.pxd`; what is asked
of one ring, and of all of them, is in `queue_setup.pxd` and `device_setup.pxd`.

      set_size, set_addresses, set_base          start            enable
    ------------------------------------> known ------> started --------> ready: the engine serves it
                                                <------          <--------
                                            stop, reset          enable(False), an address outside the memory
"""
# build: explored

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cdna.abi cimport CONTEXT_FREE
from cdna.checks cimport CHECK_INFLIGHT_SIZE, CHECK_OFFLOADS_ACCEPTED, broken
from cdna.epoll cimport EPOLL_CTL_DEL, EPOLLET, EPOLLIN, epoll_ctl, watch
from cdna.nic.context cimport MEMORY_GUEST_TABLE, RINGS_NONE, RINGS_VIRTIO, context_t
from cdna.nic.device cimport Nic
from cdna.nic.loop_events cimport KICK
from cdna.nic.offload.flow_hash cimport toeplitz_t
from cdna.nic.virtio.device_setup cimport (
    accept_features, has_feature, held_descriptors, receive_on, select_rings, send_rarp, serve_rings,
    steer_by_hash,
)
from cdna.nic.virtio.inflight cimport inflight_bytes, place_inflight, resume
from cdna.nic.virtio.mapping cimport GuestMapping
from cdna.nic.virtio.queue cimport virtio_t, virtqueue_t
from cdna.nic.virtio.queue_setup cimport (
    forget_ring, locate, locate_ring, located, position, ring_info, set_ring_addresses, set_ring_base,
    set_ring_size,
)
from cdna.nic.virtio.signaller cimport Signaller, signal_later, signaller_of
from cdna.nic.virtio.slow_signals cimport ERRORS
from cdna.virtio cimport VIRTIO_MAX_PAIRS, VIRTIO_MAX_RING

from cdna.errors import ConfigError, whole
from cdna.nic.event_fd import event_descriptor, exchanged, signal_descriptor
from cdna.nic.virtio.features import GUEST_OFFLOADS, takes_of
from cdna.nic.virtio.mapping import Region
from cdna.virtio import Feature

__all__ = ["Region", "VirtioDevice"]


cdef class VirtioDevice:
    """The device side of the context `index`, which the VMM has assigned with the protection "table".

    pairs: how many receive and transmit queues it can have. Queue 2i is receiveq(i + 1), 2i + 1 is
    transmitq(i + 1) (5.1.2). lent: see `GuestMapping`.
    Errors of every method: ConfigError, and nothing has changed.
    """

    cdef virtio_t *c
    cdef Nic nic
    cdef readonly GuestMapping memory
    cdef readonly int index
    cdef readonly int pairs
    cdef bint closed
    cdef Signaller _signals
    cdef object _inflight       # (queues, queue size) of the inflight area, or None

    def __cinit__(self):
        self.c = <virtio_t *>calloc(1, sizeof(virtio_t))
        if self.c == NULL:
            raise MemoryError
        self.c.rss.key = calloc(1, sizeof(toeplitz_t))
        if self.c.rss.key == NULL:
            raise MemoryError
        self.closed = True

    def __init__(self, Nic nic, index, *, pairs=1, lent=None):
        cdef context_t *context = nic._context(index)
        self.nic = nic
        self.index = index
        self.pairs = whole("queue pairs", pairs, 1, VIRTIO_MAX_PAIRS)
        self.memory = GuestMapping(lent)
        cdef virtio_t *v = self.c
        v.pairs = pairs
        receive_on(v, pairs)
        v.memory = self.memory.c
        v.link = 1
        for i in range(2 * pairs):
            self._forget(i)
        self._signals = signaller_of(nic)
        with nic.quiesced(index):
            if context.memory != MEMORY_GUEST_TABLE or context.state == CONTEXT_FREE:
                raise ConfigError(f"context {index} for a virtio guest: assign it with protection 'table'")
            if context.rings != RINGS_NONE:
                raise ConfigError(f"context {index} has a virtio device already")
            context.virtio = v
            context.rings = RINGS_VIRTIO
            self.closed = False
            self._accept(0)
            nic.afterwards(self._signals.enter)

    cdef virtqueue_t *_queue(self, queue) except NULL:
        if self.closed:
            raise ConfigError(f"the virtio device of context {self.index} was closed")
        return &self.c.queue[<int>whole("queue", queue, 0, 2 * self.pairs - 1)]

    cdef context_t *_context(self) noexcept:
        """The context, or NULL when it was revoked meanwhile and may be somebody else's."""
        cdef context_t *context = &self.nic.c.context[self.index]
        return context if context.virtio == self.c else NULL

    @property
    def queues(self) -> int:
        return 2 * self.pairs

    # --- memory -------------------------------------------------------------------------------------------

    def set_memory(self, regions):
        """The guest's memory is these `Region`s from now on; rings outside of it stop to be served."""
        mapped = self.memory.mapped(regions)
        with self.nic.quiesced(self.index):
            self.memory.replace(mapped)
            self._look_up()
            self.nic.afterwards(self.memory.unmap_left)

    def add_region(self, region):
        mapped = self.memory.mapped_beside(region)
        with self.nic.quiesced(self.index):
            self.memory.add(mapped)
            self._look_up()

    def remove_region(self, guest_addr, size, user_addr):
        """Takes the region away that has these addresses and this size in bytes."""
        with self.nic.quiesced(self.index):
            self.memory.remove(guest_addr, size, user_addr)
            self._look_up()
            self.nic.afterwards(self.memory.unmap_left)

    def set_log(self, fd, size, offset):
        """Logs the pages written from now on in this file, a bit a page; fd -1: no more."""
        with self.nic.quiesced(self.index):
            self.memory.set_log(fd, size, offset)
            self.nic.afterwards(self.memory.unmap_left)

    def set_inflight(self, fd, size, offset, queues, queue_size):
        """Keeps what a device that takes over has to know in this file (GET_INFLIGHT_FD); fd -1: no more."""
        with self.nic.quiesced(self.index):
            if fd >= 0:
                whole("inflight queues", queues, 1, 2 * self.pairs)
                whole("inflight queue size", queue_size, 1, VIRTIO_MAX_RING)
                if broken(CHECK_INFLIGHT_SIZE, size < queues * self._inflight_bytes(queue_size)):
                    raise ConfigError(f"inflight area of {size} bytes: {queues} queues of {queue_size} need "
                                      f"{queues * self._inflight_bytes(queue_size)}")
            self.memory.map_inflight(fd, size, offset)
            self.nic.afterwards(self.memory.unmap_left)
            self._inflight = (queues, queue_size) if fd >= 0 else None
            for i in range(2 * self.pairs):
                self._place_inflight(i)

    cdef uint64_t _inflight_bytes(self, uint64_t queue_size) noexcept:
        return inflight_bytes(queue_size, has_feature(self.c.features, Feature.VIRTIO_F_RING_PACKED))

    cdef _place_inflight(self, int queue):
        """Finds a queue's part of the area, where it has one: it may be for rings of the other format."""
        cdef virtqueue_t *q = &self.c.queue[queue]
        q.inflight = NULL
        if self._inflight is not None:
            queues, queue_size = self._inflight
            place_inflight(self.c.memory, q, queue, queues, queue_size, self._inflight_bytes(queue_size))

    # --- features -----------------------------------------------------------------------------------------

    @property
    def features(self) -> int:
        """What the driver accepted, a bit a feature (`cdna.virtio.Feature`)."""
        return self.c.features

    def set_features(self, features):
        """What the driver accepted; the rings' format is settled by it before they are started."""
        with self.nic.quiesced(self.index):
            self._accept(whole("features", features, 0, (1 << 64) - 1))

    cdef _accept(self, uint64_t features):
        accept_features(self.c, features)
        self._take(features)

    cdef _take(self, uint64_t offloads):
        """What may be left to do in frames for the guest."""
        cdef uint32_t takes = takes_of(offloads)
        self.c.checksums = takes != 0
        if self._context() != NULL:
            self._context().takes = takes

    def set_offloads(self, offloads):
        """Those of the accepted GUEST_ features that count from now on, by their bits (5.1.6.5.8)."""
        offloads = whole("offloads", offloads, 0, (1 << 64) - 1)
        if broken(CHECK_OFFLOADS_ACCEPTED, offloads & ~(self.features & GUEST_OFFLOADS) != 0):
            raise ConfigError(f"offloads {offloads:#x}: not all of them were accepted as features")
        with self.nic.quiesced(self.index):
            self._take(offloads)

    # --- rings --------------------------------------------------------------------------------------------

    def set_size(self, queue, size):
        """Descriptors of a ring: of a split one a power of two."""
        set_ring_size(self._queue(queue), queue, size)

    def set_addresses(self, queue, desc, driver, device, log=None):
        """Where a ring's parts are, in the frontend's address space, bytes.

        driver, device: the areas of the two sides, of a split ring avail and used. log: guest address of the
        used ring where writes to it are to be logged. A started ring may move while its contents stay.
        """
        cdef virtqueue_t *q = self._queue(queue)
        with self.nic.quiesced(self.index):
            set_ring_addresses(self.c.memory, q, queue, desc, driver, device, log)
            self._refresh()
            if q.started:
                located(q, queue)

    def set_base(self, queue, base):
        """Where to begin: an index of a split ring, of a packed one what `stop` returns."""
        set_ring_base(self._queue(queue), queue, base)

    def set_kick(self, queue, fd):
        """The descriptor by which the driver says that buffers are available; taken over. -1: none."""
        cdef virtqueue_t *q = self._queue(queue)
        if fd >= 0:
            event_descriptor(fd, f"kick descriptor of queue {queue}")
        with self.nic.quiesced(self.index):
            self._unwatch(q)
            q.kick_fd = exchanged(q.kick_fd, fd)
            self._watch(q)

    def set_call(self, queue, fd):
        """The descriptor by which the driver is told of used buffers; taken over. -1: none, it polls."""
        cdef virtqueue_t *q = self._queue(queue)
        if fd >= 0:
            signal_descriptor(fd, f"call descriptor of queue {queue}")
        with self.nic.quiesced(self.index):
            self._signals.forget(self.nic, self.index, queue, q.call_fd)
            q.call_fd = fd
            if q.ready:
                signal_later(self.nic, q.call_fd)  # what was used before is told of again

    def set_err(self, queue, fd):
        """The descriptor by which the frontend is told that its context was stopped; taken over. -1: none."""
        cdef virtqueue_t *q = self._queue(queue)
        if fd >= 0:
            signal_descriptor(fd, f"error descriptor of queue {queue}")
        with self.nic.quiesced(self.index):
            self._signals.forget(self.nic, self.index, <int>ERRORS + queue, q.err_fd)
            q.err_fd = fd

    cdef _watch(self, virtqueue_t *q):
        if q.started and q.kick_fd >= 0 and self.nic.c.epoll_fd >= 0:
            watch(self.nic.c.epoll_fd, q.kick_fd, KICK, EPOLLIN | EPOLLET)

    cdef _unwatch(self, virtqueue_t *q):
        if q.kick_fd >= 0 and self.nic.c.epoll_fd >= 0:
            epoll_ctl(self.nic.c.epoll_fd, EPOLL_CTL_DEL, q.kick_fd, NULL)

    def start(self, queue):
        """Begins to serve a ring, as soon as it is enabled too. It needs a size, and addresses in memory."""
        cdef virtqueue_t *q = self._queue(queue)
        if q.started:
            return
        with self.nic.quiesced(self.index):
            locate_ring(self.c.memory, q, queue)
            self._place_inflight(queue)
            resume(q)
            signal_later(self.nic, q.call_fd)   # what was used and perhaps not told
            q.started = 1
            self._watch(q)
            self._refresh()

    def stop(self, queue) -> int:
        """Stops serving a ring. Returns its base (GET_VRING_BASE): what `set_base` takes."""
        cdef virtqueue_t *q = self._queue(queue)
        with self.nic.quiesced(self.index):
            if q.started:
                q.started = 0
                if q.inflight != NULL:
                    q.inflight.version = 0      # the base that is returned holds from now on
                self._unwatch(q)
                if q.unsignalled:       # moderation held it back
                    signal_later(self.nic, q.call_fd)
                self._refresh()
                if not any(self.c.queue[i].started for i in range(2 * self.pairs)):
                    self._revive()
        return position(q)

    def enable(self, queue, on):
        """Lets frames through a started ring, or not."""
        cdef virtqueue_t *q = self._queue(queue)
        with self.nic.quiesced(self.index):
            q.enabled = bool(on)
            self._refresh()

    def set_pairs(self, pairs):
        """Receives on the first so many pairs only (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 5.1.6.5.5)."""
        with self.nic.quiesced(self.index):
            receive_on(self.c, whole("queue pairs", pairs, 1, self.pairs))
            self._refresh()

    def set_rss(self, types, key, table, unclassified):
        """Distributes received frames as the driver says (VIRTIO_NET_CTRL_MQ_RSS_CONFIG, 5.1.6.5.7.1).

        types: a sum of HashType. key: 40 bytes. table: receive queues, counted from 0, a power of two of
        them, up to 128. unclassified: the queue of frames that have no hash.
        """
        with self.nic.quiesced(self.index):
            steer_by_hash(self.c, types, key, table, unclassified)
            self._refresh()

    # --- addresses ----------------------------------------------------------------------------------------

    cdef _look_up(self):
        for i in range(2 * self.pairs):
            locate(self.c.memory, &self.c.queue[i])
        self._refresh()

    cdef _refresh(self):
        """Has the engine serve the rings that are ready, and only those."""
        cdef virtio_t *v = self.c
        cdef context_t *context = self._context()
        select_rings(v)
        if context == NULL:
            return
        if context.present != (v.receiving != 0):
            context.present = v.receiving != 0
            if not context.present:
                self.nic._forget_learned(self.index)
            self.nic._rebuild_mac_table()
        serve_rings(self.nic.c, context)

    # --- the rest -----------------------------------------------------------------------------------------

    def set_link(self, up):
        """Unplugs the guest's cable: frames for it are dropped and counted, its own wait in the rings."""
        with self.nic.quiesced(self.index):
            self.c.link = bool(up)

    def announce(self, mac):
        """Tells every switch where the guest is (RARP, RFC 903), within its rate, while its link is up."""
        with self.nic.quiesced(self.index):
            if self._context() != NULL and self.c.link:
                send_rarp(self.nic.c, self._context(), mac)

    @property
    def descriptors(self) -> int:
        """How many of the frontend's its rings have."""
        return held_descriptors(self.c)

    def info(self, queue) -> dict:
        """State of a ring, and how many buffers it has used and interrupts it has sent."""
        cdef virtqueue_t *q = self._queue(queue)
        return ring_info(q, q.ready)

    def reset(self):
        """As after its creation, but for memory and link: rings forgotten, no features, a fault forgiven."""
        with self.nic.quiesced(self.index):
            if self.closed:
                return
            for i in range(2 * self.pairs):
                self._forget(i)
            receive_on(self.c, self.pairs)
            self._accept(0)
            self._refresh()
            self._revive()

    cdef _forget(self, int queue):
        cdef virtqueue_t *q = &self.c.queue[queue]
        if self.memory is not None and not self.closed:
            self._unwatch(q)
            exchanged(q.kick_fd, -1)
            self._signals.forget(self.nic, self.index, queue, q.call_fd)
            self._signals.forget(self.nic, self.index, <int>ERRORS + queue, q.err_fd)
        forget_ring(q)

    cdef _revive(self):
        self.c.told = 0
        if self._context() != NULL:
            self.nic.revive(self.index)

    def close(self):
        """Takes the device off its context and gives everything back. Closing twice is harmless."""
        if self.closed:
            return
        with self.nic.quiesced(self.index):
            self.reset()
            self.closed = True
            if self._context() != NULL:     # `reset` has made it absent
                self._context().rings = RINGS_NONE
                self._context().virtio = NULL
            self.memory.close()
            self.nic.afterwards(self._signals.leave)
            self.nic.afterwards(self.memory.unmap_left)

    def __dealloc__(self):
        if self.c != NULL:
            free(self.c.rss.key)
        free(self.c)
