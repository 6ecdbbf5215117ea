"""The one loop of all servers: a thread that waits for descriptors, for times, and for no client.

    Loop           descriptors with what to do when they are ready, times at which something is due, a wake-up
    SessionServer  a loop with a listening socket: each connection is a session, perhaps with a deadline

In a turn each descriptor that is ready is served once, so a client that floods its socket delays the others
by no more than that. Taking connections has a share of the time of its own, whoever makes them: those that
are refused are among them, and each of those can come as another user. What other threads ask for happens
between two turns, under `lock`.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from cdna.base.closing import Closing
from cdna.base.control_time import ControlTime, Rest, SharedTime
from cdna.base.listener import Listener

if TYPE_CHECKING:
    import logging
    import socket

Clock = Callable[[], float]
Act = Callable[[float], object]  # with the time, as the loop's clock counts


class Loop(Closing):
    """A thread that serves what it watches until `close`. A subclass calls `begin` when it is ready.

    log: where internal errors go; each ends what it happened in, and nothing else.
    """

    def __init__(self, name: str, log: logging.Logger, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.log = log
        self.closed = False
        self._acts: dict[int, tuple[int, Act]] = {}  # by descriptor: for which events, and what to do
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake_fd, lambda now: os.eventfd_read(self._wake_fd))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, then everything that it served. Closing twice is harmless."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
        self.wake()
        self._thread.join()
        self.end()
        self._epoll.close()
        fd, self._wake_fd = self._wake_fd, -1
        os.close(fd)

    def watch(self, fd: int, act: Act, events: int = select.EPOLLIN) -> None:
        """Calls `act` under the lock whenever one of `events` is there. It replaces an earlier one."""
        before, _ = self._acts.get(fd, (None, act))
        if before is None:
            self._epoll.register(fd, events)
        elif before != events:
            self._epoll.modify(fd, events)
        self._acts[fd] = events, act

    def unwatch(self, fd: int) -> None:
        """To be called before the descriptor is closed; of one that is not watched it is harmless."""
        if self._acts.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wake(self) -> None:
        """Has the thread take another turn, so that it asks anew what is due."""
        with contextlib.suppress(ValueError):  # closed meanwhile, the descriptor is -1
            os.eventfd_write(self._wake_fd, 1)

    # --- of a subclass --------------------------------------------------------------------------------------

    @abstractmethod
    def due(self) -> Iterable[float]:
        """When `tick` has something to do."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Does what is due. Called at the end of each turn."""

    @abstractmethod
    def end(self) -> None:
        """Gives up what was served, once the thread has ended."""

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self.lock:
                if self.closed:
                    return
                timeout = timeout_until(min(self.due(), default=None), self.clock())
            ready = self._epoll.poll(timeout)
            with self.lock:
                self._turn([fd for fd, _ in ready])

    def _turn(self, ready: list[int]) -> None:
        now = self.clock()
        for fd in ready:
            if fd in self._acts:  # else an earlier one of this turn ended it
                try:
                    self._acts[fd][1](now)
                except Exception:
                    self.log.exception("internal error: descriptor %d is heard no more", fd)
                    self.unwatch(fd)
        self.tick(now)


class Session:
    """A connection of a `SessionServer`, and until when it may go on as it does; None: for good."""

    def __init__(self, sock: socket.socket, deadline: float | None) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.deadline = deadline
        self.rest = Rest()

    @property
    def due(self) -> float | None:
        """When its rest may be over; outside of one, its deadline."""
        return self.deadline if self.rest.until is None else self.rest.until

    def close(self) -> None:
        self.sock.close()


S = TypeVar("S", bound=Session)


class SessionServer(Loop, Generic[S]):
    """Serves the connections to `listener`, at `path` if it is a Unix socket's, which is removed at the end.

    full: what cannot be had while this process is out of descriptors.
    arrivals: the time that taking connections may take.
    """

    def __init__(
        self,
        name: str,
        log: logging.Logger,
        listener: socket.socket,
        path: str | None,
        full: str,
        clock: Clock = time.monotonic,
        arrivals: ControlTime | None = None,
    ) -> None:
        super().__init__(name, log, clock)
        self.sessions: dict[int, S] = {}  # by descriptor
        self._listener = Listener(self, listener, path, self.accept)
        self._full = full
        self.arrivals = arrivals or SharedTime(clock=clock).bucket()

    # --- of a subclass --------------------------------------------------------------------------------------

    @abstractmethod
    def admit(self, sock: socket.socket, now: float) -> S | None:
        """The session of a new connection; None: it is refused. It may end others to make room."""

    @abstractmethod
    def serve(self, session: S, now: float) -> bool:
        """Carries out the next message of a session. False: it has ended."""

    def expire(self, session: S, now: float) -> bool:
        """What happens at a session's deadline. False: it has ended."""
        return False

    # --- sessions -------------------------------------------------------------------------------------------

    def rest(self, session: S, spending: ControlTime) -> bool:
        """Reads no more of a session while `spending` is overdrawn. False: it is not."""
        if session.rest.begin(spending, self.clock()) is None:
            return False
        self.unwatch(session.fd)
        return True

    def hear(self, session: S, events: int = select.EPOLLIN) -> None:
        """Has `serve` called when one of `events` is there."""
        self.watch(session.fd, partial(self._go_on, self.serve, session), events)

    def finish(self, session: S) -> None:
        """Ends a session. Ending it twice is harmless."""
        if self.sessions.pop(session.fd, None) is None:
            return
        self.unwatch(session.fd)
        try:
            session.close()
        except Exception:  # the others go on
            self.log.exception("%s was not ended whole", session)

    def accept(self, now: float) -> None:
        """Takes the next connection, and then waits with the ones after it if they have taken much time."""
        with self.arrivals.spent():
            self.take(now)
        due = self.arrivals.due()
        if due is not None:
            self._listener.wait(due)

    def take(self, now: float) -> S | None:
        """Takes the next connection. The session that comes of it; None: none does."""
        try:
            sock = self._listener.accept(now)
        except OSError as error:
            self._tell_full(error)
            return None
        if sock is None:
            return None
        try:
            session = self.admit(sock, now)
        except OSError as error:
            self.log.warning("a connection was lost: %s", error)
            session = None
        if session is None:
            sock.close()
            return None
        self.sessions[session.fd] = session
        try:
            self.hear(session)
        except OSError as error:
            self.finish(session)
            self._listener.back_off(now)
            self._tell_full(error)
            return None
        return session

    def due(self) -> Iterable[float]:
        times = [self._listener.due, *(session.due for session in self.sessions.values())]
        return [at for at in times if at is not None]

    def tick(self, now: float) -> None:
        for session in [s for s in self.sessions.values() if s.due is not None and now >= s.due]:
            if session.rest.until is None:
                self._go_on(self.expire, session, now)
                continue
            rested = session.rest.end(now)
            if rested is not None:
                if session.deadline is not None:
                    session.deadline += rested
                self.hear(session)
        self._listener.tick(now)

    def end(self) -> None:
        for session in list(self.sessions.values()):
            self.finish(session)
        self._listener.close()

    def _tell_full(self, error: OSError) -> None:
        self.log.warning("%s for now: %s", self._full, error)

    def _go_on(self, how: Callable[[S, float], bool], session: S, now: float) -> None:
        try:
            goes_on = how(session, now)
        except Exception:  # ends this session and no other
            self.log.exception("%s: internal error", session)
            goes_on = False
        if not goes_on:
            self.finish(session)


def timeout_until(due: float | None, now: float) -> float | None:
    """Seconds from `now` until `due`, rounded up to what epoll counts in; None: for ever."""
    return None if due is None else math.ceil(max(0.0, due - now) * 1000) / 1000
