"""The engine's thread, and its standing still, as Python controls them.

The engine never waits for Python. Whoever changes what it reads first makes it stand still at the end of a
round (`quiesced`): that takes one round, and no frame is lost by it.
"""
# build: control

import os
import threading
from contextlib import contextmanager

from libc.stdint cimport uint64_t

from cdna.cpu cimport cycles, load_u32, sched_yield, store_u32, swap_u32
from cdna.nic.account cimport begin_time, charge_standstill, count_bytes
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
                        charge_standstill(self.c, -1 if context is None else context, cycles() - begun)
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

        timed: turns are worth time, as where the engine runs on its own; otherwise bytes, as no clock changes.
        """
        if self._thread is not None:
            raise ConfigError("the NIC runs in its own thread: stop it before polling it from here")
        cdef int n = 0
        with self._lock, nogil:
            if timed and not self.c.timed:
                begin_time(self.c)
            elif self.c.timed and not timed:
                count_bytes(self.c)
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
