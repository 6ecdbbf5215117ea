"""A wire, as the NIC runs it: two functions, and what they say of themselves.

Both are called in the engine's thread alone, in turns, never at the same time and never while the engine
stands still. They may run in a process that was forked after the wire was made: their state is shared memory.
They make no Python object, and they do not wait. Python closes the wire when the NIC no longer runs it, and
may replace both functions while the engine stands still.

    what                  whose it is
    tx, frame.data        the NIC's; tx copies it, or hands it to a kernel that copies, before it returns.
                          Frames that tx does not take are offered again, in order.
    rx, frame.data        the wire's; the NIC may read and change it until the next call of rx
    link, offloads,       the wire's, written at any time; the NIC reads them whenever it needs them
    tx_waiting, state
    tx_frames, tx_bytes,  the NIC's; Python reads them at any time
    rx_frames, rx_bytes

A frame has MIN_FRAME to MAX_FRAME bytes; with `offload.mss` up to MAX_TSO_FRAME. rx may give anything else:
the NIC checks it, as it checks a guest's. tx is given an offload only where `offloads` has its kind.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.frame cimport frame_t

cdef struct wire_t:
    # Sends up to n frames; returns how many it took. The rest is offered again later.
    int (*tx)(wire_t *self, frame_t *frame, int n) noexcept nogil
    # Receives up to n frames; returns how many.
    int (*rx)(wire_t *self, frame_t *frame, int n) noexcept nogil
    void *state
    uint32_t link               # 1: up
    uint32_t offloads           # Takes: what tx takes; rx may give frames with an offload in any case
    uint32_t tx_waiting         # 1: it took frames that its device has not; call rx soon, whatever arrives
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t rx_frames
    uint64_t rx_bytes
