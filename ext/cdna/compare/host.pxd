"""The host processor of a comparison: one core, handed from domain to domain by the VMM.

Domains are processes pinned to one core. The VMM's code runs in whichever domain called it, as a
hypervisor that is mapped into every address space does. A hypercall is one real kernel crossing and then
that code; a domain switch is one futex hand-off, which is one real address-space switch. Every cycle of
the core is charged to the VMM, to a domain or to idle, at those points and nowhere else.

A domain's `run` works until it has nothing left to do and returns; returning is the hypercall that blocks
(SCHEDOP_block). It is run again when an event is posted to it. `run` also returns, with work left, when
`slice_over` says so; it calls `stay_runnable` first (SCHEDOP_yield).

What a path (`cdna.compare.path`) owes the host, and when:

1. Before the fork, in one process: `Host.add_domain` for each domain, `Host.own_context` for each context
   that interrupts one, and `Host.add_guest` with each guest's counters. All of it, and what the counters
   and `state` point to, is memory that forked processes share, and lives as long as the slice.
2. While the slice runs: a domain's code runs in `run` alone, and never sleeps there. The VMM's work is done
   between `hypercall_enter` and `hypercall_leave`; `post_event`, to another domain with new work, is part of
   it. Load is offered in PHASE_LOAD only.
3. The host writes `domain_t` and `host_t`. A guest's domain writes that guest's counters, which only grow.
   When nothing is under way any more, what was sent and what arrived are the same number.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.memory cimport SharedRegion
from cdna.vmm.protection cimport vmm_t

cdef enum:
    MAX_DOMAINS = 64
    MAX_GUESTS = 63             # and a driver domain

cdef enum Account:              # whom a cycle is charged to
    ACCOUNT_VMM = 0
    ACCOUNT_DRIVER_DOMAIN = 1
    ACCOUNT_GUESTS = 2
    ACCOUNT_IDLE = 3
    ACCOUNTS = 4

cdef enum Phase:
    PHASE_LOAD = 0              # guests offer load
    PHASE_DRAIN = 1             # nothing new; what is under way arrives
    PHASE_STOP = 2              # every domain leaves

cdef struct domain_t
cdef struct host_t

ctypedef void (*run_t)(domain_t *self, host_t *host) noexcept nogil

cdef struct domain_t:
    uint32_t turn               # futex word: 1 while the core is this domain's
    uint32_t id                 # domain id
    uint32_t index              # in host_t.domain
    uint32_t account            # ACCOUNT_DRIVER_DOMAIN or ACCOUNT_GUESTS
    run_t run
    void *state
    uint8_t _pad[32]

cdef struct guest_counters_t:
    const uint64_t *sent                # frames offered: transmit
    const uint64_t *received            # frames taken: receive
    const uint64_t *bytes_received

cdef struct host_t:
    vmm_t *vmm
    domain_t domain[64]
    uint32_t domains
    uint32_t current            # index of the domain that has the core
    uint32_t inline_domains     # 1: no switches and no kernel crossings, all domains in one process
    uint32_t phase              # Phase
    uint64_t runnable           # bit i: domain i has an event pending
    uint64_t slice_end          # cycle count
    uint64_t slice_cycles
    uint64_t charged_at         # cycle count of the last charge
    uint32_t charged_to         # Account
    uint32_t measuring
    uint64_t spent[4]           # cycles by Account, while measuring
    uint64_t hypercalls
    uint64_t switches
    uint64_t physical_interrupts
    uint64_t driver_domain_interrupts
    uint64_t guest_interrupts
    uint64_t measure_from       # cycle counts: load is offered from the start on, measured from here
    uint64_t load_until         # until here; then what is under way drains,
    uint64_t drain_until        # at the latest until here
    uint64_t measured_cycles    # between measure_from and load_until, as it came out
    uint64_t frames             # delivered while measuring
    uint64_t bytes
    uint32_t ready              # domains that wait for their first turn
    uint32_t yields             # 1: the NIC shares this core, let it run while idle
    uint32_t context_domain[4096]   # index of the domain that owns a context
    # The comparison's own part, set before the start. `arg` is passed to all three.
    void *arg
    void (*delivered)(void *arg, uint64_t *frames, uint64_t *bytes) noexcept nogil     # so far, in total
    void (*stop_load)(void *arg) noexcept nogil         # the wire's generator, when the load ends
    bint (*drained)(void *arg) noexcept nogil           # whether all that was sent has arrived
    uint32_t guests
    guest_counters_t guest[63]

cdef class Host:
    """The host core before anything runs: its memory, which forked processes share, and its domains."""
    cdef host_t *c
    cdef SharedRegion _region
    # Adds a domain that runs at the start. account: ACCOUNT_DRIVER_DOMAIN or ACCOUNT_GUESTS.
    cdef domain_t *add_domain(self, uint32_t id, uint32_t account, run_t run, void *state) except NULL
    # Interrupts of this context become events of `domain`.
    cdef void own_context(self, uint32_t context, const domain_t *domain) noexcept
    cdef add_guest(self, const uint64_t *sent, const uint64_t *received, const uint64_t *bytes_received)

# A hypercall is enter, the VMM's code, leave. leave also looks for a NIC interrupt.
cdef void hypercall_enter(host_t *host) noexcept nogil
cdef void hypercall_leave(host_t *host) noexcept nogil
# VMM code only: makes a domain runnable, a virtual interrupt. Posting to a domain with one pending is free.
cdef void post_event(host_t *host, uint32_t domain) noexcept nogil
cdef bint slice_over(host_t *host) noexcept nogil
cdef void stay_runnable(host_t *host) noexcept nogil
# What a domain's process executes: waits for its turn, runs, blocks; returns in PHASE_STOP.
cdef void domain_main(host_t *host, uint32_t domain) noexcept nogil
# The same for all domains in one process.
cdef void host_run_inline(host_t *host) noexcept nogil
