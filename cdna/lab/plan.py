"""What a lab is made of: its wire, its networks, its guests. Nothing here needs a compiled module.

`guest_plans` has the guests one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_interface
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from cdna.errors import ConfigError
from cdna.lab.kinds import DEFAULT, KINDS, GuestPlan, kind_of

if TYPE_CHECKING:
    from cdna.lab.namespace import Address, Interface
    from cdna.lab.values import Network

MAX_GUESTS = 1024
WIRE = "null"
SANDBOXES = ("on", "log", "off")  # log: what it would end the process for is logged, and carried out
POLLS = ("adaptive", "busy")  # how the engine waits: it spins, then sleeps; or it never sleeps
NETS: tuple[Network, ...] = (IPv4Network("10.77.0.0/24"), IPv6Network("fd77::/64"))
HIGHEST = 0xFFFE  # the greatest number of an address that is given to somebody by default


def shared_keys() -> tuple[str, ...]:
    """The keys of [defaults]: settings of a guest of the default kind that are `shared`."""
    kind = KINDS[DEFAULT]
    return tuple(s.name for s in (*kind.networked, *kind.settings) if s.shared)


def has_addressed(guests: Iterable[GuestPlan]) -> bool:
    """Whether one of the guests has addresses of the lab's networks."""
    return any(kind_of(guest).addressed for guest in guests)


@dataclass(frozen=True)
class LabPlan:
    """A lab. ConfigError: two guests have one name, address or MAC, or there are too many.

    net: where addresses are taken from. host: the host's addresses on the wire, where that is a tap.
    identity: tells this lab's MAC addresses from those of others; None: its socket does.
    """

    guests: tuple[GuestPlan, ...] = ()
    wire: str = WIRE
    net: tuple[Network, ...] = NETS
    host: tuple[Interface, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    socket: str | None = None
    metrics: str | None = None
    poll: str = POLLS[0]
    cpu: int | None = None  # the core that the NIC stays on
    sandbox: str = SANDBOXES[0]
    identity: str | None = None

    def __post_init__(self) -> None:
        if len(self.guests) > MAX_GUESTS:
            raise ConfigError(f"{len(self.guests)} guests: give up to {MAX_GUESTS}")
        check_distinct(self.guests, self.host)


def check_distinct(guests: Sequence[GuestPlan], host: Sequence[Interface] = ()) -> None:
    """Raises ConfigError when a name, a MAC or an address is somebody else's."""
    owners: dict[object, str] = {interface.ip: "the host" for interface in host}
    for guest in guests:
        _claim(owners, guest.name.lower(), guest.name, "name")
        if guest.mac is not None:
            _claim(owners, guest.mac, guest.name, "MAC address")
        for interface in guest.addresses:
            _claim(owners, interface.ip, guest.name, "address")
        for what, thing in guest.claims().items():
            _claim(owners, thing, guest.name, what)


def _claim(owners: dict[object, str], thing: object, guest: str, what: str) -> None:
    if what == "name" and thing in owners:
        raise ConfigError(f"guest {guest}: there are two of this name; give each its own")
    if thing in owners:
        raise ConfigError(f"guest {guest}: {what} {thing} is taken by {owners[thing]}; give another")
    owners[thing] = guest


def host_addresses(net: Sequence[Network]) -> tuple[Interface, ...]:
    """The host's default addresses: 10.77.0.254 and fd77::fe of the default networks."""
    number = last_number(net)
    return tuple(_numbered(n, number) for n in net)


def last_number(net: Iterable[Network]) -> int:
    """The number of the host's addresses, the greatest that each of the networks has."""
    return min([HIGHEST, *(n.num_addresses - 2 for n in net)])


def with_addresses(
    guests: Iterable[GuestPlan],
    net: Sequence[Network],
    host: Sequence[Interface] = (),
    others: Sequence[GuestPlan] = (),
) -> list[GuestPlan]:
    """The guests, with addresses for those that have none: the first guest's end in 1, and so on.

    Guests of kinds that are not `addressed` look after their addresses themselves.
    """
    guests = list(guests)
    taken = {interface.ip for interface in host}
    taken |= {interface.ip for guest in (*guests, *others) for interface in guest.addresses}
    done = []
    position = sum(kind_of(guest).addressed for guest in others)
    for guest in guests:
        addressed = kind_of(guest).addressed
        position += addressed
        if addressed and not guest.addresses and net:
            number = next(n for n in _numbers(position, net) if not _own(n, net) & taken)
            guest = replace(guest, addresses=tuple(_numbered(n, number) for n in net))
            taken |= {interface.ip for interface in guest.addresses}
        done.append(guest)
    return done


def _own(number: int, net: Iterable[Network]) -> set[Address]:
    return {_numbered(n, number).ip for n in net}


def _numbers(first: int, net: Sequence[Network]) -> Iterator[int]:
    """The numbers to try for a guest's addresses, its position first. ConfigError: there are no more."""
    last = last_number(net)
    for number in chain([first], count(1)):
        if number > last:
            if number == first:
                continue
            room = ", ".join(map(str, net))
            raise ConfigError(f"no address is left in {room}; give a larger network, such as 10.77.0.0/16")
        yield number


def _numbered(net: Network, number: int) -> Interface:
    return ip_interface(f"{net[number]}/{net.prefixlen}")


def plain_guests(number: int) -> list[dict[str, Any]]:
    """The settings of guests that are told apart by their numbers alone."""
    return [{"name": f"g{n}"} for n in range(1, number + 1)]
