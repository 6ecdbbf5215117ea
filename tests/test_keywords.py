"""Keywords and values that cannot be: every function that takes settings raises ConfigError, nothing else."""

from dataclasses import fields

import pytest

from cdna import ConfigError, ContextSettings, Machine, Policy, RemoteDriver, scapy_guests
from cdna.guests.hostile import Hostile, HostileSettings
from cdna.guests.misbehaviour import HostileGuest
from cdna.machine import GuestSettings, NicOptions
from cdna.pytest_guests import Mischief, NicGuest
from cdna.settings import Settings
from cdna.vmm.policy import PolicyOptions

MEMORY = 8 << 20
WRONG = ["x", object(), -1, 1.5, 10**30, float("nan"), b"bytes", ("x", "y"), {"x": 1}]

TAKERS = {
    "attach": lambda machine, path, **settings: machine.attach("a", **settings),
    "hostile": lambda machine, path, **settings: Hostile(machine, **settings),
    "misbehaving": lambda machine, path, **settings: HostileGuest(machine, **settings),
    "cdna_guest": lambda machine, path, **settings: NicGuest(machine, "a", None, settings),
    "cdna_hostile": lambda machine, path, **settings: Mischief(machine).attach(**settings),
    "scapy_guests": lambda machine, path, **settings: scapy_guests("a", **settings),
    "remote": lambda machine, path, **settings: RemoteDriver(path, name="a", **settings),
    "machine": lambda machine, path, **settings: Machine(**settings),
    "serve": lambda machine, path, **settings: machine.serve(path / "other", **settings),
    "set": lambda machine, path, **settings: machine.attach("a").context.set(**settings),
}


@pytest.fixture
def machine():
    machine = Machine(MEMORY)
    yield machine
    machine.close()


def names(kind):
    return {field.name for field in fields(kind) if field.init}


def test_typed_keywords_are_those_that_there_are():
    assert Settings.__annotations__.keys() == names(ContextSettings)
    assert GuestSettings.__annotations__.keys() == names(ContextSettings) | {"memory", "buffer_size"}
    assert HostileSettings.__annotations__.keys() == names(ContextSettings) | {"pages"}
    assert PolicyOptions.__annotations__.keys() == names(Policy)
    with Machine(MEMORY, max_ring=512, interrupt_frames=1, interrupt_us=0.0) as machine:
        assert NicOptions.__annotations__.keys() == {"max_ring", "interrupt_frames", "interrupt_us"}
        assert (machine.nic.max_ring, machine.nic.moderation) == (512, (1, 0.0))


@pytest.mark.parametrize("taker", TAKERS)
def test_a_keyword_that_there_is_not(machine, tmp_path, taker):
    with pytest.raises(ConfigError, match="'foo': give some of "):
        TAKERS[taker](machine, tmp_path, foo=1)


@pytest.mark.parametrize("taker", ["attach", "scapy_guests", "hostile"])
@pytest.mark.parametrize("name", sorted(names(ContextSettings)))
def test_values_that_cannot_be(machine, tmp_path, taker, name):
    for wrong in WRONG:
        with pytest.raises(ConfigError):
            TAKERS[taker](machine, tmp_path, **{name: wrong})
