"""Two taps on a kernel bridge, and the same guests in user space: testpmd's ports are the taps.

The guests have both cores, a direction each: there is no backend that needs one, the kernel works in their
system calls. The bridge is in a network namespace of its own, snoops no multicast and calls no netfilter.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from netlab.contenders import BRIDGE, empty_bridge, inside

from cdna.lab.namespace import configure

from .backends import Setup
from .frontends import aim
from .testpmd import Cores, Testpmd

TAPS = ("guest0", "guest1")
NO_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")  # the ports would greet their neighbours


@contextlib.contextmanager
def tap_bridge(setup: Setup, size: int) -> Iterator[Testpmd]:
    """A testpmd whose two ports are ports of a bridge."""
    with contextlib.ExitStack() as stack:
        space = empty_bridge()
        stack.callback(os.close, space)
        inside(space, lambda _: NO_IPV6.write_text("1"))
        guests = stack.enter_context(
            Testpmd(
                [f"net_tap{port},iface={name}" for port, name in enumerate(TAPS)],
                cores=Cores((setup.engine, setup.guests), setup.guests),
                huge=setup.huge,
                megabytes=setup.megabytes,
                mbufs=setup.mbufs,
                options=[f"--burst={setup.burst}"],
                enter=["nsenter", f"--net=/proc/self/fd/{space}", "--"],
                pass_fds=[space],
            )
        )
        macs = re.findall(r"MAC address: (\S+)", guests.command("show port info all"))
        for port, name in enumerate(TAPS):
            inside(space, partial(_add_port, name=name, address=f"02:cd:bf:00:00:{port:02x}"))
        aim(guests, len(TAPS), size, to_each_other=True, macs=macs)
        yield guests


def _add_port(netlink: Any, name: str, address: str) -> None:
    """The device gets an address beside its guest's: frames for its own the bridge would keep."""
    index = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="down")
    netlink.link("set", index=index, address=address)
    configure(netlink, name, [], master=netlink.link_lookup(ifname=BRIDGE)[0])
