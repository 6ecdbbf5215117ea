"""Netback's receive side (Linux 2.6.16-xen: net_rx_action and netbk_gop_skb of netback.c).

Copying: GNTTABOP_copy from the driver domain's page (or from another guest's, by its grant) into the page
that the guest granted. Flipping: the page itself changes hands. The driver domain first gets a new machine
frame for it (alloc_mfn, fed by XENMEM_increase_reservation), and one multicall maps that frame in the old
one's place, transfers the old one, and writes the new one's M2P entry.
"""

from libc.stdint cimport int16_t, uint64_t

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE
from cdna.compare.paths.xen3.multicall cimport hypercall, multicall, set_call
from cdna.compare.paths.xen3.netback cimport (
    MFN_STOCK, NO_PACKET, PIECE_FOREIGN, PIECE_PAGE, RX_BATCH, VIF_QUEUE, add_piece, packet_alloc,
    packet_put, packet_t,
    piece_t, rx_slot_t, vif_t,
)
from cdna.compare.paths.xen3.netif cimport push_responses_and_check_notify, rx_entry, unconsumed_requests
from cdna.compare.paths.xen3.pseudo_physical cimport page_maddr, pfn_to_mfn, set_phys_to_machine
from cdna.compare.paths.xen3.public cimport (
    DOMID_SELF, GNTCOPY_dest_gref, GNTCOPY_source_gref, GNTST_okay, GNTTABOP_copy, GNTTABOP_transfer,
    HYPERVISOR_grant_table_op, HYPERVISOR_memory_op, HYPERVISOR_mmu_update, HYPERVISOR_update_va_mapping,
    MMU_MACHPHYS_UPDATE, NETIF_RSP_ERROR, NETRXF_more_data, PTE_PRESENT, PTE_WRITE,
    XENMEM_increase_reservation,
    gnttab_copy_t, netif_rx_entry_t, netif_rx_request_t,
)
from cdna.cpu cimport compiler_barrier, copy_bytes, fence, lowest_bit, store_u32


cdef inline uint32_t slots_of(const netback_t *nb, const packet_t *p) noexcept nogil:
    """Receive requests that a frame takes: pages of data, or pages to be flipped."""
    if nb.flip and flippable(p):
        return p.pieces
    return (p.len + PAGE_SIZE - 1) >> PAGE_SHIFT


cdef inline bint flippable(const packet_t *p) noexcept nogil:
    """is_flippable_skb: the data lies in pages of the driver domain that nobody else needs."""
    return p.refs == 1 and p.piece[0].kind == PIECE_PAGE


cdef inline bint requests_for(vif_t *vif, uint32_t slots) noexcept nogil:
    """Whether there are so many receive requests; if not, asks for an event when there are."""
    if unconsumed_requests(&vif.rx) >= slots:
        return True
    store_u32(&vif.rx.sring.req_event, vif.rx.req_cons + slots)
    fence()
    return unconsumed_requests(&vif.rx) >= slots


cdef inline uint32_t take_request(netback_t *nb, uint32_t v, uint32_t offset) noexcept nogil:
    """The next receive request of a vif becomes a slot of the batch; returns its grant reference."""
    cdef vif_t *vif = &nb.vif[v]
    cdef netif_rx_request_t req = rx_entry(vif.rx.sring, vif.rx.req_cons).req
    cdef rx_slot_t *slot = &nb.slot[nb.n_slot]
    compiler_barrier()
    vif.rx.req_cons += 1
    slot.vif = v
    slot.id = req.id
    slot.flags = 0
    slot.offset = offset
    slot.size = 0
    slot.n_ops = 0
    slot.first_op = nb.n_transfer if nb.flip else nb.n_copy
    nb.n_slot += 1
    return req.gref


cdef inline void stage_copy(netback_t *nb, uint32_t v, const packet_t *p) noexcept nogil:
    """Copy operations of a frame. Pieces share pages of the guest's only where that saves a request."""
    cdef const piece_t *piece
    cdef gnttab_copy_t *op
    cdef uint32_t i, length, chunk, done, room = 0, gref = 0
    cdef bint packed = slots_of(nb, p) < p.pieces
    for i in range(p.pieces):
        piece = &p.piece[i]
        done = 0
        if not packed:
            room = 0
        while done < piece.len:
            if room == 0:
                if i or done:
                    nb.slot[nb.n_slot - 1].flags = NETRXF_more_data
                gref = take_request(nb, v, 0)
                room = PAGE_SIZE
            length = piece.len - done
            chunk = length if length < room else room
            op = &nb.copy_op[nb.n_copy]
            op.flags = GNTCOPY_dest_gref
            op.source.offset = (piece.maddr + done) & (PAGE_SIZE - 1)
            if piece.kind == PIECE_FOREIGN:         # not our page: by the grant of the guest that sends it
                op.flags = GNTCOPY_dest_gref | GNTCOPY_source_gref
                op.source.frame = nb.pending[piece.index].gref
                op.source.domid = nb.vif[nb.pending[piece.index].vif].domid
            else:
                op.source.frame = piece.maddr >> PAGE_SHIFT
                op.source.domid = DOMID_SELF
            op.dest.frame = gref
            op.dest.domid = nb.vif[v].domid
            op.dest.offset = PAGE_SIZE - room
            op.len = chunk
            nb.n_copy += 1
            nb.slot[nb.n_slot - 1].n_ops += 1
            nb.slot[nb.n_slot - 1].size += chunk
            done += chunk
            room -= chunk


cdef inline void stage_flip(netback_t *nb, uint32_t v, const packet_t *p) noexcept nogil:
    """Transfer operations of a frame, a page each, with the new frame that takes the page's place."""
    cdef uint32_t i, n, pfn, old, new
    for i in range(p.pieces):
        pfn = p.piece[i].index
        old = pfn_to_mfn(nb.self, pfn)
        nb.n_mfn -= 1
        new = nb.mfn[nb.n_mfn]
        n = nb.n_transfer
        nb.transfer_op[n].ref = take_request(nb, v, p.piece[i].maddr & (PAGE_SIZE - 1))
        nb.transfer_op[n].mfn = old
        nb.transfer_op[n].domid = nb.vif[v].domid
        nb.slot[nb.n_slot - 1].size = p.piece[i].len
        nb.slot[nb.n_slot - 1].n_ops = 1
        if i + 1 < p.pieces:
            nb.slot[nb.n_slot - 1].flags = NETRXF_more_data
        set_phys_to_machine(nb.self, pfn, new)
        set_call(&nb.call[n], HYPERVISOR_update_va_mapping, pfn,
                 <uint64_t>new << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE, 0)
        nb.mmu_op[n].ptr = <uint64_t>new << PAGE_SHIFT | MMU_MACHPHYS_UPDATE
        nb.mmu_op[n].val = pfn
        nb.n_transfer += 1


cdef inline bint check_mfn(netback_t *nb, uint32_t pages) noexcept nogil:
    """Frames for the pages that are about to leave. False: the hypervisor has none ("memory squeeze")."""
    cdef int got
    if nb.n_mfn >= pages:
        return True
    got = hypercall(nb.xen, nb.self, HYPERVISOR_memory_op, XENMEM_increase_reservation,
                    <size_t>&nb.mfn[nb.n_mfn],
                    MFN_STOCK - nb.n_mfn)
    if got > 0:
        nb.n_mfn += got
    return nb.n_mfn >= pages


cdef inline uint32_t copy_to_pages(netback_t *nb, uint32_t index) noexcept nogil:
    """netbk_copy_skb: a frame that may not be flipped, in fresh pages that may. NO_PACKET: none is free."""
    cdef packet_t *p = &nb.packet[index]
    cdef uint32_t pages = (p.len + PAGE_SIZE - 1) >> PAGE_SHIFT, copy, pfn, i, done, chunk, room = 0
    cdef packet_t *q
    if nb.free_pages < pages or nb.free_packets == 0:
        return NO_PACKET
    copy = packet_alloc(nb, p.port)
    q = &nb.packet[copy]
    for i in range(p.pieces):
        done = 0
        while done < p.piece[i].len:
            if room == 0:
                nb.free_pages -= 1
                pfn = nb.free_page[nb.free_pages]
                add_piece(q, page_maddr(nb.self, pfn), 0, PIECE_PAGE, pfn)
                room = PAGE_SIZE
            chunk = p.piece[i].len - done
            chunk = chunk if chunk < room else room
            copy_bytes(nb.memory + q.piece[q.pieces - 1].maddr + PAGE_SIZE - room,
                       nb.memory + p.piece[i].maddr + done, chunk)
            q.piece[q.pieces - 1].len += chunk
            done += chunk
            room -= chunk
    q.len = p.len
    packet_put(nb, index)
    return copy


cdef inline bint stage(netback_t *nb, uint32_t v) noexcept nogil:
    """The first frame of a vif's queue joins the batch. False when it has to wait."""
    cdef vif_t *vif = &nb.vif[v]
    cdef uint32_t index = vif.queue[vif.queue_head & (VIF_QUEUE - 1)]
    cdef uint32_t slots = slots_of(nb, &nb.packet[index])
    if not requests_for(vif, slots):
        vif.stopped = 1
        return False
    if nb.flip:
        if not check_mfn(nb, slots):
            return False
        if not flippable(&nb.packet[index]):
            index = copy_to_pages(nb, index)
            if index == NO_PACKET:
                return False
        stage_flip(nb, v, &nb.packet[index])
    else:
        stage_copy(nb, v, &nb.packet[index])
    vif.queue_head += 1
    vif.rx_frames += 1
    nb.done[nb.n_done] = index
    nb.n_done += 1
    return True


cdef inline void collect(netback_t *nb) noexcept nogil:
    cdef uint64_t scheduled = nb.rx_scheduled, ahead
    cdef uint32_t v
    cdef vif_t *vif
    nb.n_copy = nb.n_transfer = nb.n_slot = nb.n_done = 0
    while scheduled:
        ahead = scheduled >> nb.rx_turn
        v = nb.rx_turn + lowest_bit(ahead) if ahead else lowest_bit(scheduled)
        vif = &nb.vif[v]
        scheduled &= ~(<uint64_t>1 << v)
        while vif.queue_head != vif.queue_tail:
            if nb.n_copy >= RX_BATCH or nb.n_transfer >= RX_BATCH or nb.n_done >= RX_BATCH:
                nb.rx_turn = v
                return
            if not stage(nb, v):
                break
        if vif.queue_head == vif.queue_tail or vif.stopped:
            nb.rx_scheduled &= ~(<uint64_t>1 << v)
        nb.rx_turn = v + 1 if v + 1 < nb.vifs else 0


cdef inline void execute(netback_t *nb) noexcept nogil:
    """The batch in one hypercall."""
    cdef uint32_t n = nb.n_transfer
    if nb.n_copy:
        hypercall(nb.xen, nb.self, HYPERVISOR_grant_table_op, GNTTABOP_copy, <size_t>&nb.copy_op[0],
                  nb.n_copy)
    if n:
        set_call(&nb.call[n], HYPERVISOR_grant_table_op, GNTTABOP_transfer, <size_t>&nb.transfer_op[0], n)
        set_call(&nb.call[n + 1], HYPERVISOR_mmu_update, <size_t>&nb.mmu_op[0], n, 0)
        multicall(nb.xen, nb.self, nb.call, n + 2)


cdef inline int16_t slot_status(const netback_t *nb, const rx_slot_t *slot) noexcept nogil:
    """netbk_check_gop: bytes in the slot's page, or NETIF_RSP_ERROR."""
    cdef uint32_t i
    for i in range(slot.first_op, slot.first_op + slot.n_ops):
        if (nb.transfer_op[i].status if nb.flip else nb.copy_op[i].status) != GNTST_okay:
            return NETIF_RSP_ERROR
    return slot.size


cdef inline void respond(netback_t *nb) noexcept nogil:
    """make_rx_response for every slot; one push a vif."""
    cdef netif_rx_entry_t *entry
    cdef rx_slot_t *slot
    cdef vif_t *vif
    cdef uint64_t answered = 0
    cdef uint32_t i, v
    for i in range(nb.n_slot):
        slot = &nb.slot[i]
        vif = &nb.vif[slot.vif]
        entry = rx_entry(vif.rx.sring, vif.rx.rsp_prod_pvt)
        entry.rsp.id = slot.id
        entry.rsp.offset = slot.offset
        entry.rsp.flags = slot.flags
        entry.rsp.status = slot_status(nb, slot)
        vif.rx_errors += entry.rsp.status < 0
        vif.rx.rsp_prod_pvt += 1
        answered |= <uint64_t>1 << slot.vif
    while answered:
        v = lowest_bit(answered)
        answered &= answered - 1
        if push_responses_and_check_notify(&nb.vif[v].rx):
            nb.notify |= <uint64_t>1 << v


cdef uint32_t net_rx_action(netback_t *nb) noexcept nogil:
    cdef uint32_t i, total = 0
    while nb.rx_scheduled:
        collect(nb)
        if nb.n_done == 0:
            break
        execute(nb)
        respond(nb)
        for i in range(nb.n_done):
            packet_put(nb, nb.done[i])
        total += nb.n_done
    return total
