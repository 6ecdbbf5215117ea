"""Guests for scapy in three lines, and the guests as interfaces that scapy knows by name.

    import cdna
    alice, bob = cdna.scapy_guests("alice", "bob")
    alice.sr1(Ether(dst=bob.mac) / IP(dst=bob.ip) / ICMP(), timeout=1)

Where scapy takes an interface, `iface="alice"` does as well: srp1, sniff, sr1 with a layer 3 packet.
"""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

from scapy.config import conf
from scapy.data import ARPHRD_ETHER, ETH_P_ALL
from scapy.interfaces import InterfaceProvider, NetworkInterface

from cdna.base.closing import Closing
from cdna.errors import ConfigError, known, whole
from cdna.guest_driver.queues import memory_needed
from cdna.guests.scapy_routes import End, add_routes, remove_routes
from cdna.guests.scapy_socket import ScapyL3Socket, ScapySocket
from cdna.guests.shared_driver import SharedDriver
from cdna.machine import BUFFER_SIZES, LARGEST_MEMORY, GuestSettings, Machine
from cdna.settings import ContextSettings, Settings

NETWORK = "10.0.0.0/24"
_FIRST_INDEX = 1 << 20  # of scapy's interfaces; the kernel's are far below

_interfaces: dict[str, GuestInterface] = {}


class ScapyGuest(ScapySocket):
    """A guest's socket that knows its name and keeps its machine alive. `iface`: of scapy's."""

    def __init__(
        self, name: str, lab: _Lab, guest: SharedDriver, ip: str | None, network: str | None
    ) -> None:
        super().__init__(guest, ip=ip, network=network)
        self.name = name
        self.iface = _interfaces[name]
        self._lab: _Lab | None = lab

    @property
    def machine(self) -> Machine:
        self._check_open()
        assert self._lab is not None
        return self._lab.machine

    def close(self) -> None:
        """Closes the socket, and with the last one of them the machine."""
        super().close()
        self._lab = None


class ScapyGuests(Closing, tuple[ScapyGuest, ...]):
    """The guests of one machine; `close`, or the end of `with`, ends them and frees their names."""

    machine: Machine
    _end: Callable[[], object]

    def close(self) -> None:
        for guest in self:
            guest.close()
        self._end()


def scapy_guests(
    *names: str,
    wire: Any = "null",
    network: str | None = NETWORK,
    start: bool = False,
    **settings: Unpack[GuestSettings],
) -> ScapyGuests:
    """A machine with a guest for each name, each a scapy socket with `mac`, `ip`, `name`, `iface`, `l3`.

    network: gives the guests its first addresses, and scapy a route for each of them; None: no addresses.
    start: runs the NIC on a core of its own; otherwise the guests' sockets move it when they are used, and no
    thread is needed. wire: as of `Machine`; settings: `ContextSettings` of all of them, and `buffer_size`.

    The machine is closed with the last socket, when they are garbage, when guests of the same names are made
    again (as a notebook does), or at exit.
    ConfigError: a name that another interface of scapy's has, no room in the network, no such setting.
    """
    if not names:
        raise ConfigError("scapy_guests: give a name for each guest")
    addresses = _addresses(network, len(names))
    for name in names:
        if name in conf.ifaces.data and name not in _interfaces:
            raise ConfigError(f"guest {name!r}: scapy knows an interface of this name; give another")
    memory = _memory(len(names), settings)
    for name in names:
        if name in _interfaces:
            _interfaces[name].end_lab()
    lab = _Lab(Machine(memory, wire=wire, contexts=max(32, 2 * len(names))))
    try:
        guests = ScapyGuests(
            lab.guest(name, address, network, settings)
            for name, address in zip(names, addresses, strict=True)
        )
        guests.machine, guests._end = lab.machine, lab.close
        add_routes([End(guest.name, guest.mac, guest.ip) for guest in guests], network)
        if start:
            lab.machine.start()
    except BaseException:
        lab.close()
        raise
    return guests


def _addresses(network: str | None, n: int) -> list[str | None]:
    if network is None:
        return [None] * n
    try:
        if not isinstance(network, str):
            raise ValueError("it is no text")
        parsed = ipaddress.IPv4Network(network)
    except ValueError as error:
        raise ConfigError(f"network {network!r}: {error}; give one such as {NETWORK}") from None
    if parsed.num_addresses - 2 < n:
        raise ConfigError(f"network {network}: it has no {n} addresses for guests; give a larger one")
    return [str(parsed[i + 1]) for i in range(n)]


def _memory(n: int, settings: GuestSettings) -> int:
    known("setting of a guest", settings, GuestSettings.__annotations__)
    wanted = ContextSettings(**{k: v for k, v in settings.items() if k in Settings.__annotations__})  # type: ignore[arg-type]
    size = whole("buffer_size", settings.get("buffer_size", 2048), *BUFFER_SIZES)
    memory = settings.get("memory")
    if memory is None:
        memory = memory_needed(wanted.tx_ring, wanted.rx_ring, size)
    return max(16 << 20, 2 * n * whole("memory", memory, 1, LARGEST_MEMORY))


class _Lab:
    """Keeps a machine for its sockets: garbage when they are."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.close = weakref.finalize(self, _close, machine, self._names())

    def _names(self) -> list[str]:
        self.names: list[str] = []
        return self.names

    def guest(self, name: str, ip: str | None, network: str | None, settings: GuestSettings) -> ScapyGuest:
        shared = SharedDriver.of(self.machine.attach(name, **settings))
        _interfaces[name] = GuestInterface(name, shared, ip, network, self.close)
        self.names.append(name)
        _announce(_interfaces[name])
        return ScapyGuest(name, self, shared, ip, network)


def _close(machine: Machine, names: list[str]) -> None:
    for name in names:
        interface = _interfaces.pop(name)
        conf.ifaces.data.pop(name, None)
        conf.netcache.arp_cache.pop(interface.ip, None)
    remove_routes(names)
    machine.close()


# --- as scapy's interfaces ------------------------------------------------------------------------------


class GuestInterface(NetworkInterface):  # type: ignore[misc]
    """A guest where scapy takes an interface. It keeps neither the guest nor its machine."""

    def __init__(
        self,
        name: str,
        shared: SharedDriver,
        ip: str | None,
        network: str | None,
        end_lab: Callable[[], object],
    ) -> None:
        self.shared = weakref.ref(shared)
        self.network = network
        self.end_lab = end_lab
        described = {
            "name": name,
            "description": name,
            "network_name": name,
            "index": _FIRST_INDEX + shared.driver.context.index,
            "type": ARPHRD_ETHER,
            "mac": shared.mac,
            "ips": [ip] if ip else [],
        }
        super().__init__(GuestProvider(), described)


class GuestProvider(InterfaceProvider):  # type: ignore[misc]
    """The guests of this process."""

    name = "cdna"

    def load(self) -> dict[str, Any]:
        return dict(_interfaces)

    def _is_valid(self, dev: GuestInterface) -> bool:
        return dev.shared() is not None

    def _l2socket(self, dev: GuestInterface) -> Any:
        return partial(_open, ScapySocket, dev, network=dev.network)

    def _l2listen(self, dev: GuestInterface) -> Any:
        return partial(_open, ScapySocket, dev, network=dev.network, outgoing=True)

    def _l3socket(self, dev: GuestInterface, ipv6: bool) -> Any:
        return partial(_open, ScapyL3Socket, dev, network=dev.network)


def _open(
    kind: type[ScapySocket],
    dev: GuestInterface,
    iface: object = None,
    type: int = ETH_P_ALL,
    filter: str | None = None,
    promisc: object = None,
    nofilter: object = 0,
    monitor: object = None,
    **options: Any,
) -> ScapySocket:
    """As scapy makes a socket of an interface: by the arguments of its own."""
    shared = dev.shared()
    if shared is None:
        raise ConfigError(f"guest {dev.name!r} is gone: its machine was closed")
    return kind(shared, ip=dev.ip or None, type=type, filter=None if nofilter else filter, **options)


def _announce(interface: GuestInterface) -> None:
    """Tells scapy of an interface."""
    if GuestProvider not in conf.ifaces.providers:
        conf.ifaces.register_provider(GuestProvider)
    conf.ifaces.data[interface.name] = interface
