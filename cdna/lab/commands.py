"""What a lab answers on its control socket. `cdna ctl` and `cdna exec` are its clients.

command   fields                          reply
list                                      guests, wire, sandbox
show      guest                           guest, with all that is known of it
stats     guest?                          traffic (of all), counters (of one)
add       settings                        guest
remove    guest
link      guest (or "wire"), up
set       guest, settings                 guest
reset     guest                           guest
metrics                                   a descriptor: a file with the text, which may be long
hosts                                     hosts
enter     guest                           guest, hosts, dns; descriptors: network namespace, user namespace
keep      descriptor: a hosts file of a guest that this session has entered, which the lab rewrites while the
          client's process lives
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from cdna.base.descriptors import readable
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.lab.metrics import metrics_text

if TYPE_CHECKING:
    from cdna.lab.control import Handler, Reply, Request, Session
    from cdna.lab.lab import Lab


def handlers(lab: Lab, user_fd: int | None) -> dict[str, Handler]:
    """Functions by command. user_fd: the user namespace that the lab's guests belong to, if it made one."""
    commands = Commands(lab, user_fd)
    return {
        "list": commands.list,
        "show": commands.show,
        "stats": commands.stats,
        "add": commands.add,
        "remove": commands.remove,
        "link": commands.link,
        "set": commands.set,
        "reset": commands.reset,
        "metrics": commands.metrics,
        "hosts": commands.hosts,
        "enter": commands.enter,
        "keep": commands.keep,
    }


class Commands:
    def __init__(self, lab: Lab, user_fd: int | None) -> None:
        self._lab = lab
        self._user_fd = user_fd
        self._kept: list[tuple[int, int]] = []  # hosts files, and the processes that read them

    def list(self, request: Request, session: Session) -> Reply:
        sandbox = self._lab.sandbox
        return {
            "guests": self._lab.describe(),
            "wire": self._lab.wire(),
            "sandbox": None if sandbox is None else sandbox.as_dict(),
        }

    def show(self, request: Request, session: Session) -> Reply:
        return {"guest": self._lab.detail(_guest(request))}

    def stats(self, request: Request, session: Session) -> Reply:
        if request.get("guest") is None:
            return {"traffic": [t.as_dict() for t in self._lab.traffic()], "wire": self._lab.wire()}
        return {"counters": self._lab.counters(_guest(request))}

    def add(self, request: Request, session: Session) -> Reply:
        plan = self._lab.add(_settings(request))
        self._rewrite()
        return {"guest": self._lab.member(plan.name).describe()}

    def remove(self, request: Request, session: Session) -> Reply:
        self._lab.remove(_guest(request))
        self._rewrite()
        return {}

    def link(self, request: Request, session: Session) -> Reply:
        if broken(Control.CHECK_CLIENT_LINK, not isinstance(request.get("up"), bool)):
            raise ConfigError("link: give up or down")
        self._lab.set_link(_guest(request), request["up"])
        return {}

    def set(self, request: Request, session: Session) -> Reply:
        plan = self._lab.change(_guest(request), _settings(request))
        return {"guest": self._lab.member(plan.name).describe()}

    def reset(self, request: Request, session: Session) -> Reply:
        name = _guest(request)
        self._lab.reset(name)
        return {"guest": self._lab.member(name).describe()}

    def metrics(self, request: Request, session: Session) -> Reply:
        file = os.memfd_create("cdna-metrics", os.MFD_CLOEXEC)
        session.fds = [file]
        session.close_behind = [file]
        with open(file, "wb", closefd=False) as out:
            out.write(metrics_text(self._lab).encode())
        return {}

    def hosts(self, request: Request, session: Session) -> Reply:
        return {"hosts": self._lab.hosts()}

    def enter(self, request: Request, session: Session) -> Reply:
        member = self._lab.member(_guest(request))
        fds, dns = member.enter()
        session.entered = True
        session.fds = [*fds, *([] if self._user_fd is None else [self._user_fd])]
        return {"guest": member.plan.name, "hosts": self._lab.hosts(), "dns": list(dns)}

    def keep(self, request: Request, session: Session) -> Reply:
        if broken(Control.CHECK_CLIENT_KEEP, len(session.received) != 1):
            raise ConfigError("keep: give one descriptor, of a hosts file")
        if broken(Control.CHECK_CLIENT_ENTERED, not session.entered):
            raise ConfigError("keep: enter a guest first, in the same session")
        file = os.dup(session.received[0])
        try:
            self._kept.append((file, os.pidfd_open(session.pid)))
        except OSError:
            os.close(file)
            raise
        self._rewrite()
        return {}

    def _rewrite(self) -> None:
        """Puts the names as they are now into the files of the programs that still run."""
        text = self._lab.hosts().encode()
        kept, self._kept = self._kept, []
        for file, process in kept:
            if readable(process):  # it has ended
                os.close(file)
                os.close(process)
                continue
            self._kept.append((file, process))
            with contextlib.suppress(OSError):
                os.pwrite(file, text, 0)
                os.ftruncate(file, len(text))


def _guest(request: Request) -> str:
    guest: Any = request.get("guest")
    if broken(Control.CHECK_CLIENT_GUEST, not isinstance(guest, str)):
        raise ConfigError("no guest is named; give one")
    return str(guest)


def _settings(request: Request) -> dict[str, Any]:
    settings: Any = request.get("settings")
    if broken(Control.CHECK_CLIENT_SETTINGS, not isinstance(settings, dict)):
        raise ConfigError("no settings are given; give some")
    return dict(settings)
