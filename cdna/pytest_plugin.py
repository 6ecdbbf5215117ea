"""pytest fixtures: packet code tested against a NIC with hostile neighbours, without root.

    def test_my_resolver(cdna_guest, cdna_hostile):
        alice, bob = cdna_guest("alice"), cdna_guest("bob")
        cdna_hostile("spoof", "sequence")
        alice.send(my_query(alice.mac))
        assert parse(bob.recv()[0]) == ...

cdna_nic: a `Machine`, closed at the end. It moves when a guest sends or receives, or by `step()`: no thread,
no clock. `@pytest.mark.cdna(wire=..., contexts=..., memory=..., start=True)` says otherwise.
cdna_guest: a function (name, ip=None, **ContextSettings) that attaches a `cdna.pytest_guests.NicGuest`.
cdna_hostile: a function (*ways, name=...) that attaches a `HostileGuest`; it acts whenever the machine moves.

Nothing is imported before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from typing import Unpack

    from cdna.guests.hostile import HostileSettings
    from cdna.guests.misbehaviour import HostileGuest
    from cdna.machine import GuestSettings, Machine
    from cdna.pytest_guests import NicGuest


class AttachGuest(Protocol):
    """The fixture `cdna_guest`."""

    def __call__(
        self, name: str | None = None, *, ip: str | None = None, **settings: Unpack[GuestSettings]
    ) -> NicGuest: ...


class AttachHostile(Protocol):
    """The fixture `cdna_hostile`."""

    def __call__(
        self, *ways: str, name: str | None = None, **settings: Unpack[HostileSettings]
    ) -> HostileGuest: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "cdna(wire='queue', contexts=32, memory=67108864, start=False, ...): the machine of cdna_nic; wire "
        "is a function that makes a Wire, or a name; start runs the NIC in a thread; the rest is for Nic",
    )


@pytest.fixture
def cdna_nic(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with a NIC; the marker `cdna` says which."""
    from cdna.errors import ConfigError
    from cdna.pytest_guests import open_machine

    marker = request.node.get_closest_marker("cdna")
    try:
        machine = open_machine(marker.args, marker.kwargs) if marker else open_machine((), {})
    except (ConfigError, TypeError) as error:
        pytest.fail(f"pytest.mark.cdna: {error}", pytrace=False)
    yield machine
    machine.close()


@pytest.fixture
def cdna_guest(cdna_nic: Machine) -> Iterator[AttachGuest]:
    """Attaches a guest to `cdna_nic`: cdna_guest(name, ip=None, **settings)."""
    from cdna.pytest_guests import NicGuest

    guests: list[NicGuest] = []

    def attach(
        name: str | None = None, *, ip: str | None = None, **settings: Unpack[GuestSettings]
    ) -> NicGuest:
        guests.append(NicGuest(cdna_nic, name or f"guest{len(guests)}", ip, settings))
        return guests[-1]

    yield attach
    for guest in guests:
        guest.close()


@pytest.fixture
def cdna_hostile(cdna_nic: Machine) -> Iterator[AttachHostile]:
    """Attaches a guest to `cdna_nic` that misbehaves: cdna_hostile(*ways, name=None, **settings)."""
    from cdna.pytest_guests import Mischief

    with Mischief(cdna_nic) as mischief:
        yield mischief.attach
