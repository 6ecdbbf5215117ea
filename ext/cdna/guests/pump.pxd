"""Frames between the taps of namespace guests and their contexts, in the thread of the NIC's loop.

A second thread writes to the taps of ports that are slow (slow_tap.pxd). It holds no lock: `port` never
moves, and `at` says which port the thread is at.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.guests.tap_port cimport port_t
from cdna.nic.loop cimport driver_in_loop_t
from cdna.nic.state cimport nic_t

cdef struct pump_t:
    driver_in_loop_t driver     # first: the loop's pointer is the pump's
    nic_t *nic
    port_t *port                # room for one of each context
    uint32_t ports              # in use or free, in `port`
    uint64_t slow_write         # cycles that a write may take
    uint64_t allowed            # cycles that the writes of a port may take beyond that, together
    # The second thread:
    uint32_t handed             # a futex: counts when frames were handed over
    uint32_t asleep             # 1: it waits for `handed` to change
    uint32_t at                 # a futex: the port that it is at, plus 1; 0: none
    uint32_t waiting            # threads that wait for `at` to change
    uint32_t stop
    uint64_t served             # ns: the clock of its ports, which the one that was served least is next by
