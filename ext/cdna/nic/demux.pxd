"""Demultiplexing: who gets a frame. By destination address and VLAN; multicast; promiscuous contexts.

A VLAN belongs to a frame, not to its bytes: an access context (vlan 1 to 4094) sends and receives
untagged bytes, the NIC puts the tag on for the wire and for trunks, and takes it off on the way in.

These are VLANs of customers, whose tags (C-tags) begin with 0x8100. Tags of service providers are another
space of numbers (IEEE 802.1Q, 5.5 and 9.5; first in 802.1ad): VLAN 5 of a provider is none of VLAN 5. Frames
with such a tag in front are for trunks and the wire alone.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.cpu cimport unlikely
from cdna.nic.context cimport VLAN_TRUNK, context_t
from cdna.nic.mac_table cimport VLAN_SHIFT, address_key, mac_entry_t
from cdna.nic.state cimport nic_t

cdef enum:
    MAC_MASK = 0xFFFFFFFFFFFF
    MULTICAST_BIT = 1           # of the first byte of an address (IEEE 802.3 section 3.2.3)
    TAG_LENGTH = 4
    ETHERTYPE_VLAN = 0x8100     # IEEE 802.1Q
    ETHERTYPE_QINQ = 0x88A8     # a provider's tag (IEEE 802.1ad)
    ETHERTYPE_QINQ1 = 0x9100    # the same, of switches that are older than the standard
    ETHERTYPE_QINQ2 = 0x9200
    ETHERTYPE_QINQ3 = 0x9300
    ETHERTYPE_CONTROL = 0x8808  # MAC control: PAUSE and its kin (IEEE 802.3, clause 31)
    VID_MASK = 0x0FFF
    VID_SERVICE = 0x2000        # of `header_t.vid`, beside the number: a provider's VLAN, for trunks alone

cdef struct header_t:           # what the NIC reads of a frame, once
    uint64_t destination        # as `context_t.mac`
    uint64_t source
    uint16_t vid                # VLAN of the frame; 0: none; with VID_SERVICE: a provider's
    uint8_t tagged              # 1: the tag is in the bytes
    uint8_t nested              # 1: another one behind it
    uint8_t control             # 1: MAC control, for the link's other end
    uint8_t priority            # 1: a priority tag (IEEE 802.1Q, 6.9.1): it says a priority, and no VLAN


cdef inline bint is_tag(uint32_t ethertype) noexcept nogil:
    if ethertype < ETHERTYPE_VLAN:      # IPv4 and ARP are
        return False
    return ethertype == ETHERTYPE_VLAN or ethertype == ETHERTYPE_QINQ or ethertype == ETHERTYPE_QINQ1 or \
        ethertype == ETHERTYPE_QINQ2 or ethertype == ETHERTYPE_QINQ3


cdef inline void parse_tag(header_t *header, const uint8_t *frame, uint32_t ethertype) noexcept nogil:
    header.tagged = 1
    header.nested = is_tag(<uint32_t>frame[16] << 8 | frame[17])
    header.vid = (<uint16_t>frame[14] << 8 | frame[15]) & VID_MASK
    if ethertype == ETHERTYPE_VLAN:
        header.priority = header.vid == 0
    else:
        header.vid |= VID_SERVICE


cdef inline void parse_header(header_t *header, const uint8_t *frame) noexcept nogil:
    """Reads the header of a frame in NIC memory; at least 18 bytes can be read there.

    In aligned words: the copy was just made in pieces of 16 bytes and more, and a word across two of them
    waits until both have left the store buffer.
    """
    cdef uint64_t first = 0, second = 0
    cdef uint32_t ethertype = <uint32_t>frame[12] << 8 | frame[13]
    memcpy(&first, frame, 8)            # each of them one load
    memcpy(&second, frame + 8, 8)
    header.destination = first & MAC_MASK
    header.source = first >> 48 | <uint64_t><uint32_t>second << 16
    header.control = ethertype == ETHERTYPE_CONTROL
    header.tagged = header.nested = header.priority = 0
    header.vid = 0
    if unlikely(is_tag(ethertype)):
        parse_tag(header, frame, ethertype)


cdef inline uint32_t mac_slot(const nic_t *nic, uint64_t key) noexcept nogil:
    # From the top of the product: neighbours differ in the address's last byte, the key's bits 40 to 47, and
    # one address in several VLANs above those.
    return <uint32_t>((key * <uint64_t>0x9E3779B97F4A7C15) >> 48) & nic.mac_mask


cdef inline context_t *find_key(const nic_t *nic, const mac_entry_t *table, uint64_t key) noexcept nogil:
    """The context that a table has for exactly this key, or NULL. The table is at most a quarter full."""
    cdef uint32_t slot = mac_slot(nic, key)
    while table[slot].key != key:
        if table[slot].key == 0:
            return NULL
        slot = (slot + 1) & nic.mac_mask
    return &nic.context[table[slot].context]


cdef inline context_t *find_in(const nic_t *nic, const mac_entry_t *table, uint64_t key) noexcept nogil:
    """The context that a table has for an address in a VLAN, or NULL: an access port, or a trunk."""
    cdef context_t *context = find_key(nic, table, key)
    if context == NULL and unlikely(nic.n_trunks):
        return find_key(nic, table, key | <uint64_t>VLAN_TRUNK << VLAN_SHIFT)
    return context


cdef inline context_t *find_mac(const nic_t *nic, uint64_t mac, uint32_t vid) noexcept nogil:
    """The context whose own address this is in a VLAN, or NULL."""
    return find_in(nic, nic.mac_table, address_key(mac, vid))


cdef inline void enter_mac(const nic_t *nic, mac_entry_t *table, const context_t *context) noexcept nogil:
    """Adds a context's own address to a table."""
    cdef uint64_t key = address_key(context.mac, context.vlan)
    cdef uint32_t slot = mac_slot(nic, key)
    while table[slot].key:
        slot = (slot + 1) & nic.mac_mask
    table[slot].key = key
    table[slot].context = context.index


cdef inline bint admits(const context_t *context, const header_t *header) noexcept nogil:
    """Whether a frame of this VLAN may reach the context."""
    return context.vlan == header.vid or context.vlan == VLAN_TRUNK


cdef inline bint wants_multicast(const context_t *context, uint64_t mac) noexcept nogil:
    cdef uint32_t i
    if mac == MAC_MASK or context.all_multicast or context.promiscuous:
        return True
    for i in range(context.multicast_filters):
        if context.multicast[i] == mac:
            return True
    return False
