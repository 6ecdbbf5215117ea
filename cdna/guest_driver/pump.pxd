"""Frames between the taps of namespace guests and their contexts, and the NIC, in one thread."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cdna.guest_driver.queues cimport driver_t
from cdna.nic.context cimport nic_t

cdef struct port_t:             # a guest: its tap and its context
    driver_t *driver            # NULL: the port is free
    int fd                      # of the tap
    uint32_t readable           # 1: the tap may have frames
    uint32_t link               # 1: up
    bint joins                  # the tap takes joined datagrams
    uint64_t from_tap           # frames
    uint64_t to_tap
    uint64_t lost_to_tap        # frames that the tap did not take, or that came while the link was down
    uint64_t lost_from_tap      # frames of no possible length, or that the VMM refused

cdef struct pump_t:
    nic_t *nic
    port_t *port
    uint32_t ports              # in use or free, in `port`
    uint32_t attached           # in use
    int epoll
    uint32_t needs_poll         # the wire may deliver without a descriptor that says so
    uint32_t rescan             # 1: any tap may have frames
    int64_t spin_cycles         # how long the loop spins before it sleeps; below 0: always
