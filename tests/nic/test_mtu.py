"""The MTU of a context: longer frames are dropped both ways, under a reason of their own."""

from __future__ import annotations

import pytest

from cdna.errors import ConfigError
from tests.support.frames import OUTSIDE, frame, vlan_tag
from tests.support.lan import Lan


@pytest.mark.parametrize("vlan", [0, 5])
def test_a_frame_longer_than_the_mtu_is_dropped_both_ways_and_counted(vlan):
    lan = Lan(small={"mtu": 1400, "vlan": vlan}, large={"vlan": vlan})
    for source, to, counter in (("small", "large", "tx_drop_mtu"), ("large", "small", "rx_drop_mtu")):
        data = frame(lan.addr(to), lan.addr(source), size=1414)
        assert lan.send(data, source) == {to: [data]}
        data = frame(lan.addr(to), lan.addr(source), size=1415)
        assert lan.send(data, source) == {}
        assert lan.stats("small").pop(counter) == 1
    assert lan.stats("large") == {}


def test_tags_do_not_count_for_the_mtu():
    lan = Lan(trunk={"mtu": 1400, "vlan": "trunk"}, five={"vlan": 5})
    for size, passes in ((1418, True), (1419, False)):
        data = frame(lan.addr("five"), lan.addr("trunk"), size=size, tag=vlan_tag(5))
        assert bool(lan.send(data, "trunk")) == passes
    for size, passes in ((1422, True), (1423, False)):
        for outer in (vlan_tag(5), b"\x88\xa8\x00\x05", b"\x91\x00\x00\x05"):
            data = frame(OUTSIDE, lan.addr("trunk"), size=size, tag=outer + vlan_tag(6))
            assert bool(lan.send(data, "trunk")) == passes
    for size, passes in ((1414, True), (1415, False)):
        data = frame(lan.addr("trunk"), lan.addr("five"), size=size)
        assert bool(lan.send(data, "five")) == passes


def test_an_mtu_is_changed_and_taken_away_while_running():
    lan = Lan(a={}, b={"mtu": 1400})
    data = frame(lan.addr("b"), lan.addr("a"), size=9014)
    assert lan.send(data, "a") == {}
    for mtu in (9000, None):
        lan["b"].context.set(mtu=mtu)
        assert lan.send(data, "a") == {"b": [data]}
    for wrong in (67, 9001, "x"):
        with pytest.raises(ConfigError, match=r"(mtu|MTU)"):
            lan["b"].context.set(mtu=wrong)
