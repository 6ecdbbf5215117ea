"""Netback's transmit side (Linux 2.6.16-xen: net_tx_action and net_tx_action_dealloc of netback.c).

Every request is the guest's word: it is copied once from the shared page, and size, offset and chain are
checked on the copy. The first PKT_PROT_LEN bytes of a frame are copied as well, so that what the bridge looks
at is what leaves.
"""

from libc.stdint cimport int16_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport MAX_FRAME, MIN_FRAME, PAGE_SIZE
from cdna.compare.paths.xen3.forward cimport bridge_input
from cdna.compare.paths.xen3.netback cimport (
    MAX_SKB_FRAGS, PIECE_FOREIGN, PIECE_HEADER, PKT_PROT_LEN, TX_BATCH, TX_QUANTUM, add_piece, packet_alloc,
    packet_put, packet_t, pending_tx_t, vif_t,
)
from cdna.compare.paths.xen3.netif cimport (
    final_check_for_requests, push_responses_and_check_notify, request_prod_overflow, tx_entry,
    unconsumed_requests,
)
from cdna.compare.paths.xen3.multicall cimport hypercall
from cdna.compare.paths.xen3.pseudo_physical cimport page_maddr, set_phys_to_machine
from cdna.compare.paths.xen3.public cimport (
    FOREIGN_FRAME, GNTMAP_host_map, GNTMAP_readonly, GNTST_okay, GNTTABOP_map_grant_ref,
    GNTTABOP_unmap_grant_ref, HYPERVISOR_grant_table_op, INVALID_MFN, NETIF_RSP_ERROR, NETIF_RSP_OKAY,
    NETTXF_extra_info, NETTXF_more_data, gnttab_map_grant_ref_t, netif_tx_entry_t, netif_tx_request_t,
)
from cdna.cpu cimport compiler_barrier, lowest_bit

cdef enum:
    BAD_CHAIN = -1


cdef inline void make_tx_response(netback_t *nb, uint32_t v, uint32_t id_, int16_t status) noexcept nogil:
    """Writes a response; `push_tx_responses` announces it."""
    cdef vif_t *vif = &nb.vif[v]
    cdef netif_tx_entry_t *entry = tx_entry(vif.tx.sring, vif.tx.rsp_prod_pvt)
    entry.rsp.id = id_
    entry.rsp.status = status
    vif.tx.rsp_prod_pvt += 1


cdef inline void push_tx_responses(netback_t *nb, uint64_t vifs) noexcept nogil:
    cdef uint32_t v
    while vifs:
        v = lowest_bit(vifs)
        vifs &= vifs - 1
        if push_responses_and_check_notify(&nb.vif[v].tx):
            nb.notify |= <uint64_t>1 << v


cdef inline int read_chain(netback_t *nb, vif_t *vif, uint32_t available) noexcept nogil:
    """Copies the requests of the next frame to nb.chain and checks them; how many, or BAD_CHAIN.

    The first request's size, which is the whole frame's, becomes that of its own piece.
    """
    cdef netif_tx_request_t *req
    cdef uint32_t n = 0, rest = 0
    while True:
        req = &nb.chain[n]
        req[0] = tx_entry(vif.tx.sring, vif.tx.req_cons + n).req
        compiler_barrier()
        if n == 0:
            rest = req.size
            if rest < MIN_FRAME or rest > MAX_FRAME:
                return BAD_CHAIN
        else:
            if req.size > rest or req.offset > PAGE_SIZE or req.size > PAGE_SIZE - req.offset:
                return BAD_CHAIN
            rest -= req.size
        n += 1
        if req.flags & NETTXF_extra_info:           # feature-gso is not offered
            return BAD_CHAIN
        if not req.flags & NETTXF_more_data:
            break
        if n == available or n == MAX_SKB_FRAGS:
            return BAD_CHAIN
    req = &nb.chain[0]
    if rest < MIN_FRAME or req.offset > PAGE_SIZE or rest > PAGE_SIZE - req.offset:
        return BAD_CHAIN
    req.size = rest
    return n


cdef inline void refuse_chain(netback_t *nb, uint32_t v, uint32_t available) noexcept nogil:
    """Answers the requests of a bad frame with an error, to the end of its chain."""
    cdef vif_t *vif = &nb.vif[v]
    cdef netif_tx_request_t req
    cdef uint32_t _
    vif.tx_errors += 1
    for _ in range(available):
        req = tx_entry(vif.tx.sring, vif.tx.req_cons).req
        compiler_barrier()
        vif.tx.req_cons += 1
        make_tx_response(nb, v, req.id, NETIF_RSP_ERROR)
        if not req.flags & NETTXF_more_data:
            break


cdef inline void stage_chain(netback_t *nb, uint32_t v, uint32_t n) noexcept nogil:
    """A packet, a pending entry and a map operation for each request of nb.chain."""
    cdef vif_t *vif = &nb.vif[v]
    cdef uint32_t index = packet_alloc(nb, v + 1), i, idx
    cdef packet_t *p = &nb.packet[index]
    cdef gnttab_map_grant_ref_t *op
    cdef pending_tx_t *pending
    p.first_op = nb.n_map
    p.n_ops = n
    for i in range(n):
        nb.free_pendings -= 1
        idx = nb.free_pending[nb.free_pendings]
        pending = &nb.pending[idx]
        pending.gref = nb.chain[i].gref
        pending.vif = v
        pending.id = nb.chain[i].id
        pending.status = NETIF_RSP_OKAY
        pending.size = nb.chain[i].size
        pending.offset = nb.chain[i].offset
        op = &nb.map_op[nb.n_map]
        op.host_addr = nb.mmap_pfn + idx
        op.flags = GNTMAP_host_map | GNTMAP_readonly
        op.ref = pending.gref
        op.dom = vif.domid
        nb.n_map += 1
    vif.tx.req_cons += n
    vif.tx_frames += 1
    nb.batch[nb.n_batch] = index
    nb.n_batch += 1


cdef inline bint has_room(const netback_t *nb) noexcept nogil:
    """For one more frame of any shape."""
    return nb.n_map < TX_BATCH and nb.free_pendings >= MAX_SKB_FRAGS and nb.free_packets > 0


cdef inline bint collect_vif(netback_t *nb, uint32_t v) noexcept nogil:
    """Up to TX_QUANTUM frames of one vif. False when it has no more requests now."""
    cdef vif_t *vif = &nb.vif[v]
    cdef uint32_t available, taken = 0
    cdef int n
    if request_prod_overflow(&vif.tx):
        vif.disabled = 1
        return False
    while taken < TX_QUANTUM and has_room(nb):
        available = unconsumed_requests(&vif.tx)
        if available == 0:
            if not final_check_for_requests(&vif.tx):
                return False
            continue
        n = read_chain(nb, vif, available)
        if n == BAD_CHAIN:
            refuse_chain(nb, v, available)
            push_tx_responses(nb, <uint64_t>1 << v)
        else:
            stage_chain(nb, v, n)
        taken += 1
    return True


cdef inline void collect(netback_t *nb) noexcept nogil:
    """Fills the batch, vif by vif, beginning where the last batch ended."""
    cdef uint64_t ahead
    cdef uint32_t v
    nb.n_map = 0
    nb.n_batch = 0
    while nb.tx_scheduled and has_room(nb):
        ahead = nb.tx_scheduled >> nb.tx_turn
        v = nb.tx_turn + lowest_bit(ahead) if ahead else lowest_bit(nb.tx_scheduled)
        if nb.vif[v].disabled or not collect_vif(nb, v):
            nb.tx_scheduled &= ~(<uint64_t>1 << v)
        nb.tx_turn = v + 1 if v + 1 < nb.vifs else 0


cdef inline bint check_map_ops(netback_t *nb, const packet_t *p, uint64_t *answered) noexcept nogil:
    """netbk_tx_check_mop: notes the handles. False when one was refused: then all of the frame is."""
    cdef gnttab_map_grant_ref_t *op
    cdef uint32_t i, idx
    cdef bint okay = True
    for i in range(p.first_op, p.first_op + p.n_ops):
        op = &nb.map_op[i]
        idx = <uint32_t>op.host_addr - nb.mmap_pfn
        if op.status == GNTST_okay:
            nb.pending[idx].handle = op.handle
            set_phys_to_machine(nb.self, nb.mmap_pfn + idx, FOREIGN_FRAME | <uint32_t>(op.dev_bus_addr >> 12))
        else:
            okay = False
    if okay:
        return True
    for i in range(p.first_op, p.first_op + p.n_ops):
        op = &nb.map_op[i]
        idx = <uint32_t>op.host_addr - nb.mmap_pfn
        nb.pending[idx].status = NETIF_RSP_ERROR
        if op.status == GNTST_okay:
            nb.dealloc[nb.n_dealloc] = idx
            nb.n_dealloc += 1
        else:
            make_tx_response(nb, nb.pending[idx].vif, nb.pending[idx].id, NETIF_RSP_ERROR)
            answered[0] |= <uint64_t>1 << nb.pending[idx].vif
            nb.free_pending[nb.free_pendings] = idx
            nb.free_pendings += 1
    return False


cdef inline void fill_packet(netback_t *nb, uint32_t index) noexcept nogil:
    """Copies the header; what is behind it stays in the guest's pages, mapped."""
    cdef packet_t *p = &nb.packet[index]
    cdef uint64_t header = nb.header_maddr + <uint64_t>index * PKT_PROT_LEN
    cdef uint32_t idx = <uint32_t>nb.map_op[p.first_op].host_addr - nb.mmap_pfn, i
    cdef pending_tx_t *pending = &nb.pending[idx]
    cdef uint32_t length = pending.size if pending.size < PKT_PROT_LEN else PKT_PROT_LEN
    memcpy(nb.memory + header, nb.memory + page_maddr(nb.self, nb.mmap_pfn + idx) + pending.offset, length)
    add_piece(p, header, length, PIECE_HEADER, 0)
    p.len = pending.size
    if pending.size > length:
        add_piece(p, page_maddr(nb.self, nb.mmap_pfn + idx) + pending.offset + length, pending.size - length,
                  PIECE_FOREIGN, idx)
    else:                                           # nothing left to send from the guest's page
        nb.dealloc[nb.n_dealloc] = idx
        nb.n_dealloc += 1
    for i in range(p.first_op + 1, p.first_op + p.n_ops):
        idx = <uint32_t>nb.map_op[i].host_addr - nb.mmap_pfn
        pending = &nb.pending[idx]
        if pending.size:
            add_piece(p, page_maddr(nb.self, nb.mmap_pfn + idx) + pending.offset, pending.size,
                      PIECE_FOREIGN, idx)
            p.len += pending.size
        else:
            nb.dealloc[nb.n_dealloc] = idx
            nb.n_dealloc += 1


cdef uint32_t net_tx_action(netback_t *nb) noexcept nogil:
    cdef uint64_t answered = 0
    cdef uint32_t i, index
    if not nb.tx_scheduled:
        return 0
    collect(nb)
    if nb.n_map == 0:
        return 0
    hypercall(nb.xen, nb.self, HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, <size_t>&nb.map_op[0],
              nb.n_map)
    for i in range(nb.n_batch):
        index = nb.batch[i]
        if check_map_ops(nb, &nb.packet[index], &answered):
            fill_packet(nb, index)
            bridge_input(nb, index)
        else:
            nb.vif[nb.packet[index].port - 1].tx_errors += 1
            packet_put(nb, index)
    push_tx_responses(nb, answered)
    return nb.n_map


cdef inline uint32_t dealloc_batch(netback_t *nb, uint32_t n) noexcept nogil:
    cdef pending_tx_t *pending
    cdef uint64_t answered = 0
    cdef uint32_t i, idx
    for i in range(n):
        idx = nb.dealloc[nb.n_dealloc - n + i]
        nb.unmap_op[i].host_addr = nb.mmap_pfn + idx
        nb.unmap_op[i].dev_bus_addr = 0
        nb.unmap_op[i].handle = nb.pending[idx].handle
        set_phys_to_machine(nb.self, nb.mmap_pfn + idx, INVALID_MFN)
    hypercall(nb.xen, nb.self, HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, <size_t>&nb.unmap_op[0],
              n)
    for i in range(n):
        idx = nb.dealloc[nb.n_dealloc - n + i]
        pending = &nb.pending[idx]
        make_tx_response(nb, pending.vif, pending.id, pending.status)
        answered |= <uint64_t>1 << pending.vif
        nb.free_pending[nb.free_pendings] = idx
        nb.free_pendings += 1
    nb.n_dealloc -= n
    push_tx_responses(nb, answered)
    return n


cdef uint32_t net_tx_action_dealloc(netback_t *nb) noexcept nogil:
    cdef uint32_t done = 0
    while nb.n_dealloc:
        done += dealloc_batch(nb, nb.n_dealloc if nb.n_dealloc < TX_BATCH else <uint32_t>TX_BATCH)
    return done
