"""The second thread of slow signals, and the end of a descriptor that it may be at."""
# build: explored

import os
import threading
from functools import partial

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport (
    add_u32, cycles, futex_wait, futex_wake, load_u32, load_u64, lowest_bit, store_u32, store_u64, swap_u32,
    thread_ns,
)
from cdna.eventfd cimport (
    signal_context_close, signal_context_open, signal_context_t, signal_eventfd, signal_eventfd_by,
)
from cdna.memory cimport SharedRegion
from cdna.nic.device cimport Nic
from cdna.nic.slow cimport SLOW_FOR
from cdna.nic.virtio.slow_signals cimport (
    ERRORS, NO_FD, REST_FOR, SLOW_SIGNAL_NS, SLOW_SIGNALS_NS, handed_t, signaller_t,
)


# --- in the second thread ---------------------------------------------------------------------------------

cdef void signal_all(signaller_t *signaller, uint32_t index, signal_context_t *signals) noexcept nogil:
    """Sends the signals that a context waits for, and notes whether they still are slow."""
    cdef handed_t *handed = &signaller.context[index]
    cdef uint64_t begun = thread_ns(), spent
    cdef uint32_t pending, fd
    cdef int sent = 0
    swap_u32(&signaller.at, index + 1)
    pending = swap_u32(&handed.pending, 0)
    while pending:
        fd = load_u32(&handed.fd[lowest_bit(pending)])
        if fd != NO_FD:                 # else it was closed
            signal_eventfd_by(signals, <int>fd)
            sent += 1
        pending &= pending - 1
    swap_u32(&signaller.at, 0)
    if load_u32(&signaller.waiting):
        futex_wake(&signaller.at)
    signaller.signals += sent
    spent = thread_ns() - begun
    if spent > sent * <uint64_t>SLOW_SIGNAL_NS and load_u64(&handed.slow_until):
        spent = <uint64_t>(spent * signaller.cycles_per_ns)
        store_u64(&handed.not_before, cycles() + REST_FOR * spent)
        store_u64(&handed.slow_until, cycles() + SLOW_FOR * spent)


cdef uint32_t next_pending(signaller_t *signaller, uint32_t start) noexcept nogil:
    """The first context from `start` on that something was handed over of; signaller.contexts: none."""
    cdef uint32_t _, index = start
    for _ in range(signaller.contexts):
        if index >= signaller.contexts:
            index = 0
        if load_u32(&signaller.context[index].pending):
            return index
        index += 1
    return signaller.contexts


cdef void send_slow_signals(signaller_t *signaller) noexcept nogil:
    """The second thread, until `stop`."""
    cdef signal_context_t signals
    cdef uint32_t handed, index = 0
    signal_context_open(&signals)
    while not load_u32(&signaller.stop):
        handed = load_u32(&signaller.handed)
        index = next_pending(signaller, index)
        if index < signaller.contexts:
            signal_all(signaller, index, &signals)
            index += 1
            continue
        swap_u32(&signaller.asleep, 1)
        futex_wait(&signaller.handed, handed)
        store_u32(&signaller.asleep, 0)
    signal_context_close(&signals)


# --- control ----------------------------------------------------------------------------------------------

cdef class Signaller:
    def __init__(self, Nic nic):
        cdef uint32_t i, which
        self._lock = threading.Lock()
        self._memory = SharedRegion(sizeof(signaller_t) + nic.contexts * sizeof(handed_t))
        self.c = <signaller_t *>self._memory.base
        self.c.context = <handed_t *>(self.c + 1)
        self.c.contexts = nic.contexts
        self.c.cycles_per_ns = nic.c.cycles_per_ns
        self.c.slow_signal = <uint64_t>(SLOW_SIGNAL_NS * nic.c.cycles_per_ns)
        self.c.slow_signals = <uint64_t>(SLOW_SIGNALS_NS * nic.c.cycles_per_ns)
        for i in range(self.c.contexts):
            for which in range(2 * ERRORS):
                self.c.context[i].fd[which] = NO_FD

    def enter(self):
        """A device begins; the thread runs while there is one."""
        with self._lock:
            self._devices += 1
            if self._thread is None:
                self.c.stop = 0
                self._thread = threading.Thread(target=self._run, name="cdna-signals", daemon=True)
                self._thread.start()

    def leave(self):
        """A device has ended; the thread ends with the last one."""
        with self._lock:
            self._devices -= 1
            if self._devices == 0:
                store_u32(&self.c.stop, 1)
                add_u32(&self.c.handed, 1)
                futex_wake(&self.c.handed)
                self._thread.join()
                self._thread = None

    def _run(self):
        with nogil:
            send_slow_signals(self.c)

    cdef forget(self, Nic nic, uint32_t index, uint32_t which, int fd):
        """Closes a descriptor when the engine goes on, which stands still, and nobody is at it."""
        if fd < 0:
            return
        swap_u32(&self.c.context[index].fd[which], NO_FD)
        nic.afterwards(partial(self._close, index, fd))

    def _close(self, uint32_t index, int fd):
        with nogil:
            add_u32(&self.c.waiting, 1)
            while load_u32(&self.c.at) == index + 1:
                futex_wait(&self.c.at, index + 1)
            add_u32(&self.c.waiting, 0xFFFFFFFF)
        os.close(fd)


def _signal(int fd):
    signal_eventfd(fd)


cdef signal_later(Nic nic, int fd):
    """Signals a descriptor, if it is one, when the engine goes on, which stands still: it may take long."""
    if fd >= 0:
        nic.afterwards(partial(_signal, fd))


cdef Signaller signaller_of(Nic nic):
    """The second thread of a NIC, which its first virtio device makes."""
    with nic.quiesced():
        if nic.signaller is None:
            nic.signaller = Signaller(nic)
            nic.c.signaller = (<Signaller>nic.signaller).c
        return nic.signaller
