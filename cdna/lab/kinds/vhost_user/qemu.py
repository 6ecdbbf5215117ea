"""The QEMU arguments and the libvirt XML that attach a machine to a vhost-user context."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from xml.etree import ElementTree

from cdna.base.units import parse_mebibytes
from cdna.errors import ConfigError

Version = tuple[int, int]

PROGRAM = "qemu-system-x86_64"
OLDEST: Version = (7, 2)  # what is assumed where no QEMU is installed
RECONNECT_MS: Version = (9, 2)  # from here on the chardev's reconnect-ms, in place of reconnect
# QEMU 7.2 under TCG dies of a segmentation fault when a vhost-user device has MSI-X, as it asks for a KVM
# irqfd. 11.1 does not. Those between were not tried; without vectors a device interrupts by INTx in all.
TCG_VECTORS: Version = (11, 1)
RING = 1024  # descriptors: the most that QEMU takes
MTU = 1500  # a machine's, unless it is told


def qemu_arguments(
    guests: Sequence[Mapping[str, Any]], memory: int, version: Version, *, tcg: bool = False
) -> list[str]:
    """Options and their values, in turn. guests: as the server describes them; memory: in MiB.

    tcg: the machine is emulated, without KVM.

    The machine's memory has to be a file that both map: a memfd, shared. ConfigError: no vhost-user context.
    """
    return [
        *("-m", f"{memory}M"),
        *("-object", f"memory-backend-memfd,id=mem,size={memory}M,share=on"),
        *("-numa", "node,memdev=mem"),
        *(word for guest in guests for word in _device(guest, version, tcg)),
    ]


def _device(guest: Mapping[str, Any], version: Version, tcg: bool) -> list[str]:
    name, path, pairs = guest["guest"], _socket(guest), guest["queues"]
    if guest["mode"] == "client":  # we are the client, QEMU listens
        link = "server=on,wait=off"
    else:
        link = "reconnect-ms=1000" if version >= RECONNECT_MS else "reconnect=1"
    netdev = [f"vhost-user,id=net-{name},chardev=char-{name}"]
    device = [
        f"virtio-net-pci,netdev=net-{name},mac={guest['mac']}",
        f"rx_queue_size={RING},tx_queue_size={RING}",
    ]
    if pairs > 1:
        netdev.append(f"queues={pairs}")
        device.append("mq=on")
    if tcg and version < TCG_VECTORS:
        device.append("vectors=0")
    elif pairs > 1:
        device.append(f"vectors={2 * pairs + 2}")  # each ring's, configuration's, control queue's
    if guest["mtu"] != MTU:
        device.append(f"host_mtu={guest['mtu']}")
    return [
        *("-chardev", f"socket,id=char-{name},path={_escaped(path)},{link}"),
        *("-netdev", ",".join(netdev)),
        *("-device", ",".join(device)),
    ]


def libvirt_xml(guests: Sequence[Mapping[str, Any]]) -> str:
    """What belongs into <domain>, and into its <devices>. ConfigError: no vhost-user context."""
    interfaces = [_interface(guest) for guest in guests]
    backing = ElementTree.Element("memoryBacking")
    ElementTree.SubElement(backing, "source", type="memfd")
    ElementTree.SubElement(backing, "access", mode="shared")
    parts = [("in <domain>", backing), *(("in <devices>", interface) for interface in interfaces)]
    return "".join(f"<!-- {where} -->\n{_indented(element)}\n" for where, element in parts)


def _interface(guest: Mapping[str, Any]) -> ElementTree.Element:
    interface = ElementTree.Element("interface", type="vhostuser")
    ElementTree.SubElement(interface, "mac", address=guest["mac"])
    listens = guest.get("mode") == "client"  # libvirt names the machine's side
    source = ElementTree.SubElement(
        interface, "source", type="unix", path=_socket(guest), mode="server" if listens else "client"
    )
    if not listens:
        ElementTree.SubElement(source, "reconnect", enabled="yes", timeout="1")
    ElementTree.SubElement(interface, "model", type="virtio")
    driver = {"rx_queue_size": str(RING), "tx_queue_size": str(RING)}
    if guest["queues"] > 1:
        driver["queues"] = str(guest["queues"])
    ElementTree.SubElement(interface, "driver", driver)
    if guest["mtu"] != MTU:
        ElementTree.SubElement(interface, "mtu", size=str(guest["mtu"]))
    return interface


def _indented(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode")


def _socket(guest: Mapping[str, Any]) -> str:
    path = guest.get("socket")
    if path is None:
        raise ConfigError(
            f"guest {guest['guest']}: a {guest['kind']} guest; machines attach to vhost-user contexts only"
        )
    if not str(path).isprintable():  # XML has no way to write it, a terminal may obey it
        raise ConfigError(
            f"guest {guest['guest']}: the path of its socket, {path!r}, is not printable; give it another"
        )
    return str(path)


def _escaped(path: str) -> str:
    """A value among QEMU's options: a comma in it is written twice."""
    return path.replace(",", ",,")


def parse_size(where: str, text: str) -> int:
    """MiB, of a text such as 512M or 4G."""
    mebibytes = parse_mebibytes(text)
    if mebibytes is None:
        raise ConfigError(f"{where} {text!r:.40}: give a size such as 512M or 4G")
    return mebibytes


def parse_version(where: str, text: str) -> Version:
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", text, re.ASCII)
    if not found:
        raise ConfigError(f"{where} {text!r:.40}: give a version such as 7.2")
    return int(found[1]), int(found[2])


@cache
def installed_version() -> Version:
    """That of the QEMU on the path; OLDEST where there is none."""
    program = shutil.which(PROGRAM)
    if program is None:
        return OLDEST
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return OLDEST
    found = re.search(r"version ([0-9]+)\.([0-9]+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else OLDEST
