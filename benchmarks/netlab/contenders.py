"""Guests that are network namespaces, connected by a CDNA lab or by what it replaces.

The baselines are built as well as we know how: segments of 64 KiB and undone checksums pass everywhere; the
bridge calls no netfilter, snoops no multicast, and has a namespace of its own, without the rules of the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from cdna.errors import CdnaError, ResourceError
from cdna.lab.namespace import DEVICE, Namespace, configure, in_thread
from cdna.vm.server import cdna

READY_SECONDS = 60.0
BRIDGE = "br0"


class Guests(ABC):
    """`count` guests, 1 to count, at 10.x.0.1 to 10.x.0.count; entered, they run."""

    name: str
    network = 10

    def __init__(self, count: int) -> None:
        self.count = count
        self._exit = contextlib.ExitStack()

    def address(self, guest: int) -> str:
        return f"10.{self.network}.0.{guest}"

    def mac(self, guest: int) -> str:
        return f"02:cd:be:{self.network:02x}:00:{guest:02x}"

    @abstractmethod
    def start(self) -> None:
        """Builds it; what is pushed on `_exit` undoes it."""

    @abstractmethod
    def popen(self, guest: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a program inside a guest."""

    def __enter__(self) -> Guests:
        try:
            self.start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()


class _Held(Guests):
    """Guests whose namespaces this process holds by descriptors."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.fds: dict[int, int] = {}

    def popen(self, guest: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        fd = self.fds[guest]
        inside = ["nsenter", f"--net=/proc/self/fd/{fd}", "--", *command]
        return subprocess.Popen(inside, pass_fds=(fd,), text=True, **options)

    def bridge(self) -> int:
        """As `empty_bridge`, until the guests end."""
        fd = empty_bridge()
        self._exit.callback(os.close, fd)
        return fd


class VethBridge(_Held):
    """A veth pair a guest, one end of it a port of the bridge."""

    name = "veth bridge"
    network = 81

    def start(self) -> None:
        bridge = self.bridge()
        for guest in range(1, self.count + 1):
            fd = self.fds[guest] = in_thread(_new_namespace)
            self._exit.callback(os.close, fd)
            inside(bridge, partial(_add_veth, fd=fd, port=f"port{guest}"))
            inside(fd, partial(_configure_guest, mac=self.mac(guest), address=self.address(guest)))


class TapBridge(_Held):
    """The guests of a CDNA lab, with a kernel bridge for a NIC: a relay joins each to a tap of it."""

    name = "tap bridge"
    network = 82

    def start(self) -> None:
        from benchmarks.netlab.tap_relay import Relay

        from cdna.nic.tap import open_tap

        bridge = self.bridge()
        relay = Relay()
        self._exit.callback(relay.close)
        for guest in range(1, self.count + 1):
            space = Namespace(self.mac(guest), [ip_interface(f"{self.address(guest)}/24")])
            self._exit.callback(space.close)
            self.fds[guest] = space.fd
            port = f"port{guest}"
            (fd,) = inside(bridge, lambda _, port=port: open_tap(port, vnet_header=True, up=False))
            self._exit.callback(os.close, fd)
            inside(bridge, partial(_add_port, port=port))
            relay.add(space.tap_fd, fd)
        thread = threading.Thread(target=relay.run, name="relay")
        thread.start()
        self._exit.callback(thread.join)
        self._exit.callback(relay.stop)


class CdnaLab(Guests):
    """`cdna up` in a process of its own, and `cdna exec`: what a user has."""

    name = "cdna"
    network = 80

    def __init__(self, count: int, wire: str = "null", guests: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(count)
        self.wire = wire
        self.settings = list(guests)

    def start(self) -> None:
        place = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="cdna-bench-")))
        self.socket = place / "lab.sock"
        plan = place / "lab.toml"
        plan.write_text(self._plan())
        errors = self._exit.enter_context((place / "errors").open("w+"))
        lab = subprocess.Popen(
            cdna("up", "--config", str(plan), "--socket", str(self.socket)),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        self._exit.callback(_end, lab)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if lab.poll() is not None or time.monotonic() > deadline:
                errors.seek(0)
                raise ResourceError(errors.read().strip() or "cdna up: not ready")
            time.sleep(0.02)

    def _plan(self) -> str:
        lines = [f'wire = "{self.wire}"', f'net = ["10.{self.network}.0.0/24"]']
        for guest in range(1, self.count + 1):
            given = self.settings[guest - 1] if guest <= len(self.settings) else {}
            # gro: the relay of the tap bridge joins datagrams, too.
            known = {"name": f"g{guest}", "mac": self.mac(guest), "address": self.address(guest), "gro": True}
            lines += ["", "[[guest]]"]
            lines += [f"{name} = {json.dumps(value)}" for name, value in (known | given).items()]
        return "\n".join(lines) + "\n"

    def sent(self) -> list[tuple[int, int]]:
        """Frames and bytes that each guest has sent."""
        from cdna.lab.control import ControlClient

        with ControlClient(str(self.socket)) as lab:
            traffic = {row["guest"]: row for row in lab.call("stats")[0]["traffic"]}
        rows = [traffic[f"g{guest}"] for guest in range(1, self.count + 1)]
        return [(row["tx_frames"], row["tx_bytes"]) for row in rows]

    def _answers(self) -> bool:
        try:
            self.sent()
        except (CdnaError, KeyError):
            return False
        return True

    def popen(self, guest: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        line = cdna("exec", "--socket", str(self.socket), f"g{guest}", "--", *command)
        return subprocess.Popen(line, text=True, **options)


def inside(fd: int, function: Callable[[Any], Any]) -> Any:
    """What `function` returns, called in a namespace with a netlink socket there."""

    def call() -> Any:
        from pyroute2 import IPRoute
        from pyroute2.netns import setns

        setns(fd)
        with IPRoute() as netlink:
            return function(netlink)

    return in_thread(call)


def empty_bridge() -> int:
    """A namespace with an empty bridge, `BRIDGE`. Returns its descriptor, which the caller closes."""
    fd = in_thread(_new_namespace)
    try:
        inside(fd, _make_bridge)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _new_namespace() -> int:
    from cdna.lab import syscalls

    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as error:
        raise ResourceError(f"a network namespace: {error.strerror}; run as root") from None
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _make_bridge(netlink: Any) -> None:
    for family in ("iptables", "ip6tables", "arptables"):
        switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}")
        if switch.exists():
            switch.write_text("0")
    netlink.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
    configure(netlink, BRIDGE, [])


def _configure_guest(netlink: Any, mac: str, address: str) -> None:
    configure(netlink, "lo", [])
    configure(netlink, DEVICE, [ip_interface(f"{address}/24")], address=mac)


def _add_veth(netlink: Any, fd: int, port: str) -> None:
    netlink.link("add", ifname=port, kind="veth", peer={"ifname": DEVICE, "net_ns_fd": fd})
    _add_port(netlink, port)


def _add_port(netlink: Any, port: str) -> None:
    configure(netlink, port, [], master=netlink.link_lookup(ifname=BRIDGE)[0])


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
