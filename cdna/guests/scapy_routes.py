"""The guests of a lab in scapy's routing tables, so that nothing for a guest leaves by the host's kernel.

scapy takes the address of an interface for one of the host's own: a packet for it goes to the loopback
interface. So each guest's address has a route of its own, through another guest of the lab, or through itself
where there is no other or `iface=` says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scapy.config import conf

from cdna.guests.scapy_neighbours import link_local

# Metrics: scapy's rule for the host's own addresses has 1, and the host's routes have 0 or more.
NEAREST, OWN = -2, -1
BEHIND_THE_HOST = 1 << 16  # of routes for addresses that every link has


class End(NamedTuple):
    """A guest as a routing table knows it."""

    name: str
    mac: str
    ip: str | None


def add_routes(guests: Sequence[End], network: str | None) -> None:
    """Adds the routes of all guests of a lab. network: of their addresses, None where they have none."""
    for at, guest in enumerate(guests):
        peer = guests[1 if at == 0 else 0] if len(guests) > 1 else guest
        if guest.ip is not None and peer.ip is not None and network is not None:
            _add_v4(f"{guest.ip}/32", peer, NEAREST)
            _add_v4(f"{guest.ip}/32", guest, OWN)
            _add_v4(network, guest, NEAREST)
        own = link_local(guest.mac)
        _add_v6(own, 128, peer, NEAREST)
        _add_v6(own, 128, guest, OWN)
        _add_v6("fe80::", 64, guest, BEHIND_THE_HOST)
    conf.route.invalidate_cache()
    conf.route6.invalidate_cache()


def _add_v4(network: str, through: End, metric: int) -> None:
    net = ipaddress.IPv4Network(network)
    route = (int(net.network_address), int(net.netmask), "0.0.0.0", through.name, through.ip, metric)
    if route not in conf.route.routes:
        conf.route.routes.append(route)


def _add_v6(prefix: str, length: int, through: End, metric: int) -> None:
    conf.route6.routes.append((prefix, length, "::", through.name, [link_local(through.mac)], metric))


def remove_routes(names: Iterable[str]) -> None:
    """Removes the routes of guests that end."""
    for name in names:
        conf.route.ifdel(name)
        conf.route6.routes = [route for route in conf.route6.routes if route[3] != name]
    conf.route6.invalidate_cache()
