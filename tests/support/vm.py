"""Virtual machines for tests: two guests that boot once, and networks that they are plugged into.

CDNA_TEST_FILE_SIZE is the size of the file that HTTP moves, in MiB: 32 unless it is set, 1024 in a full run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from cdna.base.closing import Closing
from cdna.lab.control import ControlClient
from cdna.lab.namespace import configure
from cdna.lab.privilege import is_privileged
from cdna.vm import image
from cdna.vm.host import HostNetwork
from cdna.vm.machine import VirtualMachine, die_with_parent
from cdna.vm.network import Nic, VhostUser
from cdna.vm.server import ServeProcess

FILE_MIB = int(os.environ.get("CDNA_TEST_FILE_SIZE", "32"))
DEADLINE = 90.0  # seconds, for what takes one or two
WIRE = "wire0"  # the tap that the NIC is plugged into
BUSYBOX = shutil.which("busybox", path=image.SEARCH) or "busybox"


def lacking() -> list[str]:
    """What this machine lacks for virtual machines on a tap."""
    rights = [] if is_privileged() and os.path.exists("/dev/net/tun") else ["root and /dev/net/tun"]
    return [*image.missing(), *rights]


needs_vm = pytest.mark.skipif(bool(lacking()), reason=f"virtual machines need {', '.join(lacking())}")


class Lan(Closing):
    """One `cdna serve` between guests and the tap of its wire, in a namespace of the host's."""

    def __init__(self, *contexts: str, number: int = 1, host: HostNetwork | None = None) -> None:
        self.number = number
        self._undo = contextlib.ExitStack()
        self.host = host or self._undo.enter_context(HostNetwork())
        self.wire = f"{WIRE}{number}"
        self.server = self._undo.enter_context(
            ServeProcess(self.host, [self._context(text) for text in contexts], wire=f"tap:{self.wire}")
        )
        self._plugged: list[tuple[VirtualMachine, Nic]] = []

    def _context(self, text: str) -> str:
        name, _, options = text.partition(",")
        mac = "" if "mac=" in options else f",mac={self.mac(name)}"
        return f"vhost-user:{{place}}/{name},name={name}{mac}" + (f",{options}" if options else "")

    def address(self, name: str, version: int = 4) -> str:
        """Of a guest or "host"."""
        last = 254 if name == "host" else 1 + sorted(("alice", "bob", "carol", "mover")).index(name)
        return f"10.{76 + self.number}.0.{last}" if version == 4 else f"fd{76 + self.number:x}::{last:x}"

    def mac(self, name: str) -> str:
        return f"02:cd:77:{self.number:02x}:00:{int(self.address(name).rpartition('.')[2]):02x}"

    def give_host_address(self, device: str | None = None) -> None:
        for version, length in ((4, 24), (6, 64)):
            address = ip_interface(f"{self.address('host', version)}/{length}")
            self.host.inside(partial(configure, device=device or self.wire, addresses=[address]))

    def call(self, command: str, **arguments: Any) -> Any:
        """The first answer to a command of the server's control socket."""
        with ControlClient(str(self.server.control)) as client:
            return client.call(command, **arguments)[0]

    def nic(self, name: str, **properties: Any) -> VhostUser:
        """The device of a guest; properties: of virtio-net-pci, but for `queues`."""
        queues = properties.pop("queues", 1)
        path = str(self.server.place / name)
        return VhostUser("net0", self.mac(name), queues=queues, properties=properties, path=path)

    def plug(self, guest: VirtualMachine, name: str = "", **properties: Any) -> VhostUser:
        """Plugs a device into a guest and gives it its addresses."""
        nic = self.nic(name or guest.name, **properties)
        guest.plug(nic)
        self._plugged.append((guest, nic))
        self.configure(guest, name)
        return nic

    def configure(self, guest: VirtualMachine, name: str = "") -> None:
        """Waits for the guest's device and gives it its addresses."""
        name = name or guest.name
        settings = "/proc/sys/net/ipv6/conf/eth0"
        guest.run(
            f"n=0; until [ -e {settings} ]; do n=$((n + 1)); [ $n -gt 500 ] && exit 1; usleep 9999; "
            f"done; echo 0 >{settings}/accept_dad && ip addr add {self.address(name)}/24 dev eth0 && "
            f"ip addr add {self.address(name, 6)}/64 dev eth0 && ip link set eth0 up"
        )

    def unplug(self, guest: VirtualMachine) -> None:
        (found,) = [pair for pair in self._plugged if pair[0] is guest]
        self._plugged.remove(found)
        guest.unplug(found[1])

    def close(self) -> None:
        with self._undo:
            for guest, nic in self._plugged:
                guest.unplug(nic)


def wait_for(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def reaches(guest: VirtualMachine, address: str) -> bool:
    """Whether a ping is answered, once the link is up and neighbours are known."""
    ping = f"/bin/ping -n -c 1 -W 1 {address} >/dev/null 2>&1"
    tries = "n=0; until {}; do n=$((n + 1)); [ $n -gt 40 ] && exit 1; sleep 0.1; done"
    return guest.status(tries.format(ping), DEADLINE) == 0


def iperf3(guest: VirtualMachine, to: str, *options: str, mib: int = 8) -> bool:
    """Sends TCP from the guest to a server of iperf3, or with "-R" the other way. Whether it arrives.

    iperf3 stops counting what arrives when the sender says that it is done: what is then under way, as much
    as the buffers of all streams, is left out.
    """
    command = f"iperf3 -c {to} -n {mib}M -i 0 -J {' '.join(options)}"
    report = json.loads(guest.run(command, DEADLINE, check=False))
    assert "error" not in report, report["error"]
    return int(report["end"]["sum_received"]["bytes"]) >= (mib << 20) / 2


def features(guest: VirtualMachine) -> set[int]:
    """The feature bits of the guest's network device."""
    text = guest.run("cat /sys/class/net/eth0/device/features").strip()
    return {bit for bit, set_ in enumerate(text) if set_ == "1"}


@cache
def part() -> bytes:
    """A MiB that host and guests have: the beginning of busybox."""
    return Path(BUSYBOX).read_bytes()[: 1 << 20].ljust(1 << 20, b"\0")


def parts(mib: int) -> Iterator[bytes]:
    """The file that HTTP moves: so many times a line that differs and the same MiB."""
    for number in range(mib):
        yield b"part %d\n" % number
        yield part()


@cache
def parts_hash(mib: int) -> str:
    whole = hashlib.sha256()
    for piece in parts(mib):
        whole.update(piece)
    return whole.hexdigest()


# A CGI program of busybox's httpd: /cgi-bin/parts?N is the file of N MiB.
SCRIPT = """#!/bin/sh
printf 'Content-Type: application/octet-stream\\r\\n\\r\\n'
n=0
while [ $n -lt $QUERY_STRING ]; do echo part $n; cat {part}; n=$((n + 1)); done
"""


def start_services(guest: VirtualMachine) -> None:
    """Starts a guest's iperf3 and HTTP servers."""
    script = SCRIPT.format(part="/tmp/part")
    guest.run(
        "iperf3 -s -D; head -c 1048576 /bin/busybox >/tmp/part; mkdir -p /tmp/www/cgi-bin; "
        f"cat >/tmp/www/cgi-bin/parts <<'END'\n{script}END\n"
        "chmod +x /tmp/www/cgi-bin/parts; httpd -p 80 -h /tmp/www"
    )


@contextlib.contextmanager
def host_services(host: HostNetwork, place: Path) -> Iterator[None]:
    """The host's iperf3 and HTTP servers, inside the namespace of a network."""
    script = place / "cgi-bin" / "parts"
    script.parent.mkdir(parents=True, exist_ok=True)
    (place / "part").write_bytes(part())
    script.write_text(SCRIPT.format(part=place / "part"))
    script.chmod(0o755)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    commands = (["iperf3", "-s"], [BUSYBOX, "httpd", "-f", "-p", "80", "-h", str(place)])
    processes = [host.popen(command, before=die_with_parent, **quiet) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fetch(address: str, mib: int, wget: str = "wget") -> str:
    """A shell command that prints the hash of a file of so many MiB, fetched from a guest or the host."""
    return f"{wget} -q -O - 'http://{address}/cgi-bin/parts?{mib}' | sha256sum | cut -d' ' -f1"


def guest_hash(guest: VirtualMachine, address: str, mib: int) -> str:
    """The hash of the file as a guest gets it."""
    return guest.run(fetch(address, mib), DEADLINE + mib).strip()


def host_hash(host: HostNetwork, address: str, mib: int) -> str:
    """The hash of the file as the host gets it."""
    return host.run("sh", "-c", fetch(address, mib, f"{BUSYBOX} wget"), seconds=DEADLINE + mib).strip()
