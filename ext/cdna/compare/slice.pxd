"""One slice of a comparison: the domains and the NIC as processes, from the first frame to the last."""

from libc.stdint cimport uint64_t

from cdna.compare.host cimport Host, host_t
from cdna.memory cimport SharedRegion
from cdna.nic.generator cimport generator_t
from cdna.nic.state cimport nic_t
from cdna.nic.wire_contract cimport wire_t

cdef struct tally_t:            # where the frames are counted, whatever the path
    host_t *host                        # has the guests' counters
    nic_t *nic
    wire_t *wire
    generator_t *generator              # receive only, else NULL
    uint64_t stop_round                 # of the NIC, when the generator was told to stop

cdef class Slice:
    cdef readonly Host host
    cdef readonly object machine
    cdef tally_t *tally
    cdef SharedRegion _region
    cdef _fork(self, list cpus)
    cdef void _start(self, double warm_up, double seconds) noexcept
