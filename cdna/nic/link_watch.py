"""The thread that looks after a wire's device: woken by the engine, by news of the kernel's, or by time."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdna.nic.watched_wire import WatchedWire

RTMGRP_LINK = 1  # linux/rtnetlink.h
NETLINK_ROUTE = 0  # linux/netlink.h
LOOK_EVERY = 500  # milliseconds, while the device is in trouble


class LinkWatch:
    """Calls `wire.look()` whenever there may be something to see. Ends with the wire.

    The news are not read, only that there are some: the wire looks for itself. Both the news and the devices
    that a wire opens anew are of the network namespace in which this object was made.
    """

    def __init__(self, wire: WatchedWire) -> None:
        self._wire = weakref.ref(wire)
        self._stopping = False
        self.notice = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
        except OSError:
            os.close(self.notice)
            raise
        self._news.setblocking(False)
        self._news.bind((0, RTMGRP_LINK))
        self._thread = threading.Thread(target=self._run, name=f"cdna link {wire.name}", daemon=True)
        self._end = weakref.finalize(wire, self.stop)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for that."""
        self._end.detach()
        self._stopping = True
        if self._thread.ident is None:
            self._close()
        elif self._thread.is_alive():
            with contextlib.suppress(OSError):
                os.eventfd_write(self.notice, 1)
            if self._thread is not threading.current_thread():
                self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.notice, select.POLLIN)
        poll.register(self._news, select.POLLIN)
        while not self._stopping:
            wire = self._wire()
            well = wire is None or wire.look()
            del wire  # or it would never end
            if not self._stopping:
                poll.poll(None if well else LOOK_EVERY)
            self._take_news()
        self._close()

    def _take_news(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.notice)
        while self._read():
            pass

    def _read(self) -> bool:
        try:
            return bool(self._news.recv(65536))
        except BlockingIOError:
            return False
        except OSError:  # ENOBUFS: there was more news than the socket holds
            return True

    def _close(self) -> None:
        self._news.close()
        os.close(self.notice)
