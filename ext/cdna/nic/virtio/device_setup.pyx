"""The device as a whole: what a driver asks of it, checked (virtio 1.2, 5.1), and what it says of itself."""
# build: explored

from libc.stdint cimport uint32_t, uint64_t

from cdna.checks cimport CHECK_FEATURES_MODERN, CHECK_FORMAT_STARTED, CHECK_RSS_KEY, CHECK_RSS_TABLE, broken
from cdna.cpu cimport cycles
from cdna.nic.context cimport context_t
from cdna.nic.offload.flow_hash cimport RSS_KEY, toeplitz_init, toeplitz_t
from cdna.nic.rate cimport has_tokens, refill_tokens
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport forward_flat
from cdna.nic.virtio.queue cimport virtio_t, virtqueue_t
from cdna.nic.virtio.queue_setup cimport ring_descriptors, set_ring_features
from cdna.nic.wire_queue cimport flush_wire

from cdna.errors import ConfigError, whole
from cdna.virtio import Feature


cdef accept_features(virtio_t *v, uint64_t features):
    """What the driver accepted. A started ring keeps its format."""
    cdef virtqueue_t *q
    cdef bint packed = has_feature(features, Feature.VIRTIO_F_RING_PACKED)
    cdef bint modern = has_feature(features, Feature.VIRTIO_F_VERSION_1)
    if broken(CHECK_FEATURES_MODERN, packed and not modern):
        raise ConfigError("features: RING_PACKED needs VERSION_1")
    for i in range(2 * v.pairs):
        q = &v.queue[i]
        if broken(CHECK_FORMAT_STARTED, q.started and q.packed != packed):
            raise ConfigError(f"features: queue {i} is started in the other ring format; stop it first")
    v.features = features
    v.mergeable = has_feature(features, Feature.VIRTIO_NET_F_MRG_RXBUF)
    v.header = 12 if modern or v.mergeable else 10
    for i in range(2 * v.pairs):
        set_ring_features(&v.queue[i], features)


cdef steer_by_hash(virtio_t *v, types, key, table, unclassified):
    """Distributes received frames to all pairs, as `VirtioDevice.set_rss` describes. Errors: ConfigError."""
    if broken(CHECK_RSS_TABLE, len(table) not in (1, 2, 4, 8, 16, 32, 64, 128)):
        raise ConfigError(f"an RSS table of {len(table)} entries: give a power of two, up to 128")
    if broken(CHECK_RSS_KEY, len(key) != RSS_KEY):
        raise ConfigError(f"an RSS key of {len(key)} bytes: give {<int>RSS_KEY}")
    for queue in (*table, unclassified):
        whole("RSS queue", queue, 0, v.pairs - 1)
    toeplitz_init(<toeplitz_t *>v.rss.key, <bytes>key)
    for i, queue in enumerate(table):
        v.rss.queue[<int>i] = queue
    v.rss.mask = len(table) - 1
    v.rss.unclassified = unclassified
    v.rss.types = types
    v.active = v.pairs


cdef int held_descriptors(const virtio_t *v) noexcept:
    cdef int number = 0
    cdef uint32_t i
    for i in range(2 * v.pairs):
        number += ring_descriptors(&v.queue[i])
    return number


cdef send_rarp(nic_t *nic, context_t *context, bytes mac):
    cdef bytes frame = (b"\xff" * 6 + mac + b"\x80\x35" + b"\x00\x01\x08\x00\x06\x04\x00\x03"
                        + mac + bytes(4) + mac + bytes(4)).ljust(60, b"\0")
    refill_tokens(context, cycles())
    if has_tokens(context):
        nic.payer = context
        forward_flat(nic, context, frame, 60, 0, NULL)
        flush_wire(nic)
