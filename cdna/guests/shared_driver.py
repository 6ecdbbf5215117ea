"""One driver for several readers in any threads: each gets every frame, as sockets on an interface do.

    ring --gather--> inbox of reader 1, inbox of reader 2, ...

The ring is read when a reader wants frames and has none; with one reader the NIC therefore drops, and counts,
what is too much. A reader that lags behind the others loses what its inbox has no room for.

A reader waits with poll(2) on an epoll descriptor of three: the virtual interrupts of the context, which stay
enabled; an event that is set while the inbox has frames; and one that is set while the ring is known to have
some. An interrupt is taken before the ring is looked at, so none is lost, and what is left in the ring wakes
the next one who waits. A machine that is stepped need not wait for its interrupt moderation.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from cdna.errors import ConfigError, ContextFault, ResourceError
from cdna.guest_driver.remote import RemoteDriver
from cdna.guests import stepping
from cdna.guests.driver import Driver

BATCH = 64  # frames taken from the ring at a time
INBOX = 4096  # frames that wait for a reader beside others
NAP = 0.0002  # seconds; a full ring empties in less
PATIENCE = 10.0  # seconds until a ring that stays full is an error

_shared: WeakValueDictionary[int, SharedDriver] = WeakValueDictionary()
_opening = threading.Lock()
_events = threading.Lock()  # held while somebody else's event is set, and while it is closed


class Inbox:
    """What waits for one reader: frames with the time at which they were taken, in ns since 1970."""

    def __init__(self, shared: SharedDriver, wants: Callable[[bytes], bool] | None, outgoing: bool) -> None:
        self.shared = shared
        self.wants = wants
        self.outgoing = outgoing  # frames that the guest sends are wanted, too
        self.dropped = 0  # frames for which there was no room
        self.frames: deque[tuple[bytes, int]] = deque()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._epoll = select.epoll()
        except OSError:
            os.close(self._ready)
            raise
        self._epoll.register(self._ready, select.EPOLLIN)
        self._epoll.register(shared.event_fd, select.EPOLLIN)
        self._epoll.register(shared.ring_fd, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable while there are frames, or may be."""
        return self._epoll.fileno()

    def put(self, frame: bytes, now: int) -> None:
        if self.wants is not None and not self.wants(frame):
            return
        if len(self.frames) >= INBOX:
            self.dropped += 1
            return
        self.frames.append((frame, now))

    def signal(self, ready: bool) -> None:
        _signal(self._ready, ready)

    def take(self, step: bool = True) -> tuple[bytes, int] | None:
        """The next frame, or None. ContextFault, EOFError: as `SharedDriver.check`, once all are taken.

        step: where there is none, moves the machine first, if nobody else does.
        """
        with self.shared.lock:
            if not self.frames:
                self.shared.gather(step)
            if not self.frames:
                self.shared.check()
                return None
            frame = self.frames.popleft()
            if not self.frames:
                self.signal(False)
            return frame

    def poll(self) -> bool:
        """Whether `take` has something to return, or to raise."""
        with self.shared.lock:
            if not self.frames:
                self.shared.gather()
            return bool(self.frames) or self.shared.ended

    def close(self) -> None:
        """Wakes who waits, and gives the descriptors back."""
        with self.shared.lock:
            self.signal(True)
            self._epoll.close()
            os.close(self._ready)


class SharedDriver:
    """A driver and its readers. `SharedDriver.of(driver)` is the same one for all who use a driver.

    ConfigError: the context was revoked, or takes frames with an offload, which no reader could complete.
    """

    def __init__(self, driver: Driver | RemoteDriver) -> None:
        self.driver = driver
        self.lock = threading.RLock()
        self._inboxes: list[Inbox] = []
        self._vmm = driver.context.vmm if isinstance(driver, Driver) else None
        self.ring_fd = self.event_fd = -1  # as long as there is no reader
        self._check_owned()
        if driver.vnet_header:
            raise ConfigError(
                f"context {driver.context.index} takes frames with a virtio-net header, "
                f"whose checksums nobody has completed: attach the guest without vnet_header"
            )

    @classmethod
    def of(cls, driver: Driver | RemoteDriver) -> SharedDriver:
        with _opening:
            shared = _shared.get(id(driver))
            if shared is None:
                shared = _shared[id(driver)] = cls(driver)
            return shared

    def open(self, wants: Callable[[bytes], bool] | None = None, *, outgoing: bool = False) -> Inbox:
        """A new reader. `wants`: says of a frame whether it is wanted."""
        with self.lock:
            self._check_owned()
            try:
                if not self._inboxes:
                    self._open_events()
                self._inboxes.append(Inbox(self, wants, outgoing))
            finally:
                if not self._inboxes:
                    self._close_events()
            self.listen()
            _signal(self.ring_fd, self.waiting)
            return self._inboxes[-1]

    def close(self, inbox: Inbox) -> None:
        with self.lock:
            self._inboxes.remove(inbox)
            inbox.close()
            if not self._inboxes:
                self._close_events()
                if not self.gone:
                    self.driver.enable_interrupts(False)

    def _open_events(self) -> None:
        self.ring_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.event_fd = os.dup(
            self.driver.context.event_fd
        )  # the VMM closes its own when it revokes the context

    def _close_events(self) -> None:
        with _events:
            fds, self.ring_fd, self.event_fd = (self.ring_fd, self.event_fd), -1, -1
            for fd in fds:
                if fd >= 0:
                    os.close(fd)

    # --- the state of the context ---------------------------------------------------------------------------

    @property
    def mac(self) -> str:
        with self.lock:
            return self.driver.context.mac

    @property
    def stepped(self) -> bool:
        """Whether the machine is in this process, and moves only when it is told to."""
        return self._vmm is not None and not stepping.runs(self._vmm)

    def _check_owned(self) -> None:
        if self.gone:
            raise ConfigError(f"context {self.driver.context.index} was revoked: assign it again")

    @property
    def gone(self) -> bool:
        """Whether the context is no longer this guest's."""
        if isinstance(self.driver, Driver):
            return self.driver.context.revoked
        return _has_ended(self.driver)

    @property
    def ended(self) -> bool:
        return self.gone or self.driver.faulted

    @property
    def waiting(self) -> bool:
        """Whether there is something in the ring, or the end of it to be told."""
        return self.ended or self.driver.rx_waiting > 0

    def check(self) -> None:
        """EOFError: the context was taken away. ContextFault: it was stopped."""
        if self.gone:
            raise EOFError(f"context {self.driver.context.index} is no longer this guest's")
        if self.driver.faulted:
            if self._vmm is not None:
                self._vmm.collect_faults()
            fault = self.driver.context.fault
            raise ContextFault(str(fault), fault)

    # --- frames ---------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Wants interrupts. Whoever sleeps then looks at the rings first."""
        if not self.ended:
            self.driver.enable_interrupts(True)

    def step(self) -> int:
        """Moves the machine, if nobody else does. Returns the frames moved."""
        if self._vmm is None or self.gone:
            return 0
        moved = stepping.settle(self._vmm)
        if moved:
            with _events:
                for shared in list(_shared.values()):
                    if shared._vmm is self._vmm and shared.ring_fd >= 0 and shared.waiting:
                        _signal(shared.ring_fd, True)
        return moved

    def gather(self, step: bool = True) -> None:
        """Takes a batch from the ring, if there is one, into the inboxes."""
        with self.lock:
            if step:
                self.step()
            self._take_interrupts()
            if self.ended:
                _signal(self.ring_fd, True)  # which `take` has to tell
                return
            frames = self.driver.recv(BATCH)
            for frame in frames:
                now = time.time_ns()
                for inbox in self._inboxes:
                    inbox.put(frame, now)
            for inbox in self._inboxes:
                inbox.signal(bool(inbox.frames))
            _signal(self.ring_fd, False)
            if self.waiting:  # looked at after the event was cleared
                _signal(self.ring_fd, True)

    def _take_interrupts(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self.event_fd, 8):
                pass

    def send(self, frame: bytes) -> None:
        """Sends a frame, and waits where the ring is full. ResourceError: it stays full for PATIENCE.

        ConfigError: a frame of no possible length. EOFError, ContextFault: as `check`.
        """
        deadline = None
        while True:
            with self.lock:
                self.check()
                if self.driver.send([frame]):
                    self._show_sent(frame)
                    self.step()
                    return
                moved = self.step()
            if moved:
                continue
            deadline = deadline or time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"context {self.driver.context.index}: the NIC took no frame for {PATIENCE:g} s; "
                    f"is it running, and does somebody take what its wire sends?"
                )
            time.sleep(NAP)

    def _show_sent(self, frame: bytes) -> None:
        now = time.time_ns()
        for inbox in self._inboxes:
            if inbox.outgoing:
                inbox.put(frame, now)
                inbox.signal(True)


def _signal(event: int, on: bool) -> None:
    with contextlib.suppress(BlockingIOError):
        if on:
            os.eventfd_write(event, 1)
        else:
            os.eventfd_read(event)


def _has_ended(driver: RemoteDriver) -> bool:
    """Whether the VMM has closed the connection of a remote guest: nothing is read that it answers."""
    sock = driver._sock
    if driver.lost or sock.fileno() < 0:
        return True
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
