"""The host core of a comparison: the VMM's scheduler, its accounts, and the hand-over of the core."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport (
    cpu_relax, cycles, futex_wait, futex_wake, load_u32, null_system_call, sched_yield, store_u32,
)
from cdna.memory cimport SharedRegion
from cdna.vmm.protection cimport decode_interrupts

from cdna.errors import ResourceError

cdef enum:
    NOBODY = 0xFFFFFFFF


cdef class Host:
    """The host core of a slice; a path adds its domains and guests. host.pxd has the contract."""

    def __cinit__(self):
        self._region = SharedRegion(sizeof(host_t))
        self.c = <host_t *>self._region.base

    cdef domain_t *add_domain(self, uint32_t id, uint32_t account, run_t run, void *state) except NULL:
        cdef domain_t *domain = &self.c.domain[self.c.domains]
        if self.c.domains == MAX_DOMAINS:
            raise ResourceError(f"there can be {<int>MAX_DOMAINS} domains")
        domain.index = self.c.domains
        domain.id = id
        domain.account = account
        domain.run = run
        domain.state = state
        self.c.domains += 1
        post_event(self.c, domain.index)
        return domain

    cdef void own_context(self, uint32_t context, const domain_t *domain) noexcept:
        self.c.context_domain[context] = domain.index

    cdef add_guest(self, const uint64_t *sent, const uint64_t *received, const uint64_t *bytes_received):
        cdef guest_counters_t *guest = &self.c.guest[self.c.guests]
        if self.c.guests == MAX_GUESTS:
            raise ResourceError(f"there can be {<int>MAX_GUESTS} guests")
        guest.sent, guest.received, guest.bytes_received = sent, received, bytes_received
        self.c.guests += 1


# --- accounts and phases ----------------------------------------------------------------------------------

cdef inline void charge(host_t *host, uint32_t account) noexcept nogil:
    """Charges the time since the last charge to whom it belonged; what follows belongs to `account`."""
    cdef uint64_t now = cycles()
    if host.measuring:
        host.spent[host.charged_to] += now - host.charged_at
    host.charged_at = now
    host.charged_to = account


cdef void start_measuring(host_t *host) noexcept nogil:
    cdef uint32_t i
    host.delivered(host.arg, &host.frames, &host.bytes)
    for i in range(ACCOUNTS):
        host.spent[i] = 0
    host.measured_cycles = cycles()
    host.charged_at = host.measured_cycles
    host.measuring = 1


cdef void stop_measuring(host_t *host) noexcept nogil:
    cdef uint64_t frames = 0, bytes_ = 0
    host.delivered(host.arg, &frames, &bytes_)
    charge(host, host.charged_to)
    host.measured_cycles = cycles() - host.measured_cycles
    host.frames = frames - host.frames
    host.bytes = bytes_ - host.bytes
    host.measuring = 0


cdef inline void advance_phase(host_t *host) noexcept nogil:
    """Moves on to the phase that it is time for."""
    cdef uint64_t now = host.charged_at
    if host.phase == PHASE_LOAD:
        if not host.measuring and now >= host.measure_from:
            start_measuring(host)
        if now >= host.load_until:
            stop_measuring(host)
            host.phase = PHASE_DRAIN
            host.stop_load(host.arg)
    elif host.phase == PHASE_DRAIN and (now >= host.drain_until or host.drained(host.arg)):
        host.phase = PHASE_STOP


# --- interrupts and events --------------------------------------------------------------------------------

cdef void post_event(host_t *host, uint32_t domain) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << domain
    if host.runnable & bit:
        return
    host.runnable |= bit
    if not host.measuring:
        return
    if host.domain[domain].account == ACCOUNT_DRIVER_DOMAIN:
        host.driver_domain_interrupts += 1
    else:
        host.guest_interrupts += 1


cdef void post_virtual_interrupt(uint32_t context, void *arg) noexcept nogil:
    cdef host_t *host = <host_t *>arg
    host.vmm.context[context].events += 1
    post_event(host, host.context_domain[context])


cdef inline void notice_interrupts(host_t *host) noexcept nogil:
    """Looks whether the NIC has raised an interrupt, and hands it on."""
    cdef int vectors = decode_interrupts(host.vmm, post_virtual_interrupt, host)
    if host.measuring:
        host.physical_interrupts += vectors


# --- hypercalls and slices --------------------------------------------------------------------------------

cdef void hypercall_enter(host_t *host) noexcept nogil:
    charge(host, ACCOUNT_VMM)
    if not host.inline_domains:
        null_system_call()
    if host.measuring:
        host.hypercalls += 1


cdef void hypercall_leave(host_t *host) noexcept nogil:
    notice_interrupts(host)
    advance_phase(host)
    charge(host, host.domain[host.current].account)


cdef bint slice_over(host_t *host) noexcept nogil:
    return cycles() >= host.slice_end or host.phase == PHASE_STOP


cdef void stay_runnable(host_t *host) noexcept nogil:
    host.runnable |= <uint64_t>1 << host.current


# --- scheduling -------------------------------------------------------------------------------------------

cdef inline uint32_t next_runnable(const host_t *host) noexcept nogil:
    """Round robin: the first runnable domain behind the current one."""
    cdef uint32_t domain = host.current
    if host.runnable == 0:
        return NOBODY
    for _ in range(host.domains):
        domain = domain + 1 if domain + 1 < host.domains else 0
        if host.runnable >> domain & 1:
            return domain
    return NOBODY


cdef uint32_t schedule(host_t *host) noexcept nogil:
    """The VMM, after a domain has blocked: waits for somebody to run. NOBODY: the comparison is over."""
    cdef uint32_t domain
    notice_interrupts(host)
    advance_phase(host)
    domain = next_runnable(host)
    if domain == NOBODY and host.phase != PHASE_STOP:
        charge(host, ACCOUNT_IDLE)
        while domain == NOBODY and host.phase != PHASE_STOP:
            cpu_relax()
            if host.yields:
                sched_yield()
            notice_interrupts(host)
            domain = next_runnable(host)
            charge(host, ACCOUNT_IDLE)
            advance_phase(host)
        charge(host, ACCOUNT_VMM)
    return NOBODY if host.phase == PHASE_STOP else domain


cdef inline void dispatch(host_t *host, uint32_t domain) noexcept nogil:
    """Runs a domain until it blocks; the core is in its address space."""
    cdef domain_t *d = &host.domain[domain]
    host.runnable &= ~(<uint64_t>1 << domain)
    host.slice_end = host.charged_at + host.slice_cycles
    charge(host, d.account)
    d.run(d, host)


cdef inline void wait_for_turn(domain_t *domain) noexcept nogil:
    while load_u32(&domain.turn) == 0:
        futex_wait(&domain.turn, 0)


cdef inline void hand_over(host_t *host, uint32_t domain) noexcept nogil:
    """Gives the core to another domain: one address-space switch. Returns when it is given back."""
    cdef domain_t *own = &host.domain[host.current]
    host.current = domain
    if host.measuring:
        host.switches += 1
    store_u32(&own.turn, 0)
    store_u32(&host.domain[domain].turn, 1)
    futex_wake(&host.domain[domain].turn)
    wait_for_turn(own)


cdef void domain_main(host_t *host, uint32_t domain) noexcept nogil:
    cdef uint32_t i, following
    wait_for_turn(&host.domain[domain])
    while host.phase != PHASE_STOP:
        dispatch(host, domain)
        hypercall_enter(host)
        following = schedule(host)
        if following == NOBODY:
            break
        if following != domain:
            hand_over(host, following)
    for i in range(host.domains):           # let the others leave, too
        store_u32(&host.domain[i].turn, 1)
        futex_wake(&host.domain[i].turn)


cdef void host_run_inline(host_t *host) noexcept nogil:
    cdef uint32_t following
    wait_for_turn(&host.domain[0])
    following = next_runnable(host)
    while following != NOBODY:
        host.current = following
        dispatch(host, following)
        hypercall_enter(host)
        following = schedule(host)
