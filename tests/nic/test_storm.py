"""Limits of what a context floods: broadcasts and multicasts, and frames to unknown destinations."""

from __future__ import annotations

import time

import pytest

from cdna import ConfigError
from cdna.nic.options import STORM_BURST
from tests.support.frames import BROADCAST, OUTSIDE, frame
from tests.support.lan import Lan

HARDLY_ANY = 1e-3  # frames a second: one more in a quarter of an hour
GROUP = bytes.fromhex("01005e000001")
DEADLINE = 20.0  # seconds


def limited(what, **contexts):
    """A network whose `a` may flood a burst of frames, and no other that a test would see."""
    lan = Lan(**contexts)
    lan.machine.nic.set_option(lan["a"].context.index, what, HARDLY_ANY)
    return lan


def test_broadcasts_and_multicasts_share_a_limit():
    lan = limited("storm", a={}, b={"all_multicast": True}, c={})
    passed = 0
    for i in range(STORM_BURST + 4):
        to, takers = (GROUP, {"b", "wire"}) if i % 2 else (BROADCAST, {"b", "c", "wire"})
        got = lan.send(frame(to, lan.addr("a"), i), "a")
        assert got.keys() == (takers if i < STORM_BURST else set())
        passed += bool(got)
    assert passed == STORM_BURST
    assert lan.stats("a") == {"tx_drop_storm": 4}
    for to in ("b", "wire"):  # what is for one receiver is not counted
        data = frame(lan.addr(to), lan.addr("a"))
        assert lan.send(data, "a") == {to: [data]}
    data = frame(BROADCAST, lan.addr("b"))  # nor what others send
    assert lan.send(data, "b").keys() == {"a", "c", "wire"}
    lan["a"].context.set(storm=0)
    assert lan.send(frame(BROADCAST, lan.addr("a")), "a").keys() == {"b", "c", "wire"}
    lan.machine.close()


def test_what_fills_a_bucket_is_time():
    lan = Lan(a={"storm": 80})
    data = frame(BROADCAST, lan.addr("a"))
    begun = time.monotonic()
    sent = 0
    while time.monotonic() < begun + DEADLINE and sent < 3 * STORM_BURST:
        sent += bool(lan.send(data, "a"))
    assert sent == 3 * STORM_BURST
    assert time.monotonic() - begun > 2 * STORM_BURST / 80 * 0.9
    assert lan.stats("a")["tx_drop_storm"] > 0
    lan.machine.close()


def test_frames_to_unknown_destinations_go_to_the_wire_alone_beyond_their_limit():
    lan = limited("flood", a={}, b={}, all={"promiscuous": True})
    unknown = frame(OUTSIDE, lan.addr("a"))
    for _ in range(STORM_BURST):
        assert lan.send(unknown, "a") == {"all": [unknown], "wire": [unknown]}
    for _ in range(3):
        assert lan.send(unknown, "a") == {"wire": [unknown]}
    assert lan["a"].context.stats()["tx_unflooded"] == 3
    assert lan.stats("a") == {}
    known, broadcast = frame(lan.addr("b"), lan.addr("a")), frame(BROADCAST, lan.addr("a"))
    assert lan.send(known, "a").keys() == {"b", "all"}
    assert lan.send(broadcast, "a").keys() == {"b", "all", "wire"}
    lan["all"].context.set(promiscuous=False)
    assert lan.send(unknown, "a") == {"wire": [unknown]}
    assert lan["a"].context.stats()["tx_unflooded"] == 3  # there was nobody to flood
    lan.machine.close()


def test_a_context_that_is_assigned_anew_has_no_limit_of_before():
    lan = Lan(a={"storm": 100, "flood": 100})
    vmm, old = lan.machine.vmm, lan["a"].context
    index, guest = old.index, old.guest
    vmm.revoke(old)
    again = vmm.assign(guest, index=index)
    assert (again.options["storm"], again.options["flood"]) == (0, 0)
    lan.machine.close()


@pytest.mark.parametrize("value", [-1, 1.5, 1e10, float("nan"), "fast", True])
def test_limits_that_cannot_be(value):
    lan = Lan(a={})
    for name in ("storm", "flood"):
        with pytest.raises(ConfigError, match=f"{name} .*: give frames a second such as 100 or 2K"):
            lan["a"].context.set(**{name: value})
    lan.machine.close()
