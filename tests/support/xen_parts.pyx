"""The parts of the Xen baseline one operation at a time, and a bridge that moves step by step.

Operations return what Xen's do: 0, a count, a port or a status, or a negative errno.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE
from cdna.compare.host cimport domain_t
from cdna.compare.paths.xen3.bridge cimport (
    FLOOD, bridge_age, bridge_init, bridge_learn, bridge_lookup, bridge_t, fdb_entry_t,
)
from cdna.compare.paths.xen3.domain cimport NO_HANDLE, Hypervisor, xen_domain_t
from cdna.compare.paths.xen3.event_channel cimport (
    evtchn_alloc_unbound, evtchn_bind_interdomain, evtchn_do_upcall, evtchn_send, evtchn_upcall_due,
)
from cdna.compare.paths.xen3.grant_table cimport (
    end_foreign_access, end_foreign_transfer, gnttab_map, gnttab_op, grant_foreign_access,
    grant_foreign_transfer,
)
from cdna.compare.paths.xen3.netback cimport netback_t, vif_t
from cdna.compare.paths.xen3.pseudo_physical cimport (
    decrease_reservation, increase_reservation, mmu_update, pfn_to_mfn, update_va_mapping,
)
from cdna.compare.paths.xen3.public cimport *
from cdna.compare.paths.xen3.xen cimport XenBridge
from cdna.cpu cimport cycles
from cdna.memory cimport SharedRegion

# Xen's constants by their own names, flat as in its headers.
constants = {
    "DOMID_SELF": DOMID_SELF,
    "GTF_invalid": GTF_invalid, "GTF_permit_access": GTF_permit_access,
    "GTF_accept_transfer": GTF_accept_transfer, "GTF_readonly": GTF_readonly, "GTF_reading": GTF_reading,
    "GTF_writing": GTF_writing, "GTF_transfer_committed": GTF_transfer_committed,
    "GTF_transfer_completed": GTF_transfer_completed,
    "GNTTABOP_map_grant_ref": GNTTABOP_map_grant_ref, "GNTTABOP_unmap_grant_ref": GNTTABOP_unmap_grant_ref,
    "GNTTABOP_transfer": GNTTABOP_transfer, "GNTTABOP_copy": GNTTABOP_copy,
    "GNTMAP_host_map": GNTMAP_host_map, "GNTMAP_readonly": GNTMAP_readonly,
    "GNTCOPY_source_gref": GNTCOPY_source_gref, "GNTCOPY_dest_gref": GNTCOPY_dest_gref,
    "GNTST_okay": GNTST_okay, "GNTST_general_error": GNTST_general_error,
    "GNTST_bad_domain": GNTST_bad_domain, "GNTST_bad_gntref": GNTST_bad_gntref,
    "GNTST_bad_handle": GNTST_bad_handle, "GNTST_bad_virt_addr": GNTST_bad_virt_addr,
    "GNTST_bad_dev_addr": GNTST_bad_dev_addr, "GNTST_no_device_space": GNTST_no_device_space,
    "GNTST_permission_denied": GNTST_permission_denied, "GNTST_bad_page": GNTST_bad_page,
    "GNTST_bad_copy_arg": GNTST_bad_copy_arg,
    "XEN_ENOENT": XEN_ENOENT, "XEN_EINVAL": XEN_EINVAL, "XEN_ENOSPC": XEN_ENOSPC, "XEN_ENOSYS": XEN_ENOSYS,
    "NETTXF_more_data": NETTXF_more_data, "NETRXF_more_data": NETRXF_more_data,
}
sizes = {
    "grant_entry": sizeof(grant_entry_t),
    "netif_tx_request": sizeof(netif_tx_request_t), "netif_tx_response": sizeof(netif_tx_response_t),
    "netif_tx_entry": sizeof(netif_tx_entry_t), "netif_rx_request": sizeof(netif_rx_request_t),
    "netif_rx_response": sizeof(netif_rx_response_t), "netif_rx_entry": sizeof(netif_rx_entry_t),
    "sring": sizeof(sring_t), "netif_tx_sring": sizeof(netif_tx_sring_t),
    "netif_rx_sring": sizeof(netif_rx_sring_t), "shared_info": sizeof(shared_info_t),
}


# --- what the hypervisor keeps ----------------------------------------------------------------------------


def counters(Hypervisor hypervisor) -> dict:
    """The hypervisor's counters by name."""
    return hypervisor.c.stats


def heap_pages(Hypervisor hypervisor) -> int:
    """Free pages of the hypervisor."""
    return hypervisor.c.heap_pages


def pages_of(Hypervisor hypervisor, uint32_t index) -> int:
    """Machine pages that a domain owns by the hypervisor's count."""
    return hypervisor.domain(index).tot_pages


def p2m(Hypervisor hypervisor, uint32_t index, uint32_t pfn):
    """The machine frame behind a pseudo-physical frame, or None. Foreign frames included."""
    cdef xen_domain_t *domain = hypervisor.domain(index)
    return None if domain.p2m[pfn] == INVALID_MFN else pfn_to_mfn(domain, pfn)


def m2p(Hypervisor hypervisor, uint32_t mfn):
    """The pseudo-physical frame that the owner of a machine frame gave it, or None."""
    return None if hypervisor.c.m2p[mfn] == INVALID_MFN else hypervisor.c.m2p[mfn]


def pte(Hypervisor hypervisor, uint32_t index, uint32_t pfn) -> int:
    """The page-table entry of a pseudo-physical frame: machine address and PTE flags, or 0."""
    return hypervisor.domain(index).pte[pfn]


def is_runnable(Hypervisor hypervisor, uint32_t index) -> bool:
    """Whether the host has an event pending for this domain."""
    return bool(hypervisor.c.host.runnable >> hypervisor.domain(index).index & 1)


# --- what a domain can do ---------------------------------------------------------------------------------


cdef class Domain:
    """The domain of this index; what it asks of the hypervisor is in the classes below."""
    cdef Hypervisor hypervisor
    cdef uint32_t index

    def __init__(self, Hypervisor hypervisor not None, uint32_t index):
        self.hypervisor = hypervisor
        self.index = index

    cdef xen_domain_t *c(self) except NULL:
        return self.hypervisor.domain(self.index)


cdef class GrantTable(Domain):
    """Guest side: `grant_access`, `end_access`, `grant_transfer`, `end_transfer` change its own entries.

    Hypervisor side: `map`, `unmap`, `copy`, `transfer` are its operations; they return statuses.
    """

    def entry(self, uint32_t ref):
        """(flags, domid, frame) of an entry as it lies in the guest's page."""
        cdef grant_entry_t *entry = &self.c().grants.shared[ref]
        return entry.flags, entry.domid, entry.frame

    def poke(self, uint32_t ref, uint16_t flags, uint16_t domid, uint32_t frame) -> None:
        """Writes an entry as a guest can, without any rule."""
        cdef grant_entry_t *entry = &self.c().grants.shared[ref]
        entry.flags, entry.domid, entry.frame = flags, domid, frame

    def grant_access(self, uint32_t ref, uint32_t domid, uint32_t frame, bint readonly=False) -> None:
        grant_foreign_access(self.c().grants.shared, ref, domid, frame, readonly)

    def end_access(self, uint32_t ref) -> bool:
        return end_foreign_access(self.c().grants.shared, ref)

    def grant_transfer(self, uint32_t ref, uint32_t domid, uint32_t pfn) -> None:
        grant_foreign_transfer(self.c().grants.shared, ref, domid, pfn)

    def end_transfer(self, uint32_t ref):
        """The machine frame that came, or None."""
        cdef uint32_t frame = end_foreign_transfer(self.c().grants.shared, ref)
        return None if frame == INVALID_MFN else frame

    @property
    def mapped(self) -> int:
        """Mappings that this domain holds."""
        return self.c().grants.mapped

    def map(self, uint32_t domid, uint32_t ref, uint64_t pfn, uint32_t flags=GNTMAP_host_map):
        """Maps another's grant at `pfn` of this domain's page table: (status, handle, machine address)."""
        cdef gnttab_map_grant_ref_t op
        op.host_addr, op.flags, op.ref, op.dom = pfn, flags, ref, domid
        op.handle, op.dev_bus_addr = NO_HANDLE, 0
        gnttab_map(self.hypervisor.c, self.c(), &op, 1)
        return op.status, op.handle, op.dev_bus_addr

    def unmap(self, uint32_t handle, uint64_t pfn, uint64_t dev_bus_addr=0) -> int:
        cdef gnttab_unmap_grant_ref_t op
        op.host_addr, op.dev_bus_addr, op.handle = pfn, dev_bus_addr, handle
        gnttab_op(self.hypervisor.c, self.c(), GNTTABOP_unmap_grant_ref, &op, 1)
        return op.status

    def copy(self, source, dest, uint16_t length, uint16_t flags) -> int:
        """From (domid, frame or reference, offset) to the same; `flags` say which are references."""
        cdef gnttab_copy_t op
        op.source.domid, op.source.frame, op.source.offset = source
        op.dest.domid, op.dest.frame, op.dest.offset = dest
        op.len, op.flags = length, flags
        gnttab_op(self.hypervisor.c, self.c(), GNTTABOP_copy, &op, 1)
        return op.status

    def transfer(self, uint64_t mfn, uint32_t domid, uint32_t ref) -> int:
        """Gives a page away through entry `ref` of `domid`'s table."""
        cdef gnttab_transfer_t op
        op.mfn, op.domid, op.ref = mfn, domid, ref
        gnttab_op(self.hypervisor.c, self.c(), GNTTABOP_transfer, &op, 1)
        return op.status

    def operation(self, uint32_t command) -> int:
        """An empty batch of a command: 0, or -ENOSYS where there is no such command."""
        return gnttab_op(self.hypervisor.c, self.c(), command, NULL, 0)


cdef class PseudoPhysical(Domain):
    """A domain's page hypercalls."""

    def update_va_mapping(self, uint64_t pfn, uint64_t pte) -> int:
        return update_va_mapping(self.hypervisor.c, self.c(), pfn, pte)

    def set_m2p(self, uint64_t mfn, uint32_t pfn) -> int:
        """mmu_update with one MMU_MACHPHYS_UPDATE."""
        cdef mmu_update_t update
        update.ptr, update.val = mfn << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, pfn
        return mmu_update(self.hypervisor.c, self.c(), &update, 1)

    def increase_reservation(self, uint32_t n) -> list:
        """The machine frames that the domain got, at most 64."""
        cdef uint32_t mfn[64]
        cdef int got = increase_reservation(self.hypervisor.c, self.c(), mfn, min(n, 64))
        return [mfn[i] for i in range(got)]

    def decrease_reservation(self, uint32_t mfn) -> int:
        return decrease_reservation(self.hypervisor.c, self.c(), &mfn, 1)


cdef class EventChannels(Domain):
    def alloc_unbound(self, uint32_t remote_domid) -> int:
        return evtchn_alloc_unbound(self.hypervisor.c, self.c(), remote_domid)

    def bind_interdomain(self, uint32_t remote_domid, uint32_t remote_port) -> int:
        return evtchn_bind_interdomain(self.hypervisor.c, self.c(), remote_domid, remote_port)

    def send(self, uint32_t port) -> int:
        return evtchn_send(self.hypervisor.c, self.c(), port)

    def mask(self, uint32_t port) -> None:
        self.c().shared.evtchn_mask[port >> 6] |= <uint64_t>1 << (port & 63)

    @property
    def upcall_due(self) -> bool:
        """Whether a virtual interrupt is pending."""
        return evtchn_upcall_due(self.c().shared)

    def upcall(self, int limit=64) -> list:
        """Takes the pending, unmasked ports, at most `limit` of up to 64."""
        cdef uint16_t port[64]
        cdef int n = evtchn_do_upcall(self.c().shared, port, min(limit, 64))
        return [port[i] for i in range(n)]


# --- the bridge's database --------------------------------------------------------------------------------


cdef class Bridge:
    """A learning bridge of `ports` ports and room for `entries` addresses.

    Addresses are six bytes in wire order, in the low 48 bits of a little-endian word; `now` and `ageing` are
    in any one unit of time.
    """
    cdef bridge_t _bridge
    cdef SharedRegion _region

    def __cinit__(self, uint32_t ports, uint32_t entries=1024, uint64_t ageing=300):
        self._region = SharedRegion(entries * sizeof(fdb_entry_t))
        bridge_init(&self._bridge, <fdb_entry_t *>self._region.base, entries, ports, ageing)

    def learn(self, uint64_t mac, uint32_t port, uint64_t now=0) -> None:
        """Takes note of the source address of a frame that came in by `port`."""
        bridge_learn(&self._bridge, mac, port, now)

    def lookup(self, uint64_t mac, uint64_t now=0):
        """The port of a destination address, or None where the frame is to be flooded."""
        cdef uint32_t port = bridge_lookup(&self._bridge, mac, now)
        return None if port == FLOOD else port

    def age(self, uint64_t now) -> int:
        """Drops what has aged; returns how many."""
        return bridge_age(&self._bridge, now)

    @property
    def used(self) -> int:
        """Addresses in the database."""
        return self._bridge.used

    @property
    def moved(self) -> int:
        """Addresses that changed their port."""
        return self._bridge.moved


# --- the whole path ---------------------------------------------------------------------------------------


cdef class SteppedBridge(XenBridge):
    """A bridge whose domains run one at a time, in this process, and whose counters can be read."""

    def hold_phase(self, uint32_t phase) -> None:
        """Puts the host into a phase of the comparison (0 load, 1 drain) that no clock ends."""
        self._host.c.phase = phase
        self._host.c.measure_from = self._host.c.load_until = self._host.c.drain_until = <uint64_t>1 << 63
        self._host.c.slice_cycles = <uint64_t>1 << 62

    def run_once(self, bint interrupt=True) -> int:
        """Runs each domain that has an event pending once; returns how many ran.

        interrupt: the driver domain runs in any case, as if the NIC had raised an interrupt.
        """
        cdef uint32_t i
        cdef int ran = 0
        for i in range(self._host.c.domains):
            if not self._host.c.runnable >> i & 1 and not (interrupt and i == 0):
                continue
            self._run_domain(i)
            ran += 1
        return ran

    def run_guest(self, uint32_t guest) -> None:
        """Runs one guest, whether or not it has an event pending."""
        self._run_domain(guest + 1)

    cdef void _run_domain(self, uint32_t index) noexcept:
        cdef domain_t *d = &self._host.c.domain[index]
        self._host.c.runnable &= ~(<uint64_t>1 << index)
        self._host.c.current = index
        self._host.c.slice_end = cycles() + self._host.c.slice_cycles
        d.run(d, self._host.c)

    def tx_ring(self, uint32_t guest):
        """The shared transmit ring of a guest as bytes, writable: what a hostile guest can change."""
        return self.hypervisor.memory.view(<uint64_t>(<uint8_t *>self._front[guest].tx.sring
                                                      - self.hypervisor.memory.c.base), PAGE_SIZE)

    def vif_stats(self, uint32_t guest) -> dict:
        """Netback's counters for a guest."""
        cdef vif_t *vif = &self._netback.vif[guest]
        return {"tx_frames": vif.tx_frames, "tx_errors": vif.tx_errors, "disabled": bool(vif.disabled)}

    def driver_stats(self) -> dict:
        """The driver domain's counters, the bridge's included."""
        cdef netback_t *nb = self._netback
        return {
            "free_pending": nb.free_pendings, "flooded": nb.bridge.flooded,
            "not_forwarded": nb.bridge.not_forwarded,
        }

    def pages(self) -> dict:
        """Counts the machine pages of this baseline by owner: their sum never changes."""
        owned = [pages_of(self.hypervisor, i) for i in range(1 + self.guests)]
        return {"heap": heap_pages(self.hypervisor), "driver_domain": owned[0], "guests": owned[1:]}
