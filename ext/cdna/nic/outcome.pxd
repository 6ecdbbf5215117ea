"""What became of a frame: the one vocabulary of rings, scheduler, switch and offloads.

A function that returns an outcome names in its docstring those that it can return. `DONE` is 1 and `WAIT` 0,
so an outcome of these two alone may be tested as a truth. A capture shows an outcome in words of its own
(`capture_reason` in capture_ring.pxd).
"""

cdef enum:
    STOPPED = -1                # the context broke a rule with it and was stopped
    WAIT = 0                    # nothing was done: no room on the wire, or a part is missing; try again
    DONE = 1                    # sent or delivered; for the sender also: dropped, and counted
    GATHER = 2                  # nothing was done: the frame has to be collected in NIC memory first
    # Dropped and counted; each is called as the counter in `stats_t` is.
    TX_DROP_SPOOF = 3
    TX_DROP_VLAN = 4
    TX_DROP_LINK = 5
    TX_DROP_FILTER = 6
    TX_DROP_MTU = 7
    RX_DROP_NO_BUFFER = 8
    RX_DROP_NO_DRIVER = 9
    RX_DROP_LINK = 10
    RX_DROP_MTU = 11
    RX_DROP_STOPPED = 12
    TX_DROP_STORM = 13
