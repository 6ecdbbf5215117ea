"""Which flow a frame belongs to, as a number: one flow keeps to one queue, and its order.

`flow_hash` is the NIC's own, fast. `rss_hash` is what virtio prescribes for receive-side scaling
(virtio 1.2, 5.1.6.4.3): the Toeplitz hash of Microsoft's RSS, of the fields that the driver chose, with its
key. The hash is the sum, without carries, of the 32 bits of the key that begin at each set bit of the input;
a table has that sum for each value of each four bits of input.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.nic.offload.checksum cimport get_u16, get_u32
from cdna.nic.offload.ip cimport (
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_TCP,
    IPPROTO_UDP, IPV4_FRAGMENT, IPV4_HEADER, IPV6_HEADER, MAX_EXTENSIONS, network_offset,
)

cpdef enum HashType:            # what the driver allows (5.1.6.4.3.3: VIRTIO_NET_HASH_TYPE_*)
    VIRTIO_NET_HASH_TYPE_IPv4 = 1
    VIRTIO_NET_HASH_TYPE_TCPv4 = 2
    VIRTIO_NET_HASH_TYPE_UDPv4 = 4
    VIRTIO_NET_HASH_TYPE_IPv6 = 8
    VIRTIO_NET_HASH_TYPE_TCPv6 = 16
    VIRTIO_NET_HASH_TYPE_UDPv6 = 32
    VIRTIO_NET_HASH_TYPE_IP_EX = 64
    VIRTIO_NET_HASH_TYPE_TCP_EX = 128
    VIRTIO_NET_HASH_TYPE_UDP_EX = 256

cpdef enum HashReport:          # what was hashed (5.1.6.4.4: VIRTIO_NET_HASH_REPORT_*)
    VIRTIO_NET_HASH_REPORT_NONE = 0
    VIRTIO_NET_HASH_REPORT_IPv4 = 1
    VIRTIO_NET_HASH_REPORT_TCPv4 = 2
    VIRTIO_NET_HASH_REPORT_UDPv4 = 3
    VIRTIO_NET_HASH_REPORT_IPv6 = 4
    VIRTIO_NET_HASH_REPORT_TCPv6 = 5
    VIRTIO_NET_HASH_REPORT_UDPv6 = 6
    VIRTIO_NET_HASH_REPORT_IPv6_EX = 7
    VIRTIO_NET_HASH_REPORT_TCPv6_EX = 8
    VIRTIO_NET_HASH_REPORT_UDPv6_EX = 9

cdef enum:
    RSS_KEY = 40                # bytes
    RSS_INPUT = 36              # bytes, at most: two IPv6 addresses and two ports
    IPV6_TYPE_2 = 2             # of a routing header: its one address is the home address (RFC 6275, 6.4)
    IPV6_HOME_ADDRESS = 0xC9    # a destination option (RFC 6275, 6.3)

cdef struct flow_key_t:
    const uint8_t *source       # addresses, in the frame
    const uint8_t *destination
    const uint8_t *ports        # source and destination; NULL: another protocol, a fragment, or cut short
    const uint8_t *home         # IPv6: in place of the source, in a home address option; or NULL
    const uint8_t *routed       # IPv6: in place of the destination, in a routing header of type 2; or NULL
    uint32_t version            # 4 or 6; 0: no IP
    uint32_t protocol           # where there are ports: IPPROTO_TCP or IPPROTO_UDP
    bint extended               # IPv6: there are extension headers

cdef struct toeplitz_t:
    uint32_t nibble[72][16]     # by place in the input, by value


# --- the fields -------------------------------------------------------------------------------------------

cdef inline void key_ipv4(flow_key_t *key, const uint8_t *ip, uint32_t len) noexcept nogil:
    cdef uint32_t size
    if len < IPV4_HEADER:
        return
    size = <uint32_t>(ip[0] & 15) * 4
    key.version = 4
    key.source = ip + 12
    key.destination = ip + 16
    key.protocol = ip[9]
    if size >= IPV4_HEADER and len >= size + 4 and not get_u16(ip + 6) & IPV4_FRAGMENT and \
            (ip[9] == IPPROTO_TCP or ip[9] == IPPROTO_UDP):
        key.ports = ip + size


cdef inline const uint8_t *home_address(const uint8_t *options, uint32_t len) noexcept nogil:
    """The address of a home address option in a destination options header of `len` bytes, or NULL."""
    cdef uint32_t at = 2, n
    while at < len:
        if options[at] == 0:            # one byte of padding
            at += 1
            continue
        if len - at < 2:
            return NULL
        n = options[at + 1]
        if n > len - at - 2:
            return NULL
        if options[at] == IPV6_HOME_ADDRESS and n == 16:
            return options + at + 2
        at += 2 + n
    return NULL


cdef inline void key_ipv6(flow_key_t *key, const uint8_t *ip, uint32_t len) noexcept nogil:
    cdef uint32_t at = IPV6_HEADER, size, protocol
    cdef int _
    if len < IPV6_HEADER:
        return
    key.version = 6
    key.source = ip + 8
    key.destination = ip + 24
    protocol = ip[6]
    for _ in range(MAX_EXTENSIONS):
        if protocol not in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS):
            break
        key.extended = True
        if len - at < 8:
            return
        size = (<uint32_t>ip[at + 1] + 1) * 8
        if size > len - at:
            return
        if protocol == IPPROTO_DSTOPTS and key.home == NULL:
            key.home = home_address(ip + at, size)
        elif protocol == IPPROTO_ROUTING and ip[at + 2] == IPV6_TYPE_2 and size == 24:
            key.routed = ip + at + 8
        protocol = ip[at]
        at += size
    key.protocol = protocol
    if (protocol == IPPROTO_TCP or protocol == IPPROTO_UDP) and len - at >= 4:
        key.ports = ip + at


cdef inline void parse_flow(flow_key_t *key, const uint8_t *head, uint32_t len) noexcept nogil:
    """Finds the fields in a frame of which `len` bytes, at least 14, can be read."""
    cdef uint32_t ethertype = 0, at = network_offset(head, len, &ethertype)
    memset(key, 0, sizeof(flow_key_t))
    if at == 0:
        return
    if ethertype == ETHERTYPE_IPV4 and head[at] >> 4 == 4:
        key_ipv4(key, head + at, len - at)
    elif ethertype == ETHERTYPE_IPV6 and head[at] >> 4 == 6:
        key_ipv6(key, head + at, len - at)


# --- the NIC's own ----------------------------------------------------------------------------------------

cdef inline uint64_t mix(uint64_t hash, const uint8_t *at, uint32_t len) noexcept nogil:
    """Folds up to 8 bytes into a hash: multiply and fold, as in FxHash."""
    cdef uint64_t word = 0
    memcpy(&word, at, len)
    hash = (hash ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return hash ^ hash >> 32


cdef inline uint32_t flow_hash(const uint8_t *head, uint32_t len) noexcept nogil:
    """A hash of the flow that a frame belongs to, of which `len` bytes, at least 14, can be read.

    TCP and UDP: of addresses and ports; other IP, and fragments, which have no ports: of the addresses; all
    else: of the two MAC addresses. Each bit of it is as good as the others.
    """
    cdef flow_key_t key
    cdef uint64_t hash
    cdef uint32_t i
    parse_flow(&key, head, len)
    if key.version == 0:
        hash = mix(mix(1, head, 8), head + 8, 4)
    elif key.version == 4:
        hash = mix(4, key.source, 8)
    else:
        hash = 6
        for i in range(0, 32, 8):
            hash = mix(hash, key.source + i, 8)
    if key.ports != NULL:
        hash = mix(hash, key.ports, 4)
    hash *= <uint64_t>0xD6E8FEB86659FD93    # neighbouring addresses and ports differ in a few bits
    return <uint32_t>(hash ^ hash >> 32)


# --- virtio's ---------------------------------------------------------------------------------------------

cdef inline void toeplitz_init(toeplitz_t *t, const uint8_t *key) noexcept nogil:
    """Prepares the table for a key of RSS_KEY bytes."""
    cdef uint64_t window
    cdef uint32_t place, value, bit, at
    for place in range(2 * RSS_INPUT):
        at = place // 2                 # bytes; the four bits begin 4 * (place & 1) bits later
        window = <uint64_t>get_u32(key + at) << 32
        if at + 4 < RSS_KEY:
            window |= <uint64_t>key[at + 4] << 24
        window <<= 4 * (place & 1)
        for value in range(16):
            t.nibble[place][value] = 0
            for bit in range(4):
                if value & 8 >> bit:
                    t.nibble[place][value] ^= <uint32_t>(window << bit >> 32)


cdef inline uint32_t toeplitz(const toeplitz_t *t, uint32_t at, const uint8_t *data,
                              uint32_t len) noexcept nogil:
    """What `len` bytes, the input's from byte `at` on, add to the hash; at + len <= RSS_INPUT."""
    cdef uint32_t hash = 0, i
    for i in range(len):
        hash ^= t.nibble[2 * (at + i)][data[i] >> 4] ^ t.nibble[2 * (at + i) + 1][data[i] & 15]
    return hash


cdef inline uint32_t hash_report(const flow_key_t *key, uint32_t types) noexcept nogil:
    """Which of the allowed types fits a frame best (5.1.6.4.3.1 to 5.1.6.4.3.4): a HashReport."""
    cdef bint tcp = key.ports != NULL and key.protocol == IPPROTO_TCP
    cdef bint udp = key.ports != NULL and key.protocol == IPPROTO_UDP
    if key.version == 4:
        if tcp and types & VIRTIO_NET_HASH_TYPE_TCPv4:
            return VIRTIO_NET_HASH_REPORT_TCPv4
        if udp and types & VIRTIO_NET_HASH_TYPE_UDPv4:
            return VIRTIO_NET_HASH_REPORT_UDPv4
        if types & VIRTIO_NET_HASH_TYPE_IPv4:
            return VIRTIO_NET_HASH_REPORT_IPv4
    if key.version != 6:
        return VIRTIO_NET_HASH_REPORT_NONE
    if key.extended:
        if tcp and types & VIRTIO_NET_HASH_TYPE_TCP_EX:
            return VIRTIO_NET_HASH_REPORT_TCPv6_EX
        if udp and types & VIRTIO_NET_HASH_TYPE_UDP_EX:
            return VIRTIO_NET_HASH_REPORT_UDPv6_EX
        if types & VIRTIO_NET_HASH_TYPE_IP_EX:
            return VIRTIO_NET_HASH_REPORT_IPv6_EX
    if tcp and types & VIRTIO_NET_HASH_TYPE_TCPv6:
        return VIRTIO_NET_HASH_REPORT_TCPv6
    if udp and types & VIRTIO_NET_HASH_TYPE_UDPv6:
        return VIRTIO_NET_HASH_REPORT_UDPv6
    return VIRTIO_NET_HASH_REPORT_IPv6 if types & VIRTIO_NET_HASH_TYPE_IPv6 else VIRTIO_NET_HASH_REPORT_NONE


cdef inline uint32_t rss_hash(const toeplitz_t *t, uint32_t types, const uint8_t *head, uint32_t len,
                              uint32_t *hash) noexcept nogil:
    """Sets the hash of a frame of which `len` bytes, at least 14, can be read. Returns its HashReport.

    types: a sum of HashType. VIRTIO_NET_HASH_REPORT_NONE: there is no hash, and it is 0.
    """
    cdef flow_key_t key
    cdef uint32_t report, address
    parse_flow(&key, head, len)
    report = hash_report(&key, types)
    hash[0] = 0
    if report == VIRTIO_NET_HASH_REPORT_NONE:
        return report
    address = 4 if key.version == 4 else 16
    if report >= VIRTIO_NET_HASH_REPORT_IPv6_EX:
        if key.home != NULL:
            key.source = key.home
        if key.routed != NULL:
            key.destination = key.routed
    hash[0] = toeplitz(t, 0, key.source, address) ^ toeplitz(t, address, key.destination, address)
    if report not in (VIRTIO_NET_HASH_REPORT_IPv4, VIRTIO_NET_HASH_REPORT_IPv6,
                      VIRTIO_NET_HASH_REPORT_IPv6_EX):
        hash[0] ^= toeplitz(t, 2 * address, key.ports, 4)
    return report
