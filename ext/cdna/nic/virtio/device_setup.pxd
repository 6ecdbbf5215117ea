"""A virtio-net device beyond a single ring: its features, the rings that are served, where frames go.

Received frames go to the active pairs by a flow hash of the NIC's own, or by the key and the table that the
driver has given (receive-side scaling, RSS; virtio 1.2, 5.1.6.5.7). `rx.pxd` chooses by what is written here.
The engine stands still meanwhile.
"""

from libc.stdint cimport uint32_t, uint64_t

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


# What a driver asks of the device, checked (ext/cdna/nic/virtio/device_setup.pyx); ConfigError.
cdef accept_features(virtio_t *v, uint64_t features)
cdef steer_by_hash(virtio_t *v, types, key, table, unclassified)
