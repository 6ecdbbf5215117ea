"""The driver domain's data path between its devices: a packet through the bridge to a vif or to the NIC."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport DESC_F_EOP, RING_TX
from cdna.compare.paths.xen3.bridge cimport FLOOD, bridge_learn, bridge_lookup
from cdna.compare.paths.xen3.netback cimport NIC_PORT, VIF_QUEUE, netback_t, packet_put, packet_t, vif_t
from cdna.guest_driver.queues cimport NO_COOKIE, announce, post, room


cdef inline void vif_enqueue(netback_t *nb, uint32_t v, uint32_t index) noexcept nogil:
    """netif_be_start_xmit: a frame for a guest. A full queue drops it."""
    cdef vif_t *vif = &nb.vif[v]
    if vif.disabled or vif.queue_tail - vif.queue_head == VIF_QUEUE:
        vif.rx_dropped += 1
        packet_put(nb, index)
        return
    vif.queue[vif.queue_tail & (VIF_QUEUE - 1)] = index
    vif.queue_tail += 1
    if not vif.stopped:
        nb.rx_scheduled |= <uint64_t>1 << v


cdef inline void nic_enqueue(netback_t *nb, uint32_t index) noexcept nogil:
    """A frame for the wire. The queue has room for every packet there is."""
    nb.nic_queue[nb.nic_tail & nb.nic_mask] = index
    nb.nic_tail += 1


cdef inline void deliver(netback_t *nb, uint32_t index, uint32_t port) noexcept nogil:
    """Hands one reference to a port."""
    if port == NIC_PORT:
        nic_enqueue(nb, index)
    else:
        vif_enqueue(nb, port - 1, index)


cdef inline void flood(netback_t *nb, uint32_t index) noexcept nogil:
    cdef packet_t *p = &nb.packet[index]
    cdef uint32_t port, source = p.port
    nb.bridge.flooded += 1
    for port in range(nb.vifs + 1):
        if port != source:
            p.refs += 1
            deliver(nb, index, port)
    packet_put(nb, index)


cdef inline void bridge_input(netback_t *nb, uint32_t index) noexcept nogil:
    """br_handle_frame: learns the source, looks up the destination, forwards or floods."""
    cdef packet_t *p = &nb.packet[index]
    cdef uint64_t dst = 0, src = 0
    cdef uint32_t port
    memcpy(&dst, nb.memory + p.piece[0].maddr, 6)
    memcpy(&src, nb.memory + p.piece[0].maddr + 6, 6)
    bridge_learn(nb.bridge, src, p.port, nb.now)
    port = bridge_lookup(nb.bridge, dst, nb.now)
    if port == FLOOD:
        flood(nb, index)
    elif port == p.port:
        nb.bridge.not_forwarded += 1
        packet_put(nb, index)
    else:
        nb.bridge.forwarded += 1
        deliver(nb, index, port)


cdef inline uint32_t nic_flush(netback_t *nb) noexcept nogil:
    """Posts queued packets to the NIC, as far as its ring has room; a descriptor for each piece."""
    cdef uint32_t i, index, sent = 0
    cdef packet_t *p
    while nb.nic_head != nb.nic_tail:
        index = nb.nic_queue[nb.nic_head & nb.nic_mask]
        p = &nb.packet[index]
        if room(&nb.nic.tx) < p.pieces:
            break
        for i in range(p.pieces - 1):
            post(nb.nic, &nb.nic.tx, RING_TX, p.piece[i].maddr, p.piece[i].len, 0, NO_COOKIE)
        i = p.pieces - 1
        post(nb.nic, &nb.nic.tx, RING_TX, p.piece[i].maddr, p.piece[i].len, DESC_F_EOP, index)
        nb.nic_head += 1
        sent += 1
    if sent:
        announce(nb.nic, &nb.nic.tx, RING_TX)
        nb.nic_tx_frames += sent
    return sent
