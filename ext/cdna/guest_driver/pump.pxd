"""Frames between the taps of namespace guests and their contexts, and the NIC, in one thread."""

from libc.stdint cimport int64_t, uint32_t

from cdna.guest_driver.moderation cimport moderation_t
from cdna.guest_driver.tap_port cimport port_t
from cdna.nic.context cimport nic_t

cdef struct pump_t:
    nic_t *nic
    port_t *port
    uint32_t ports              # in use or free, in `port`
    uint32_t used_ports         # of them, those with a tap
    uint32_t wakers             # native contexts without a tap, whose drivers call Nic.wake
    int epoll
    uint32_t needs_poll         # the wire may deliver without a descriptor that says so
    uint32_t rescan             # 1: any tap may have frames
    moderation_t moderation
    int64_t spin_cycles         # how long the loop spins before it sleeps; below 0: always
