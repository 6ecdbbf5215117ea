"""The NIC's control plane: contexts set up, started and stopped, and what they counted.

Each method that changes what the engine reads has it stand still meanwhile (engine_thread.pyx).
"""
# build: control

import os
from operator import index as whole_number

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport (
    CONTEXT_ASSIGNED, CONTEXT_FAULTED, CONTEXT_FREE, CONTEXT_RUNNING, MAX_CONTEXTS, MAX_FRAME, MAX_TSO_FRAME,
    PAGE_SIZE, PROTECTION_TABLE, VNET_HEADER, completion_t, context_page_t, desc_t,
)
from cdna.cpu cimport load_u32
from cdna.memory cimport Memory, SharedRegion
from cdna.nic.account cimport QUANTUM_NS, SLICE_NS, SUSPECT_NS, count_bytes
from cdna.nic.context cimport (
    MEMORY_GUEST_TABLE, NO_LIMIT, RINGS_NATIVE, RINGS_NONE, RINGS_VIRTIO, VLAN_TRUNK, context_t,
    memory_of, progress_t, ring_t, stats_t,
)
from cdna.nic.context_memory cimport ContextMemory
from cdna.nic.demux cimport MAC_MASK, enter_mac
from cdna.nic.engine_thread cimport EngineThread
from cdna.nic.irq_ring cimport irq_ring_t
from cdna.nic.learn cimport LEARNED_SPARE, WAYS, forget_learned, forget_own
from cdna.nic.mac_table cimport LEARNED, VLAN_SHIFT, learned_t, mac_entry_t
from cdna.nic.offload.fragment_id cimport FRAGMENT_SECRET, begin_fragment_ids
from cdna.nic.offload.segmentation cimport segmentation_t
from cdna.nic.serving cimport begin_serving, end_serving, set_state
from cdna.nic.state cimport PACKET_BUFFER, nic_t
from cdna.nic.wire cimport Wire, cycles_per_second
from cdna.sanitizer cimport forbid

from cdna.errors import ConfigError
from cdna.nic.limits import check_coalesce, check_ring_size

import numpy as np

VECTORS = 256               # slots of the interrupt vector buffer
LEARN_AGE = 300.0           # seconds, as IEEE 802.1Q, 8.8.3 recommends
LEARN_HOLD = 10.0           # seconds
_STATS = np.dtype([(name, "u8") for name in (
    "tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "tx_local", "tx_drop_spoof", "tx_drop_vlan",
    "tx_drop_link", "tx_drop_filter", "tx_drop_invalid", "tx_drop_mtu", "tx_drop_storm", "tx_unflooded",
    "tx_unlearned", "rx_drop_no_buffer", "rx_drop_no_driver", "rx_drop_link", "rx_drop_mtu",
    "rx_drop_stopped", "rx_own_source", "interrupts", "doorbells", "faults")])
assert _STATS.itemsize == sizeof(stats_t)


cdef inline bint _has_address(const context_t *context, uint64_t mac, uint16_t vlan) noexcept:
    """Whether this is the context's own address in a VLAN; in any, where it or `vlan` is VLAN_TRUNK."""
    return context.state != CONTEXT_FREE and context.mac == mac and (
        context.vlan == vlan or context.vlan == VLAN_TRUNK or vlan == VLAN_TRUNK)


cdef class _Layout:
    """Hands out cache-line aligned parts of a region, a line apart; what is between them nobody may touch."""
    cdef uint8_t *at

    cdef void *take(self, size_t size) noexcept:
        cdef uint8_t *part = self.at
        self.at += ((size + 63) & ~<size_t>63) + 64
        forbid(part + size, self.at - part - size)
        return part


cdef class Nic(EngineThread):
    """A NIC of `contexts` contexts on a wire.

    max_ring: the longest descriptor ring that a context can have, a power of two.
    interrupt_frames, interrupt_us: moderation of a context that sets none of its own: it is reported after so
    many completed descriptors, or microseconds after the first.
    """

    def __init__(self, Memory memory, Wire wire, contexts=32, *, max_ring=1024,
                 interrupt_frames=64, interrupt_us=20.0):
        if not 1 <= whole_number(contexts) <= MAX_CONTEXTS:
            raise ConfigError(f"{contexts} contexts: give from 1 to {<int>MAX_CONTEXTS}")
        check_ring_size("max_ring", max_ring)
        self.memory = memory
        self.wire = wire
        self.contexts = contexts
        self.moderation = check_coalesce((interrupt_frames, interrupt_us))
        self.max_ring = max_ring
        self._io_tables = {}
        self._buffers = []
        self._allocate()
        cdef nic_t *nic = self.c
        nic.memory = memory.c
        nic.wire = wire.c
        nic.link = load_u32(&wire.c.link)
        nic.yields = len(os.sched_getaffinity(0)) < 2
        nic.irq.event_fd = -1
        nic.wake_fd = -1
        nic.epoll_fd = -1
        nic.cycles_per_ns = cycles_per_second() * 1e-9
        nic.quantum = <uint64_t>(QUANTUM_NS * nic.cycles_per_ns)
        nic.slice_limit = <uint64_t>(SLICE_NS * nic.cycles_per_ns)
        nic.suspect = <uint64_t>(SUSPECT_NS * nic.cycles_per_ns)
        count_bytes(nic)
        self.set_learning(LEARN_AGE, LEARN_HOLD)

    def _allocate(self):
        cdef uint32_t n = self.contexts, words = (n + 63) // 64, macs = 8
        while macs < 4 * n:
            macs *= 2
        cdef size_t vectors = <size_t>VECTORS * words * 8
        self._state = SharedRegion(
            sizeof(nic_t) + n * (sizeof(context_t) + sizeof(progress_t)) + 12 * (words * 8 + 64)
            + 2 * macs * sizeof(mac_entry_t)
            + sizeof(irq_ring_t) + vectors + sizeof(segmentation_t) + 65536)
        cdef _Layout part = _Layout()
        part.at = self._state.base
        cdef nic_t *nic = <nic_t *>part.take(sizeof(nic_t))
        self.c = nic
        nic.context = <context_t *>part.take(n * sizeof(context_t))
        nic.progress = <progress_t *>part.take(n * sizeof(progress_t))
        nic.contexts = n
        nic.words = words
        nic.doorbell = <uint64_t *>part.take(words * 8)
        nic.tx_active = <uint64_t *>part.take(words * 8)
        nic.polled = <uint64_t *>part.take(words * 8)
        nic.dirty = <uint64_t *>part.take(words * 8)
        nic.unreported = <uint64_t *>part.take(words * 8)
        nic.updated = <uint64_t *>part.take(words * 8)
        nic.enabled = <uint64_t *>part.take(words * 8)
        nic.running = <uint64_t *>part.take(words * 8)
        nic.virtio = <uint64_t *>part.take(words * 8)
        nic.virtio_used = <uint64_t *>part.take(words * 8)
        nic.debtors = <uint64_t *>part.take(words * 8)
        nic.promiscuous = <uint64_t *>part.take(words * 8)
        nic.mac_table = <mac_entry_t *>part.take(macs * sizeof(mac_entry_t))
        nic.own_table = <mac_entry_t *>part.take(macs * sizeof(mac_entry_t))
        nic.mac_mask = macs - 1
        self._allocate_learned()
        nic.irq = <irq_ring_t *>part.take(sizeof(irq_ring_t))
        nic.irq.vector = <uint64_t *>part.take(vectors)
        nic.irq.slots = VECTORS
        nic.irq.words = words
        nic.packet_buffer = self._buffer(PACKET_BUFFER)
        nic.segment_buffer = self._buffer(MAX_TSO_FRAME + VNET_HEADER + 64)
        nic.tso = part.take(sizeof(segmentation_t))
        begin_fragment_ids(&nic.fragment_ids, os.urandom(<int>FRAGMENT_SECRET))
        nic.tso_frame = self._buffer(MAX_FRAME + 64)
        nic.rx_frame = self._buffer(MAX_FRAME + 64)
        nic.flood.frame = self._buffer(MAX_FRAME + 64)
        self._pages = ContextMemory(n, self.max_ring)
        cdef uint32_t i
        for i in range(n):
            nic.context[i].index = i
            nic.context[i].page = <context_page_t *>self._pages.page(i)

    def _allocate_learned(self):
        """Room for the addresses behind all contexts; what is not used takes no memory."""
        cdef int bits = (<int>LEARNED * <int>LEARNED_SPARE // <int>WAYS * self.contexts - 1).bit_length()
        self._learned = SharedRegion((<size_t>1 << bits) * WAYS * sizeof(learned_t))
        self.c.learned = <learned_t *>self._learned.base
        self.c.learn_shift = 64 - bits
        self.c.learn_secret = int.from_bytes(os.urandom(8), "little") | 1

    cdef uint8_t *_buffer(self, size_t size) except NULL:
        """Room for frames, cache-line aligned, that ends where nobody may touch anything."""
        cdef SharedRegion region = SharedRegion(size)
        self._buffers.append(region)
        return region.base + (region.size - size & ~<size_t>63)

    # --- contexts -----------------------------------------------------------------------------------------

    def configure(self, uint32_t index, *, uint32_t owner, uint32_t protection, bytes mac, int tx_ring,
                  int rx_ring, uint64_t seq_modulus, uint32_t io_pages, bint polled, bint vnet_header=False,
                  uint16_t vlan=0):
        """Gives a free context its owner, address, VLAN and empty rings. Called by the VMM."""
        cdef context_t *context = self._context(index)
        check_ring_size("tx_ring", tx_ring, self.max_ring)
        check_ring_size("rx_ring", rx_ring, self.max_ring)
        longest = max(tx_ring, rx_ring)
        if seq_modulus & (seq_modulus - 1) or not 2 * longest <= seq_modulus <= 1 << 32:
            raise ConfigError(f"seq_modulus {seq_modulus}: give a power of two from {2 * longest} to 2**32")
        self._check_mac(mac, vlan, index, protection == PROTECTION_TABLE)
        with self.quiesced(index):
            if context.state != CONTEXT_FREE:
                raise ConfigError(f"context {index} is taken by domain {context.owner}: revoke it first")
            self._clear(context)
            context.owner = owner
            context.protection = protection
            context.memory = memory_of(protection)
            context.rings = RINGS_NONE if protection == PROTECTION_TABLE else RINGS_NATIVE
            context.mac = int.from_bytes(mac, "little")
            context.vlan = vlan
            context.anti_spoof = 1
            context.longest = NO_LIMIT
            context.weight = 1
            context.polled = polled
            context.vnet_header = vnet_header
            self._set_rings(context, tx_ring, rx_ring, <uint32_t>(seq_modulus - 1))
            if io_pages:
                table = SharedRegion(<size_t>io_pages * 8)
                self._io_tables[index] = table
                context.io_page = <uint64_t *>(<SharedRegion>table).base
                context.io_pages = io_pages
            set_state(self.c, context, CONTEXT_ASSIGNED)
            context.page.link = self.c.link     # as everybody else sees it; the engine changes it for all
            self.set_option(index, "coalesce", self.moderation)
            self._rebuild_mac_table()

    cdef _clear(self, context_t *context):
        cdef uint32_t index = context.index
        cdef context_page_t *page = context.page
        self._pages.take_back(index)        # the process that maps it keeps only the old page
        memset(context, 0, sizeof(context_t))
        memset(&self.c.progress[index], 0, sizeof(progress_t))
        memset(page, 0, self._pages.extent)
        context.index = index
        context.page = page
        self._io_tables.pop(index, None)

    cdef _set_rings(self, context_t *context, uint32_t tx_ring, uint32_t rx_ring, uint32_t seq_mask):
        cdef uint8_t *at = <uint8_t *>context.page + PAGE_SIZE
        context.tx.desc = <desc_t *>at
        context.rx.desc = <desc_t *>(at + self.max_ring * sizeof(desc_t))
        context.rx.completion = <completion_t *>(at + 2 * self.max_ring * sizeof(desc_t))
        context.tx.size, context.rx.size = tx_ring, rx_ring
        context.tx.seq_mask = context.rx.seq_mask = seq_mask
        context.tx.seq = context.rx.seq = 1     # a slot that was never written carries 0

    def start(self, uint32_t index):
        """Lets the NIC serve an assigned context."""
        cdef context_t *context = self._context(index)
        with self.quiesced(index):
            if context.state != CONTEXT_ASSIGNED:
                raise ConfigError(f"context {index} is not in the state assigned")
            set_state(self.c, context, CONTEXT_RUNNING)
            begin_serving(self.c, context)

    def revive(self, uint32_t index):
        """Serves a context again that was stopped by a fault of a virtio guest; others begin anew instead."""
        cdef context_t *context = self._context(index)
        with self.quiesced(index):
            if context.state == CONTEXT_FAULTED and context.rings == RINGS_VIRTIO:
                context.fault = 0
                context.page.fault = 0
                set_state(self.c, context, CONTEXT_RUNNING)
                begin_serving(self.c, context)

    def release(self, uint32_t index):
        """Stops serving a context and forgets it, at once; what it had posted is never touched again."""
        cdef context_t *context = self._context(index)
        with self.quiesced(index):
            end_serving(self.c, context)
            self._clear(context)
            self._rebuild_mac_table()

    def halt(self, uint32_t index):
        """Stops serving a context; its rings stay readable for the VMM until `release`."""
        cdef context_t *context = self._context(index)
        with self.quiesced(index):
            end_serving(self.c, context)
            set_state(self.c, context, CONTEXT_ASSIGNED)
            self._rebuild_mac_table()

    def mac_taken(self, bytes mac, uint16_t vlan=VLAN_TRUNK) -> bool:
        """Whether some context has this address in this VLAN; of VLAN_TRUNK: in any."""
        cdef uint64_t wanted = int.from_bytes(mac, "little")
        cdef uint32_t i
        for i in range(self.c.contexts):
            if _has_address(&self.c.context[i], wanted, vlan):
                return True
        return False

    def _check_mac(self, bytes mac, uint16_t vlan, uint32_t index, bint table=False):
        """table: for a guest with a memory table, several of which may have one address."""
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise ConfigError(f"MAC address {mac.hex(':')}: give six bytes of a unicast address, "
                              f"for example 02:00:00:00:00:01")
        cdef uint64_t wanted = int.from_bytes(mac, "little")
        cdef uint32_t i
        for i in range(self.c.contexts):
            if i == index or not _has_address(&self.c.context[i], wanted, vlan):
                continue
            # A guest that migrates has a context of its address at both ends, and runs at one of them.
            if not (table and self.c.context[i].memory == MEMORY_GUEST_TABLE):
                raise ConfigError(
                    f"MAC address {mac.hex(':')} is context {i}'s already: give each context its own")

    cdef void _rebuild_mac_table(self) noexcept:
        """Fills the table anew from the contexts; the engine stands still.

        A virtio guest is found while it has a receive queue: before and after that it may be elsewhere.
        """
        cdef nic_t *nic = self.c
        cdef context_t *context
        cdef uint32_t i
        memset(nic.mac_table, 0, (nic.mac_mask + 1) * sizeof(mac_entry_t))
        memset(nic.own_table, 0, (nic.mac_mask + 1) * sizeof(mac_entry_t))
        nic.n_trunks = 0
        for i in range(nic.contexts):
            context = &nic.context[i]
            if context.state == CONTEXT_FREE:
                continue
            nic.n_trunks += context.vlan == VLAN_TRUNK
            enter_mac(nic, nic.own_table, context)
            if context.rings == RINGS_NATIVE or context.present:
                enter_mac(nic, nic.mac_table, context)
        if nic.n_learned:
            forget_own(nic)

    # --- addresses behind the guests ----------------------------------------------------------------------

    def set_learning(self, double age, double hold):
        """Seconds after which an address that was learned is forgotten, and may be learned elsewhere."""
        with self.quiesced():
            self.c.learn_age = <uint64_t>(age * cycles_per_second())
            self.c.learn_hold = <uint64_t>(hold * cycles_per_second())

    def learned(self, uint32_t index) -> list:
        """The addresses that were learned behind a context, with their VLANs, and not forgotten: pairs."""
        cdef context_t *context = self._context(index)
        cdef const learned_t *entry
        cdef uint32_t i
        found = []
        with self.quiesced(index):
            for i in range(context.learned):
                entry = &self.c.learned[context.learned_at[i]]
                if not entry.on_wire and self.c.now - entry.seen <= self.c.learn_age:
                    mac = int(entry.key & MAC_MASK).to_bytes(6, "little")
                    found.append((mac, int(entry.key >> VLAN_SHIFT & 0xFFF)))
        return found

    cdef _forget_learned(self, uint32_t index):
        forget_learned(self.c, self._context(index))

    # --- options ------------------------------------------------------------------------------------------

    def set_option(self, uint32_t index, str name, value):
        """Sets one of the options below, from mac to coalesce; `ContextSettings` describes them."""
        cdef context_t *context = self._context(index)
        from cdna.nic import options     # which needs this module

        setter = options.OPTIONS.get(name)
        if setter is None:
            raise ConfigError(f"context option {name!r}: give one of {', '.join(options.OPTIONS)}")
        with self.quiesced(index):
            if context.state == CONTEXT_FREE:
                raise ConfigError(f"context {index} is not assigned")
            setter(self, index, value)

    def info(self, uint32_t index) -> dict:
        """State, settings and fault of a context."""
        cdef context_t *context = self._context(index)
        return {
            "state": context.state, "owner": context.owner, "protection": context.protection,
            "mac": int(context.mac).to_bytes(6, "little"), "vlan": context.vlan, "weight": context.weight,
            "anti_spoof": bool(context.anti_spoof), "promiscuous": bool(context.promiscuous),
            "tx": _ring_info(&context.tx), "rx": _ring_info(&context.rx),
            "fault": context.fault, "fault_ring": context.fault_ring, "fault_index": context.fault_index,
            "fault_expected": context.fault_expected, "fault_found": context.fault_found,
        }

    def stats(self, uint32_t index) -> dict:
        """Counters of a context since it was assigned: frames, bytes, drops by reason, interrupts."""
        cdef context_t *context = self._context(index)
        cdef uint8_t[::1] raw = <uint8_t[:sizeof(stats_t)]><uint8_t *>&context.stats
        values = np.frombuffer(bytes(raw), _STATS)[0]
        return {name: int(values[name]) for name in _STATS.names}

    # --- what a guest maps --------------------------------------------------------------------------------

    def page_view(self, uint32_t index):
        """The context page, as bytes without a copy."""
        self._context(index)
        return self._pages.view(index, 0, PAGE_SIZE)

    def rings_view(self, uint32_t index):
        """The rings behind the page: transmit, receive, completions, each `max_ring` long."""
        self._context(index)
        return self._pages.view(index, PAGE_SIZE, self._pages.extent - PAGE_SIZE)

    def export(self, uint32_t index, bint writable_rings):
        """Moves a context's page and its rings to memory files of their own, for a guest in another process.

        Returns (page fd, rings fd); both belong to the NIC. The rings' file cannot be mapped writable unless
        `writable_rings`. Neither can change size.
        """
        self._context(index)
        with self.quiesced(index):
            return self._pages.export(index, writable_rings)


cdef _ring_info(const ring_t *ring):
    return {"size": ring.size, "producer": ring.producer, "consumer": ring.consumer, "seq": ring.seq}
