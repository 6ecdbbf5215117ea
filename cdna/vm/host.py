"""The host's side of a network of guests: a network namespace of its own, with taps and a bridge.

A descriptor alone holds it: when this process ends, the kernel removes it and all its devices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdna.base.closing import Closing
from cdna.errors import ResourceError
from cdna.lab import syscalls
from cdna.lab.namespace import configure, in_thread

if TYPE_CHECKING:
    from pyroute2 import IPRoute

BRIDGE = "br0"


class HostNetwork(Closing):
    """A network namespace. ResourceError: it may not be made."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self.fd = in_thread(_new_namespace)
        self._undo.callback(os.close, self.fd)
        self.inside(lambda netlink: configure(netlink, "lo", []))

    def inside(self, function: Callable[[IPRoute], Any]) -> Any:
        """What `function` returns, called in a thread inside, with a netlink socket of the namespace."""

        def call() -> Any:
            from pyroute2 import IPRoute

            syscalls.setns(self.fd, syscalls.CLONE_NEWNET)
            with IPRoute() as netlink:
                return function(netlink)

        return in_thread(call)

    def popen(
        self, command: Sequence[str], before: Callable[[], None] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Starts a program inside. before: called in the child, before it runs the program."""

        def enter() -> None:
            syscalls.setns(self.fd, syscalls.CLONE_NEWNET)
            if before is not None:
                before()

        return subprocess.Popen(command, preexec_fn=enter, text=True, **options)

    def run(self, *command: str, seconds: float = 60.0) -> str:
        """The output of a program that runs inside. ResourceError: its exit status is not 0."""
        process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise ResourceError(f"{' '.join(command)}: not done after {seconds:g} s") from None
        if process.returncode != 0:
            raise ResourceError(f"{' '.join(command)}: {output.strip()}")
        return output

    def add_bridge(self, name: str = BRIDGE, address: str | None = None) -> None:
        """Adds a bridge as fast as they get: without netfilter, spanning tree and multicast snooping."""

        def add(netlink: IPRoute) -> None:
            for family in ("iptables", "ip6tables", "arptables"):
                switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}")
                if switch.exists():
                    switch.write_text("0")
            netlink.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
            configure(netlink, name, [ip_interface(address)] if address else [])

        self.inside(add)

    def add_to_bridge(self, port: str, bridge: str = BRIDGE) -> None:
        """Makes a device that is there a port of the bridge, and brings it up."""
        self.inside(
            lambda netlink: configure(netlink, port, [], master=netlink.link_lookup(ifname=bridge)[0])
        )

    def open_tap(self, name: str) -> int:
        """Makes a tap, and a port of the bridge of it. Returns its descriptor, closed with the namespace."""
        from cdna.nic.tap import open_tap

        (fd,) = self.inside(lambda _: open_tap(name, vnet_header=True, up=False))
        self._undo.callback(os.close, fd)
        self.add_to_bridge(name)
        return int(fd)

    def close(self) -> None:
        """Gives it up. Closing twice is harmless."""
        self._undo.close()


def _new_namespace() -> int:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as error:
        raise ResourceError(f"a network namespace: {(error.strerror or '').lower()}; run as root") from None
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
