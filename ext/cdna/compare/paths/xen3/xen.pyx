"""Xen 3 software bridging: built from its parts, connected, and registered with the host."""
# build: control

from libc.string cimport memset

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE, PROTECTION_NONE
from cdna.compare.paths.xen3.bridge cimport bridge_init, bridge_learn, bridge_t, fdb_entry_t
from cdna.compare.paths.xen3.event_channel cimport evtchn_alloc_unbound, evtchn_bind_interdomain
from cdna.compare.paths.xen3.grant_table cimport get_free_ref, gnttab_map, grant_foreign_access
from cdna.compare.paths.xen3.netback cimport (
    MAX_VIFS, NIC_BUFFER, NIC_PORT, NO_PACKET, PKT_PROT_LEN, netback_run, packet_t, pending_tx_t, vif_t,
)
from cdna.compare.paths.xen3.netfront cimport RX_MIN_TARGET, netfront_run
from cdna.compare.paths.xen3.netif cimport NETIF_RING_SIZE, shared_ring_init
from cdna.compare.paths.xen3.pseudo_physical cimport decrease_reservation, page_maddr, pfn_to_mfn
from cdna.compare.paths.xen3.public cimport (
    GNTMAP_host_map, GNTST_okay, INVALID_REF, gnttab_map_grant_ref_t, sring_t,
)
from cdna.compare.host cimport ACCOUNT_DRIVER_DOMAIN, ACCOUNT_GUESTS, Host, domain_t
from cdna.cpu cimport cycles
from cdna.nic.generator cimport GeneratorWire
from cdna.nic.wire cimport cycles_per_second

from cdna.errors import ConfigError, ResourceError
from cdna.nic.traffic import FrameError, mac_word

SPARE_PAGES = 1024          # of the driver domain, beyond the NIC's ring: frames that wait for guests
HEAP_PAGES = 512            # of the hypervisor, so that the first flips find a page
RX_PAGES = 320              # of a guest: a full ring of receive requests, and those being read
GRANT_ENTRIES = 1024        # of a guest: two pages of entries
AGEING_SECONDS = 300.0      # of the bridge, as Linux's
FDB_ENTRIES = 1024
FIRST_DOMID = 0x4000        # ids of the guests, far from those that the VMM gives out

_BAD = {8: "status", 9: "id", 10: "grant", 11: "chain"}


def _mac_bytes(mac):
    return int(mac).to_bytes(6, "little")


def _bad_name(kind):
    return _BAD.get(kind) or FrameError(kind).name.removeprefix("FRAME_").lower()


cdef class XenBridge:
    """Guests behind Xen 3's driver domain: netfront, netback, a learning bridge, and one NIC context.

    nic: the driver domain's queues (`LocalQueues`, nothing posted), its context assigned in protection mode
    `none`, promiscuous and without anti-spoof: frames carry the guests' addresses.
    memory: the machine. host: the comparison's host core, still empty: its domain 0 becomes the driver
    domain, domains 1 to `guests` the guests.
    domid: the domain id that owns the context.
    macs: the guests' addresses, peer: that of the other end of the wire; six bytes each.
    receive: "flip" or "copy". transmit: the guests send frames of `load` to `peer` while the host is in
    PHASE_LOAD. Frames of `load` that come from the wire are checked in any case, with flow i for guest i.
    pending: transmit requests that the driver domain handles at a time; Xen 3 has 256.
    targets: where the guests' frames go instead of to `peer`, an address for each guest. rx_flows: the flow
    that each guest expects instead of its own number.
    """

    def __init__(self, Memory memory not None, Host host not None, Queues nic not None, Load load not None, *,
                 int guests, list macs, bytes peer, uint32_t domid, bint transmit, str receive="flip",
                 uint32_t pending=1024, list targets=None, list rx_flows=None):
        cdef int i
        if not 1 <= guests <= MAX_VIFS:
            raise ConfigError(f"{guests} guests of the bridge: give 1 to {<int>MAX_VIFS}")
        if receive not in ("flip", "copy"):
            raise ConfigError(f"receive {receive!r}: give flip or copy")
        for name, values in (("macs", macs), ("targets", targets), ("rx_flows", rx_flows)):
            if values is not None and len(values) != guests:
                raise ConfigError(f"{len(values)} {name} for {guests} guests: give one for each")
        if len(set(macs) | {peer}) != guests + 1:
            raise ConfigError("a MAC address twice: give each guest and the peer its own")
        if nic.c.protection != PROTECTION_NONE:
            raise ConfigError("the driver domain's context has another protection mode: use none")
        if pending < 64 or pending > 16384:
            raise ConfigError(f"{pending} pending requests: give 64 to 16384")
        if nic.c.tx.size < 32:
            raise ConfigError(f"a transmit ring of {nic.c.tx.size} descriptors: give at least 32")
        self.guests = guests
        self.load = load
        self.flip = receive == "flip"
        self._nic = nic
        self._host = host
        self._domid = domid
        self._peer = mac_word(peer)
        self._macs = [mac_word(mac) for mac in macs]
        self.hypervisor = Hypervisor(memory, host, HEAP_PAGES)
        self._acks = <uint64_t *>self.hypervisor.share(guests * 64)
        self._build_driver_domain(pending)
        self._front = <netfront_t *>self.hypervisor.share(guests * sizeof(netfront_t))
        for i in range(guests):
            self._build_guest(i, transmit)
            self._front[i].tx_mac = mac_word(targets[i]) if targets is not None else self._peer
            self._front[i].rx_flow = rx_flows[i] if rx_flows is not None else i
            self._connect(i)
        self._register()
        nic.enable_interrupts(True)

    # --- the driver domain --------------------------------------------------------------------------------

    cdef uint32_t *_array(self, uint32_t size) except NULL:
        return <uint32_t *>self.hypervisor.share(size * sizeof(uint32_t))

    cdef uint32_t *_stack(self, uint32_t size, uint32_t first=0) except NULL:
        """A stack of the numbers first .. first + size - 1; `first` comes off first."""
        cdef uint32_t *stack = self._array(size)
        cdef uint32_t i
        for i in range(size):
            stack[i] = first + size - 1 - i
        return stack

    def _build_driver_domain(self, uint32_t pending):
        cdef uint32_t pool = self._nic.c.rx.size + SPARE_PAGES
        cdef uint32_t packets = pending + pool + 64
        cdef uint32_t headers = (packets * PKT_PROT_LEN + PAGE_SIZE - 1) >> PAGE_SHIFT
        cdef uint32_t queue = 1, index
        cdef netback_t *nb = <netback_t *>self.hypervisor.share(sizeof(netback_t))
        index = self.hypervisor.add_domain(
            self._domid, headers + pool, pending + 2 * self.guests, grant_entries=512,
            maptracks=pending + 2 * self.guests, ports=128, headroom=1024)
        while queue < packets:
            queue *= 2
        self._netback = nb
        nb.xen = self.hypervisor.c
        nb.self = self.hypervisor.domain(index)
        nb.nic = &self._nic.c
        nb.memory = self.hypervisor.memory.c.base
        nb.flip = self.flip
        nb.vifs = self.guests
        nb.vif = <vif_t *>self.hypervisor.share(self.guests * sizeof(vif_t))
        memset(nb.vif_of_port, 0xFF, sizeof(nb.vif_of_port))
        nb.packet = <packet_t *>self.hypervisor.share(packets * sizeof(packet_t))
        nb.packets = nb.free_packets = packets
        nb.free_packet = self._stack(packets)
        nb.header_maddr = page_maddr(nb.self, 0)
        nb.pending = <pending_tx_t *>self.hypervisor.share(pending * sizeof(pending_tx_t))
        nb.pendings = nb.free_pendings = pending
        nb.free_pending = self._stack(pending)
        nb.dealloc = self._array(pending)
        nb.mmap_pfn = headers + pool
        nb.free_page = self._stack(pool, headers)
        nb.free_pages = pool
        nb.nic_queue = self._array(queue)
        nb.nic_mask = queue - 1
        nb.partial = NO_PACKET
        nb.bridge = <bridge_t *>self.hypervisor.share(sizeof(bridge_t))
        bridge_init(nb.bridge, <fdb_entry_t *>self.hypervisor.share(FDB_ENTRIES * sizeof(fdb_entry_t)),
                    FDB_ENTRIES,
                    self.guests + 1, <uint64_t>(AGEING_SECONDS * cycles_per_second()))
        bridge_learn(nb.bridge, self._peer, NIC_PORT, cycles())     # the peer has said hello (gratuitous ARP)

    # --- guests -------------------------------------------------------------------------------------------

    def _build_guest(self, uint32_t i, bint transmit):
        cdef netfront_t *nf = &self._front[i]
        cdef uint32_t longest = self.load.c.max_length, stride, colours, pieces, tx_pages, index, k
        stride, colours, pieces = _tx_buffers(longest)
        cdef uint32_t buffers = NETIF_RING_SIZE // pieces
        tx_pages = (buffers * stride + PAGE_SIZE - 1) >> PAGE_SHIFT
        index = self.hypervisor.add_domain(FIRST_DOMID + i, tx_pages + RX_PAGES + 2,
                                           grant_entries=GRANT_ENTRIES)
        nf.xen = self.hypervisor.c
        nf.self = self.hypervisor.domain(index)
        nf.grants = nf.self.grants.shared
        nf.load = self.load.c
        nf.memory = self.hypervisor.memory.c.base
        nf.backend = self._domid
        nf.flip = self.flip
        nf.transmit = transmit
        nf.tx_flow = i
        nf.mac = self._macs[i]
        nf.refs.entries = nf.refs.n_free = GRANT_ENTRIES
        nf.refs.free = self._stack(GRANT_ENTRIES)
        nf.tx_free = self._stack(NETIF_RING_SIZE)
        nf.rx_free = self._stack(NETIF_RING_SIZE)
        nf.tx_frees = nf.rx_frees = NETIF_RING_SIZE
        nf.rx_target = RX_MIN_TARGET
        nf.buffers = nf.buffer_frees = buffers
        nf.buffer_free = self._stack(buffers)
        nf.buffer_stride = stride
        nf.buffer_colours = colours
        nf.tx_pfn = 0
        nf.page_free = self._stack(RX_PAGES, tx_pages)
        nf.page_frees = RX_PAGES
        nf.flat = <uint8_t *>self.hypervisor.share(65536)
        nf.ack = &self._acks[8 * i]
        for k in range(NETIF_RING_SIZE):
            nf.tx_slot[k].ref = INVALID_REF
            nf.rx_slot[k].ref = INVALID_REF

    cdef sring_t *_share_ring(self, netfront_t *nf, uint32_t pfn, uint32_t backend_pfn) except NULL:
        """A page of the guest becomes a shared ring: granted to the driver domain, and mapped there."""
        cdef sring_t *ring = <sring_t *>(nf.memory + page_maddr(nf.self, pfn))
        cdef gnttab_map_grant_ref_t op
        cdef uint32_t ref = get_free_ref(&nf.refs)
        shared_ring_init(ring)
        grant_foreign_access(nf.grants, ref, nf.backend, pfn_to_mfn(nf.self, pfn), False)
        op.host_addr, op.flags, op.ref, op.dom = backend_pfn, GNTMAP_host_map, ref, nf.self.domid
        gnttab_map(self.hypervisor.c, self._netback.self, &op, 1)
        if op.status != GNTST_okay:
            raise ResourceError(f"the driver domain could not map a ring: grant status {op.status}")
        return ring

    def _connect(self, uint32_t i):
        """What xenbus does once: rings, event channel, a port of the bridge."""
        cdef netfront_t *nf = &self._front[i]
        cdef netback_t *nb = self._netback
        cdef vif_t *vif = &nb.vif[i]
        cdef uint32_t pfn = nf.self.pfns - 2, backend_pfn = nb.mmap_pfn + nb.pendings + 2 * i
        cdef int port
        nf.tx.sring = vif.tx.sring = self._share_ring(nf, pfn, backend_pfn)
        nf.rx.sring = vif.rx.sring = self._share_ring(nf, pfn + 1, backend_pfn + 1)
        vif.domid = nf.self.domid
        nf.port = evtchn_alloc_unbound(nf.xen, nf.self, self._domid)
        port = evtchn_bind_interdomain(nb.xen, nb.self, vif.domid, nf.port)
        if port <= 0 or port >= 128:
            raise ResourceError(f"the driver domain could not bind an event channel: {port}")
        vif.port = port
        nb.vif_of_port[port] = i
        bridge_learn(nb.bridge, nf.mac, i + 1, cycles())            # the guest's gratuitous ARP

    def _register(self):
        """Adds the driver domain and the guests to the host, in the order of the hypervisor's domains."""
        cdef domain_t *driver = self._host.add_domain(
            self._domid, ACCOUNT_DRIVER_DOMAIN, netback_run, self._netback)
        cdef netfront_t *nf
        cdef uint32_t i
        self._host.own_context(self._nic.c.context, driver)
        for i in range(self.guests):
            nf = &self._front[i]
            self._host.add_domain(nf.self.domid, ACCOUNT_GUESTS, netfront_run, nf)
            self._host.add_guest(&nf.tx_seq, &nf.rx_frames, &nf.rx_bytes)

    # --- the generator ------------------------------------------------------------------------------------

    def attach_generator(self, GeneratorWire wire not None, uint32_t window=256) -> None:
        """A flow from the wire to each guest, closed by the guest's own count, `window` frames under way."""
        cdef int i, flow
        for i in range(self.guests):
            flow = wire.add_flow(_mac_bytes(self._macs[i]), _mac_bytes(self._peer), window=window,
                                 context=self._nic.c.context,
                                 buffer_size=<int>NIC_BUFFER, flow=self._front[i].rx_flow)
            wire.set_ack(flow, self._front[i].ack)

    # --- results ------------------------------------------------------------------------------------------

    def guest_stats(self, uint32_t guest) -> dict:
        """A guest's counters: frames offered, sent (answered by the backend), received, bad by reason."""
        if guest >= <uint32_t>self.guests:
            raise ConfigError(f"guest {guest}: there are {self.guests}")
        cdef netfront_t *nf = &self._front[guest]
        return {
            "offered": nf.tx_seq, "sent": nf.tx_done, "tx_errors": nf.tx_errors,
            "received": nf.rx_frames, "rx_bytes": nf.rx_bytes, "bad": nf.rx_bad, "other": nf.rx_other,
            "bad_by_reason": {_bad_name(kind): nf.bad[kind] for kind in range(16) if nf.bad[kind]},
        }

    def counts(self) -> dict:
        """Sums over all guests: frames sent, received, bytes received, bad ones, and drops of any kind."""
        cdef int i
        total = {"sent": 0, "offered": 0, "received": 0, "rx_bytes": 0, "bad": 0, "tx_errors": 0}
        dropped = self._netback.nic_rx_dropped
        for i in range(self.guests):
            stats = self.guest_stats(i)
            for name in total:
                total[name] += stats[name]
            dropped += self._netback.vif[i].rx_dropped + self._netback.vif[i].rx_errors
        return total | {"dropped": dropped}

    def bad_frames(self) -> dict:
        """Bad frames and protocol errors of all guests, by reason."""
        cdef int i
        bad = {}
        for i in range(self.guests):
            for reason, n in self.guest_stats(i)["bad_by_reason"].items():
                bad[reason] = bad.get(reason, 0) + n
        return bad

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Gives all pages back. The NIC must have stopped serving the context, and no domain may run."""
        if self.closed:
            return
        self.closed = True
        cdef netback_t *nb = self._netback
        decrease_reservation(nb.xen, nb.self, nb.mfn, nb.n_mfn)
        nb.n_mfn = 0
        self.hypervisor.release()
        self._host.c.domains = 0
        self._host.c.runnable = 0


def _tx_buffers(uint32_t longest):
    """(stride, colours, requests of a frame) of transmit buffers for frames of up to `longest` bytes.

    A frame of up to a page never crosses one: one request each. Frames start in different cache lines where
    there is room, or all of them would lie in the same few sets of the cache.
    """
    if longest <= PAGE_SIZE // 2:
        return PAGE_SIZE // 2, (PAGE_SIZE // 2 - longest) // 64 + 1, 1
    if longest <= PAGE_SIZE:
        return PAGE_SIZE, (PAGE_SIZE - longest) // 64 + 1, 1
    pages = (longest + PAGE_SIZE - 1) // PAGE_SIZE
    return pages * PAGE_SIZE, min((pages * PAGE_SIZE - longest) // 64 + 1, 16), pages + 1
