"""Frames between the taps of namespace guests and their contexts, in the thread of the NIC's loop."""

from libc.stdint cimport uint32_t

from cdna.guests.tap_port cimport port_t
from cdna.nic.loop cimport driver_in_loop_t

cdef struct pump_t:
    driver_in_loop_t driver     # first: the loop's pointer is the pump's
    port_t *port
    uint32_t ports              # in use or free, in `port`
