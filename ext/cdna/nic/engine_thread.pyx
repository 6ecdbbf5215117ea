"""The engine's thread, and its standing still, as Python controls them.

The engine never waits for Python. Whoever changes what it reads first makes it stand still at the end of a
round (`quiesced`): that takes one round, and no frame is lost by it.
"""
# build: control

import os
import threading
from contextlib import contextmanager

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport cycles, load_u32, sched_yield, store_u32, swap_u32
from cdna.nic.account cimport begin_time, count_bytes, note_standstill
from cdna.nic.context cimport account_t, context_t
from cdna.nic.engine cimport engine_poll, engine_run

from cdna.errors import ConfigError


cdef class EngineThread:
    """Runs the engine of a NIC, in a thread of its own or in the caller's."""

    def __cinit__(self, *args, **kwargs):
        self._lock = threading.RLock()
        self._afterwards = []

    cdef void _pause(self) noexcept:
        swap_u32(&self.c.pause, 1)
        with nogil:
            while load_u32(&self.c.alive) and not load_u32(&self.c.paused):
                sched_yield()

    cdef _resume(self):
        store_u32(&self.c.pause, 0)
        self.wake()         # a loop that sleeps may have to look at what has changed, such as a new context

    def wake(self):
        """Makes a loop that sleeps (`SleepingLoop.run`) look again."""
        if self.c.wake_fd >= 0:
            os.eventfd_write(self.c.wake_fd, 1)

    @contextmanager
    def quiesced(self, context=None):
        """The engine stands still between two rounds while this is entered; it nests.

        context: the number of the one whose time this takes; that of the outermost counts.
        """
        cdef uint64_t begun = 0
        calls = []
        try:
            with self._lock:
                outermost = not load_u32(&self.c.pause)
                if outermost:
                    self._pause()
                    begun = cycles()
                try:
                    yield
                finally:
                    if outermost:
                        note_standstill(self.c, -1 if context is None else context, cycles() - begun)
                        self._resume()
                        calls, self._afterwards = self._afterwards, []
        finally:
            for call in calls:
                call()

    def afterwards(self, call):
        """Has `call` called when the engine goes on, which stands still now: for what takes long."""
        self._afterwards.append(call)

    # --- running ------------------------------------------------------------------------------------------

    def poll(self, int rounds=1, int budget=64, bint timed=False) -> int:
        """Runs rounds of the engine here, in the caller's thread. Returns frames moved.

        timed: turns are worth time, as where the engine runs on its own; else bytes.
        """
        if self._thread is not None:
            raise ConfigError("the NIC runs in its own thread: stop it before polling it from here")
        cdef int n = 0
        with self._lock, nogil:
            if timed and not self.c.timed:
                begin_time(self.c)
            elif self.c.timed and not timed:
                count_bytes(self.c)
            self.c.round_end = cycles()     # what was since the last round is the caller's time, not idle
            for _ in range(rounds):
                n += engine_poll(self.c, budget)
        return n

    def start_engine(self, cpu=None, loop=None):
        """Runs the engine in a thread of its own, on `cpu` or on the last one that this process may use.

        loop: called instead of the engine's own loop; it runs the engine among other things
        (`SleepingLoop.run`), and stays on no core unless `cpu` names one.
        """
        if self._thread is not None:
            raise ConfigError("the NIC runs already")
        allowed = sorted(os.sched_getaffinity(0))
        if cpu is not None and cpu not in allowed:
            raise ConfigError(f"core {cpu!r} for the NIC: give one of {', '.join(map(str, allowed))}")
        self.c.stop = 0
        self._thread = threading.Thread(target=self.run, args=(cpu, loop), name="cdna-nic", daemon=True)
        self._thread.start()
        with nogil:                     # which the thread needs to get as far
            while not load_u32(&self.c.alive):
                sched_yield()

    def run(self, cpu=None, loop=None):
        """The engine's loop, in the calling thread or process, until `stop_engine` or `request_stop`."""
        if self.alive:
            raise ConfigError("the NIC runs already: stop it first")
        allowed = sorted(os.sched_getaffinity(0))
        if cpu is None and loop is None and len(allowed) > 1:
            cpu = max(allowed)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        if loop is not None:
            loop()
            return
        with nogil:
            engine_run(self.c)

    def request_stop(self):
        store_u32(&self.c.stop, 1)
        self.wake()

    def stop_engine(self):
        """Ends the engine's thread after the round under way."""
        if self._thread is None:
            return
        self.request_stop()
        self._thread.join()
        self._thread = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether some thread or process runs the engine."""
        return bool(load_u32(&self.c.alive))

    def shares_core(self) -> bool:
        """Whether this machine has one core only, so that engine and guests give it to each other."""
        return bool(self.c.yields)

    # --- what it counts -------------------------------------------------------------------------------------

    cdef context_t *_context(self, uint32_t index) except NULL:
        if index >= self.c.contexts:
            raise ConfigError(f"context {index}: this NIC has contexts 0 to {self.c.contexts - 1}")
        return &self.c.context[index]

    def time(self, uint32_t index) -> dict:
        """Nanoseconds of the NIC's core that were spent for a context, by what for (account.pxd).

        transmit, receive, signal, control; and worst_round, what it took of the round that it took most of.
        None of a NIC that is stepped and not timed.
        """
        cdef const account_t *time = &self._context(index).time
        return {"transmit": self._ns(time.tx), "receive": self._ns(time.rx), "signal": self._ns(time.signal),
                "control": self._ns(time.control), "worst_round": self._ns(time.worst)}

    @property
    def core_time(self) -> dict:
        """Nanoseconds of the NIC's core that are no context's: wire, other; and the longest that all waited.

        worst_round, worst_standstill: of rounds, and of what was between them.
        """
        return {"wire": self._ns(self.c.wire_cycles), "other": self._ns(self.c.other_cycles),
                "worst_round": self._ns(self.c.worst_round),
                "worst_standstill": self._ns(self.c.worst_standstill)}

    cdef uint64_t _ns(self, uint64_t spent) noexcept:
        return <uint64_t>(spent / self.c.cycles_per_ns)

    def reset_worst(self):
        """Forgets the longest rounds and standstills up to now."""
        cdef uint32_t i
        self.c.worst_round = self.c.worst_standstill = 0
        for i in range(self.c.contexts):
            self.c.context[i].time.worst = self.c.context[i].time.in_round = 0

    @property
    def counters(self) -> dict:
        """Of the NIC: rounds, frames moved, interrupts raised, faults, frames from the wire for nobody.

        slow_signals: to virtio guests, those that a second thread sent, as they took long.
        """
        return {"rounds": self.c.rounds, "frames": self.c.frames, "interrupts": self.c.irq_raised,
                "slow_signals": self.c.signaller.signals if self.c.signaller != NULL else 0,
                "faults": self.c.faults, "rx_drop_filter": self.c.rx_drop_filter,
                "rx_drop_invalid": self.c.rx_drop_invalid,
                "wire_tx_frames": self.c.wire.tx_frames, "wire_tx_bytes": self.c.wire.tx_bytes,
                "wire_rx_frames": self.c.wire.rx_frames, "wire_rx_bytes": self.c.wire.rx_bytes}

    # --- interrupts ---------------------------------------------------------------------------------------

    def set_interrupt_fd(self, int fd):
        """Event descriptor that the NIC writes when it raises an interrupt while the VMM sleeps; -1: none."""
        self.c.irq.event_fd = fd

    def arm_interrupt(self) -> bool:
        """The VMM is about to sleep. False: an interrupt is pending already, do not."""
        swap_u32(&self.c.irq.armed, 1)
        return load_u32(&self.c.irq.producer) == self.c.irq.consumer
