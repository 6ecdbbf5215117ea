"""The NIC's main loop. Everything that a round does is in the header-only parts it is made of."""
# build: explored

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cdna.cpu cimport cpu_relax, cycles, load_u32, sched_yield, store_u32, store_u64
from cdna.nic.account cimport begin_time, count_bytes, since_mark
from cdna.nic.doorbell cimport doorbells
from cdna.nic.interrupt cimport interrupts
from cdna.nic.receive cimport receive
from cdna.nic.schedule cimport pay_for_idle, pay_off, transmit
from cdna.nic.state cimport nic_t

cdef enum:
    BUDGET = 256                # frames sent in one round, at most; those received are a burst
    IDLE_ROUNDS = 64            # before the core is given away, where it is shared


cdef int engine_poll(nic_t *nic, int budget) noexcept nogil:
    cdef uint64_t now = cycles(), stolen = nic.stolen, passed
    cdef int n
    nic.now = nic.mark = now
    store_u64(&nic.epoch, nic.epoch + 1)
    if nic.timed:
        pay_for_idle(nic, now - nic.round_end)
    doorbells(nic)
    if nic.words > 1:                   # of few contexts it is worth no time stamp
        nic.other_cycles += since_mark(nic)
    n = transmit(nic, budget, now)
    n += receive(nic, budget)
    interrupts(nic, now)
    nic.other_cycles += since_mark(nic)
    passed = nic.mark - now - (nic.stolen - stolen)
    if <int64_t>(passed - nic.worst_round) > 0:
        nic.worst_round = passed
    if nic.timed:
        pay_off(nic, passed)
        nic.round_end = nic.mark
    store_u64(&nic.epoch, nic.epoch + 1)
    nic.rounds += 1
    nic.frames += n
    return n


cdef void engine_run(nic_t *nic) noexcept nogil:
    cdef uint32_t idle = 0
    begin_time(nic)
    store_u32(&nic.alive, 1)
    while not load_u32(&nic.stop):
        if stood_still(nic):
            continue
        if engine_poll(nic, BUDGET):
            idle = 0
            continue
        idle += 1
        cpu_relax()
        if nic.yields and idle > IDLE_ROUNDS:
            sched_yield()
            idle = 0
    store_u32(&nic.alive, 0)
    count_bytes(nic)
