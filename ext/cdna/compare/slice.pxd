"""One slice of a comparison: the domains and the NIC as processes, from the first frame to the last."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.compare.host cimport host_t
from cdna.memory cimport SharedRegion
from cdna.nic.generator cimport generator_t
from cdna.nic.state cimport nic_t
from cdna.nic.wire_contract cimport wire_t

cdef struct tally_t:            # where the frames are counted, whatever the path
    uint32_t guests
    uint32_t receiving
    const nic_t *nic
    uint64_t stop_round                 # of the NIC, when the generator was told to stop
    wire_t *wire
    generator_t *generator              # receive only
    const uint64_t *sent[63]            # frames, by guest: transmit
    const uint64_t *received[63]        # frames, by guest: receive
    const uint64_t *bytes_received[63]

cdef class Slice:
    cdef host_t *host
    cdef tally_t *tally
    cdef SharedRegion _region
    cdef object machine
    cdef list _keep
    cdef _fork(self, list cpus)
    cdef void _start(self, double warm_up, double seconds) noexcept
