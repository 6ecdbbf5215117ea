"""A virtio-net device beyond a single ring: its features, the rings that are served, where frames go.

Received frames go to the active pairs by a flow hash of the NIC's own, or by the key and the table that the
driver has given (receive-side scaling, RSS; virtio 1.2, 5.1.6.5.7). `rx.pxd` chooses by what is written here.
The engine stands still meanwhile.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport context_t
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.queue cimport virtio_t, virtqueue_t


cdef inline bint has_feature(uint64_t features, int bit) noexcept nogil:
    return features >> bit & 1


cdef inline void receive_on(virtio_t *v, uint32_t pairs) noexcept nogil:
    """Distributes received frames to the first so many pairs, without RSS."""
    v.active = pairs
    v.rss.types = 0


cdef inline void select_rings(virtio_t *v) noexcept nogil:
    """Lists the rings that are ready, for the engine to serve."""
    cdef virtqueue_t *q
    cdef uint32_t i
    v.receiving = v.sending = v.tx_cursor = 0
    for i in range(2 * v.pairs):
        q = &v.queue[i]
        q.ready = q.started and q.enabled and q.desc != NULL
        if q.ready and i & 1:
            v.transmitq[v.sending] = i
            v.sending += 1
        elif q.ready and i >> 1 < v.active:
            v.receiveq[v.receiving] = i
            v.receiving += 1


cdef inline void serve_rings(nic_t *nic, const context_t *context) noexcept nogil:
    """Has the engine look at a context's rings where some are listed."""
    if context.virtio.receiving or context.virtio.sending:
        set_bit(nic.virtio, context.index)
        return
    clear_bit(nic.virtio, context.index)
    clear_bit(nic.virtio_used, context.index)
    clear_bit(nic.tx_active, context.index)


# What a driver asks of the device, checked (ext/cdna/nic/virtio/device_setup.pyx); ConfigError.
cdef accept_features(virtio_t *v, uint64_t features)
cdef steer_by_hash(virtio_t *v, types, key, table, unclassified)
# Descriptors of the frontend's that its rings have.
cdef int held_descriptors(const virtio_t *v) noexcept
# A broadcast of RARP in the name of a context that may send (RFC 903), within its rate.
cdef send_rarp(nic_t *nic, context_t *context, bytes mac)
