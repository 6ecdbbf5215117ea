"""The receive side of a null wire: flows of stamped frames, each with a window, as TCP would have."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.nic.device cimport Nic
from cdna.nic.line cimport line_t
from cdna.nic.null_wire cimport NullWire, sink_t
from cdna.nic.state cimport nic_t
from cdna.nic.traffic cimport Load, load_t

# The receive descriptors of one context, which several flows may share.
cdef struct credit_t:
    uint32_t context            # index on the NIC
    uint32_t spent              # descriptors promised in the current burst
    uint64_t burst              # the burst that `spent` is of

cdef struct flow_t:             # two cache lines; another core reads `sent` and writes *ack
    uint64_t sent               # frames
    uint64_t dst_mac
    uint64_t src_mac
    const uint64_t *ack         # frames that the receiver has taken
    uint64_t acked              # *ack when last read
    uint32_t id
    uint32_t window             # frames under way at most
    uint32_t credit             # index in generator_t.credit
    uint32_t buffer_size        # bytes of a receive buffer of that context
    uint8_t _pad0[8]
    uint64_t own_ack            # where `ack` points unless told otherwise
    uint8_t _pad1[56]

cdef struct generator_t:
    sink_t sink                 # first: null_tx finds it behind wire_t.state
    nic_t *nic                  # whose descriptors are looked at; NULL: none are
    const load_t *load
    flow_t *flow
    credit_t *credit
    uint32_t flows
    uint32_t max_flows
    uint32_t credits
    uint32_t next               # flow whose turn it is
    uint32_t stop
    uint32_t slot_stride
    uint64_t limit              # frames a flow; 0: no limit
    uint64_t bursts
    line_t line
    uint8_t *slot               # BURST frames

cdef class GeneratorWire(NullWire):
    cdef generator_t *generator
    cdef readonly Load load
    cdef Nic _nic
    # Where the receiver of a flow counts the frames that it has taken; in memory that the NIC's process has.
    cdef void set_ack(self, uint32_t flow, const uint64_t *ack) noexcept
    cdef uint32_t _credit_of(self, uint32_t context) noexcept
