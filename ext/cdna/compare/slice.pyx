"""One slice of a comparison: builds the domains on a machine, forks them, and reads what they counted."""
# build: control

import os
import select
import signal
import time
from dataclasses import asdict

from libc.stdint cimport uint32_t, uint64_t
from posix.mman cimport madvise

from cdna.compare.host cimport (
    ACCOUNT_DRIVER_DOMAIN, ACCOUNT_GUESTS, ACCOUNT_IDLE, ACCOUNT_VMM, PHASE_STOP, Host, domain_main,
    host_run_inline, host_t,
)
from cdna.cpu cimport add_u32, cycles, futex_wake, load_u32, load_u64, sched_yield, store_u32
from cdna.abi cimport PAGE_SHIFT
from cdna.memory cimport DOMID_FREE, Memory, SharedRegion, memory_t
from cdna.nic.generator cimport GeneratorWire
from cdna.nic.wire cimport Wire, cycles_per_second
from cdna.vmm.tables cimport Tables

from cdna.compare.disturbance import CoresReading
from cdna.errors import ResourceError

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_PDEATHSIG
    int prctl(int option, unsigned long argument)

cdef extern from "<sys/mman.h>" nogil:
    int MADV_POPULATE_WRITE

SLICE_SECONDS = 1e-3            # a domain that does not block is asked for the core after so long
DRAIN_SECONDS = 2.0             # at most, for what is under way when the load ends


cdef void tally_delivered(void *arg, uint64_t *frames, uint64_t *bytes_) noexcept nogil:
    cdef tally_t *tally = <tally_t *>arg
    cdef uint32_t i
    if tally.generator == NULL:
        frames[0] = load_u64(&tally.wire.tx_frames)
        bytes_[0] = load_u64(&tally.wire.tx_bytes)
        return
    frames[0] = bytes_[0] = 0
    for i in range(tally.host.guests):
        frames[0] += load_u64(tally.host.guest[i].received)
        bytes_[0] += load_u64(tally.host.guest[i].bytes_received)


cdef uint64_t tally_sent(const tally_t *tally) noexcept nogil:
    cdef uint64_t frames = 0
    cdef uint32_t i
    for i in range(tally.host.guests):
        frames += (load_u64(tally.host.guest[i].sent) if tally.generator == NULL
                   else load_u64(&tally.generator.flow[i].sent))
    return frames


cdef void tally_stop_load(void *arg) noexcept nogil:
    cdef tally_t *tally = <tally_t *>arg
    if tally.generator != NULL:
        store_u32(&tally.generator.stop, 1)
        tally.stop_round = load_u64(&tally.nic.rounds)


cdef bint tally_drained(void *arg) noexcept nogil:
    cdef tally_t *tally = <tally_t *>arg
    cdef uint64_t frames, bytes_
    if tally.generator != NULL and load_u64(&tally.nic.rounds) - tally.stop_round < 2:
        return False                    # a round that began before the stop may still bring a burst
    tally_delivered(arg, &frames, &bytes_)
    return frames == tally_sent(tally)


cdef size_t used_bytes(const memory_t *memory) noexcept nogil:
    """Bytes up to the last page that somebody owns."""
    cdef uint32_t pages = memory.pages
    while pages and memory.page[pages - 1].owner == DOMID_FREE:
        pages -= 1
    return <size_t>pages << PAGE_SHIFT


cdef class Slice:
    """A machine whose guests are domains of one host core, `host`.

    machine: `cdna.Machine`, its NIC not started. On a `GeneratorWire`, which has a flow for each guest, the
    guests receive; on another they transmit. inline: no processes, switches or kernel crossings.
    """

    def __init__(self, machine, bint inline):
        cdef Tables tables = machine.vmm.tables
        cdef Wire wire = machine.wire
        cdef host_t *host
        self.machine = machine
        self.host = Host()
        self._region = SharedRegion(sizeof(tally_t))
        self.tally = <tally_t *>self._region.base
        self.tally.host = host = self.host.c
        self.tally.wire = wire.c
        self.tally.nic = tables.c.nic
        if isinstance(wire, GeneratorWire):
            self.tally.generator = (<GeneratorWire>wire).generator
        host.vmm = tables.c
        host.inline_domains = inline
        host.slice_cycles = <uint64_t>(SLICE_SECONDS * cycles_per_second())
        host.arg = self.tally
        host.delivered = tally_delivered
        host.stop_load = tally_stop_load
        host.drained = tally_drained

    # --- running ------------------------------------------------------------------------------------------

    def run(self, double seconds, double warm_up, stop_fd=None) -> dict:
        """Runs the slice: `warm_up` seconds, then `seconds` that are measured, then the drain.

        stop_fd: ends everything early when it becomes readable. Raises ResourceError when a process dies or
        stands still.
        """
        cpus = sorted(os.sched_getaffinity(0))
        self.host.c.yields = self.machine.nic.shares_core()
        children = self._fork(cpus)
        try:
            self._wait_ready(children)
            before = CoresReading.now(children[0], children[1:], cpus)
            self._start(warm_up, seconds)
            self._wait(children, warm_up + seconds + DRAIN_SECONDS + 20.0, stop_fd)
            after = CoresReading.now(children[0], children[1:], cpus)
        finally:
            self.machine.nic.request_stop()
            _reap(children, kill=self.host.c.phase != PHASE_STOP)
            store_u32(&self.tally.nic.alive, 0)     # a NIC that was killed has not said so itself
        return {**self.result(), "taken": asdict(after.since(before, min(cpus), max(cpus)))}

    cdef _fork(self, list cpus):
        """One process for the NIC, then one for each domain (inline: one for all). Returns their pids."""
        cdef uint32_t i, processes = 1 if self.host.c.inline_domains else self.host.c.domains
        children = []
        parent = os.getpid()
        for i in range(processes + 1):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    self._child(parent, i, cpus)
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        return children

    def _child(self, parent, uint32_t number, cpus):
        cdef Memory memory = self.machine.memory
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:          # it died before the line above
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        madvise(memory.c.base, used_bytes(memory.c), MADV_POPULATE_WRITE)
        if number == 0:
            self.machine.nic.run(max(cpus))
            return
        os.sched_setaffinity(0, {min(cpus)})
        add_u32(&self.host.c.ready, 1)
        with nogil:
            if self.host.c.inline_domains:
                host_run_inline(self.host.c)
            else:
                domain_main(self.host.c, number - 1)

    def _wait_ready(self, children):
        deadline = time.monotonic() + 20.0
        while load_u32(&self.host.c.ready) < <uint32_t>len(children) - 1 or not self.machine.nic.alive:
            for pid in children:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    raise ResourceError("a process of the comparison died before it began")
            if time.monotonic() > deadline:
                raise ResourceError("the processes of the comparison did not start within 20 s")
            sched_yield()

    cdef void _start(self, double warm_up, double seconds) noexcept:
        cdef host_t *host = self.host.c
        cdef double rate = cycles_per_second()
        cdef uint64_t now = cycles()
        host.measure_from = now + <uint64_t>(warm_up * rate)
        host.load_until = host.measure_from + <uint64_t>(seconds * rate)
        host.drain_until = host.load_until + <uint64_t>(DRAIN_SECONDS * rate)
        host.charged_at = now
        host.current = 0
        store_u32(&host.domain[0].turn, 1)
        futex_wake(&host.domain[0].turn)

    def _wait(self, children, double limit, stop_fd):
        poller = select.poll()
        pidfds = {os.pidfd_open(pid): pid for pid in children}
        for fd in pidfds:
            poller.register(fd, select.POLLIN)
        if stop_fd is not None:
            poller.register(stop_fd, select.POLLIN)
        deadline = time.monotonic() + limit
        nic, *domains = pidfds
        left = set(domains)
        try:
            while left:
                ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
                if not ready:
                    raise ResourceError(f"the comparison stood still for {limit:.0f} s")
                for fd, _ in ready:
                    if fd == stop_fd:
                        raise ResourceError("the comparison was told to end")
                    if fd == nic:
                        raise ResourceError("the NIC's process died; start the comparison again")
                    poller.unregister(fd)
                    left.discard(fd)
                    status = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
                    if status.si_status:
                        raise ResourceError(f"a domain's process died with status {status.si_status}")
        finally:
            for fd in pidfds:
                os.close(fd)

    # --- what came out ------------------------------------------------------------------------------------

    def result(self) -> dict:
        """Frames, cycles and interrupts of the measured time; `sent` and `received` of the whole slice."""
        cdef host_t *host = self.host.c
        cdef uint64_t delivered, bytes_
        tally_delivered(self.tally, &delivered, &bytes_)
        seconds = host.measured_cycles / cycles_per_second()
        return {
            "frames": host.frames, "bytes": host.bytes, "seconds": seconds,
            "cycles": {"vmm": host.spent[<int>ACCOUNT_VMM],
                       "driver_domain": host.spent[<int>ACCOUNT_DRIVER_DOMAIN],
                       "guests": host.spent[<int>ACCOUNT_GUESTS], "idle": host.spent[<int>ACCOUNT_IDLE]},
            "physical_interrupts": host.physical_interrupts,
            "driver_domain_interrupts": host.driver_domain_interrupts,
            "guest_interrupts": host.guest_interrupts,
            "hypercalls": host.hypercalls, "switches": host.switches,
            "sent": tally_sent(self.tally), "received": delivered,
            "cycles_per_second": cycles_per_second(),
        }


def _reap(children, bint kill):
    """Waits for the processes of a slice; kills them first when it did not end by itself."""
    for pid in children:
        if kill:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
