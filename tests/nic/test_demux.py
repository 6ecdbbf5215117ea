"""Who gets a frame: by address, VLAN and multicast filter; promiscuous contexts; foreign source addresses."""

from __future__ import annotations

import pytest

from cdna.base.units import parse_mac
from cdna.errors import ConfigError
from tests.support.frames import BROADCAST, OUTSIDE, frame, receive_all, vlan_tag
from tests.support.lan import Lan

GROUP = bytes.fromhex("01005e000001")
OTHER_GROUP = bytes.fromhex("01005e000002")
PROVIDERS = [bytes.fromhex(tpid) for tpid in ("88a8", "9100", "9200", "9300")]  # IEEE 802.1ad, and before it


# --- addresses ----------------------------------------------------------------------------------------------


def test_a_frame_reaches_the_context_with_its_address_and_no_other():
    lan = Lan(a={}, b={}, c={})
    for source in ("a", "b", "c", "wire"):
        for to in {"a", "b", "c"} - {source}:
            data = frame(lan.addr(to), lan.addr(source))
            assert lan.send(data, source) == {to: [data]}


def test_a_guests_frame_to_another_guest_never_reaches_the_wire():
    lan = Lan(a={}, b={})
    lan.send(frame(lan.addr("b"), lan.addr("a")), "a")
    assert lan.machine.nic.counters["wire_tx_frames"] == 0
    assert lan["a"].context.stats()["tx_local"] == 1


def test_a_frame_to_nobody_here_goes_to_the_wire_and_from_there_is_dropped_and_counted():
    lan = Lan(a={}, b={})
    data = frame(OUTSIDE, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}
    assert lan.send(frame(OUTSIDE, OUTSIDE), "wire") == {}
    assert lan.machine.nic.counters["rx_drop_filter"] == 1


def test_a_guest_may_write_to_itself():
    lan = Lan(a={}, b={})
    data = frame(lan.addr("a"), lan.addr("a"), size=1500)
    assert lan.send(data, "a") == {"a": [data]}


def test_an_address_changed_while_running():
    lan = Lan(a={}, b={})
    old = lan.addr("b")
    lan["b"].context.set(mac="02:00:00:00:00:99")
    assert lan["b"].context.mac == "02:00:00:00:00:99"
    data = frame(lan.addr("b"), lan.addr("a"))
    assert lan.send(data, "a") == {"b": [data]}
    data = frame(old, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}


@pytest.mark.parametrize("size", [14, 15, 17, 18])
def test_a_frame_from_the_wire_is_one_from_14_bytes_on(size):
    lan = Lan(a={}, five={"vlan": 5})
    data = frame(lan.addr("a"), OUTSIDE, size=size)
    assert lan.send(data, "wire") == {"a": [data]}
    data = frame(BROADCAST, OUTSIDE, size=size)
    assert lan.send(data, "wire") == {"a": [data]}
    assert lan.machine.nic.counters["rx_drop_filter"] == lan.machine.nic.counters["rx_drop_invalid"] == 0
    assert lan.send(frame(OUTSIDE, OUTSIDE, size=size), "wire") == {}
    assert lan.machine.nic.counters["rx_drop_filter"] == 1


@pytest.mark.parametrize("size", [14, 15, 17])
def test_a_tag_that_is_cut_short_by_the_wire_is_no_frame(size):
    lan = Lan(a={}, five={"vlan": 5}, trunk={"vlan": "trunk"})
    for to in ("a", "five", "trunk"):
        assert lan.send((lan.addr(to) + OUTSIDE + vlan_tag(5))[:size].ljust(size, b"\0"), "wire") == {}
    assert lan.machine.nic.counters["rx_drop_invalid"] == 3
    assert lan.machine.nic.counters["rx_drop_filter"] == 0


def test_without_a_buffer_the_frame_is_dropped_and_counted_once():
    lan = Lan(a={}, b={"rx_ring": 8})
    frames = [frame(lan.addr("b"), lan.addr("a"), i) for i in range(12)]
    assert lan["a"].send(frames) == 12
    lan.machine.step(2)
    assert receive_all(lan["b"]) == frames[:8]
    assert lan.stats("b") == {"rx_drop_no_buffer": 4}
    assert lan.stats("a") == {}
    # From the wire, too: dropped for want of a buffer is not dropped for want of a receiver.
    for to in (lan.addr("b"), BROADCAST):
        before = lan.stats("b")["rx_drop_no_buffer"]
        lan.wire.put([frame(to, OUTSIDE, i) for i in range(9)])
        lan.machine.step(2)
        assert lan.stats("b")["rx_drop_no_buffer"] == before + 1
        assert lan.machine.nic.counters["rx_drop_filter"] == 0
        receive_all(lan["b"])


# --- source addresses ---------------------------------------------------------------------------------------


def test_a_source_address_that_is_not_its_own_is_dropped_and_counted():
    lan = Lan(a={}, b={})
    for to in ("b", "wire"):
        assert lan.send(frame(lan.addr(to), OUTSIDE), "a") == {}
    assert lan.stats("a") == {"tx_drop_spoof": 2}
    lan["a"].context.set(anti_spoof=False)
    data = frame(lan.addr("b"), OUTSIDE)
    assert lan.send(data, "a") == {"b": [data]}
    assert lan.stats("a") == {"tx_drop_spoof": 2}


def test_a_frame_for_the_link_is_dropped_with_the_sources_that_are_checked():
    lan = Lan(a={})
    data = frame(bytes.fromhex("0180c2000001"), lan.addr("a"))
    pause = data[:12] + b"\x88\x08" + data[14:]
    assert lan.send(pause, "a") == {}
    assert lan.stats("a") == {"tx_drop_spoof": 1}
    lan["a"].context.set(anti_spoof=False)
    assert lan.send(pause, "a") == {"wire": [pause]}


# --- VLANs --------------------------------------------------------------------------------------------------


@pytest.fixture
def vlans() -> Lan:
    return Lan(plain={}, five={"vlan": 5}, also={"vlan": 5}, six={"vlan": 6}, trunk={"vlan": "trunk"})


def tagged(lan: Lan, to: str, source: str, vid: int, size: int = 64) -> bytes:
    return frame(lan.addr(to), lan.addr(source), 1, size, vlan_tag(vid))


def untagged(lan: Lan, to: str, source: str, size: int = 60) -> bytes:
    return frame(lan.addr(to), lan.addr(source), 1, size)


@pytest.mark.parametrize("size", [18, 60, 64, 65, 1514, 9014])
def test_the_nic_puts_the_tag_of_an_access_context_on_the_wire(vlans, size):
    data = untagged(vlans, "wire", "five", size)
    assert vlans.send(data, "five") == {"wire": [data[:12] + vlan_tag(5) + data[12:]]}


@pytest.mark.parametrize("size", [18, 60, 64, 65, 1514, 9014])
def test_the_nic_takes_the_tag_off_for_an_access_context_and_tells_the_vlan(vlans, size):
    data = untagged(vlans, "five", "wire", size)
    on_wire = data[:12] + vlan_tag(5) + data[12:]
    vlans.wire.put([on_wire])
    vlans.machine.step()
    [buffers] = vlans["five"].recv_views()
    assert b"".join(buffer.data.tobytes() for buffer in buffers) == data
    assert {buffer.vlan for buffer in buffers} == {5}
    vlans["five"].release([buffers])


def test_priority_bits_do_not_make_another_vlan(vlans):
    data = untagged(vlans, "five", "wire")
    on_wire = data[:12] + b"\x81\x00\xe0\x05" + data[12:]
    assert vlans.send(on_wire, "wire") == {"five": [data]}


def test_access_contexts_of_one_vlan_reach_each_other_untagged(vlans):
    data = untagged(vlans, "also", "five")
    assert vlans.send(data, "five") == {"also": [data]}


@pytest.mark.parametrize(
    ("source", "to", "tag"),
    [("five", "six", vlan_tag(5)), ("five", "plain", vlan_tag(5)), ("plain", "five", b"")],
)
def test_vlans_are_apart(vlans, source, to, tag):
    """The address is nobody's of this NIC in the sender's VLAN, so it is looked for outside, there."""
    data = untagged(vlans, to, source)
    assert vlans.send(data, source) == {"wire": [data[:12] + tag + data[12:]]}
    assert vlans.stats(source) == vlans.stats(to) == {}


def test_one_address_in_two_vlans_is_two_guests():
    same = "02:00:00:00:00:77"
    lan = Lan(
        five={"vlan": 5, "mac": same}, near={"vlan": 5}, seven={"vlan": 7, "mac": same}, also={"vlan": 7}
    )
    for to, near, vid in (("five", "near", 5), ("seven", "also", 7)):
        data = untagged(lan, to, near)
        assert lan.send(data, near) == {to: [data]}
        data = untagged(lan, to, "wire")
        assert lan.send(data[:12] + vlan_tag(vid) + data[12:], "wire") == {to: [data]}
    with pytest.raises(ConfigError, match=f"MAC address {same} is context 0's already"):
        lan["seven"].context.set(vlan=5)
    data = untagged(lan, "seven", "also")
    assert lan.send(data, "also") == {"seven": [data]}  # nothing has changed


@pytest.mark.parametrize("source", ["six", "wire"])
def test_a_guests_address_in_one_vlan_does_not_hide_a_station_of_another(vlans, source):
    """Outside, a station of VLAN 6 has five's address: frames for it pass both ways, and none is five's."""
    data = untagged(vlans, "five", source)
    on_wire = data[:12] + vlan_tag(6) + data[12:]
    if source == "six":
        assert vlans.send(data, "six") == {"wire": [on_wire]}
    else:
        assert vlans.send(on_wire, "wire") == {}
        assert vlans.machine.nic.counters["rx_drop_filter"] == 1
    data = untagged(vlans, "six", "five")
    on_wire = data[:12] + vlan_tag(6) + data[12:]
    assert vlans.send(on_wire, "wire") == {"six": [data]}


def test_a_trunks_address_is_its_own_in_every_vlan(vlans):
    for source, tag in (("five", vlan_tag(5)), ("six", vlan_tag(6)), ("plain", b"")):
        data = untagged(vlans, "trunk", source)
        assert vlans.send(data, source) == {"trunk": [data[:12] + tag + data[12:]]}
    address = vlans["trunk"].context.mac
    with pytest.raises(ConfigError, match="is context 4's already"):
        vlans["six"].context.set(mac=address)
    vlans["trunk"].context.set(vlan=5)
    vlans["six"].context.set(mac=address)
    data = untagged(vlans, "trunk", "five")
    assert vlans.send(data, "five") == {"trunk": [data]}
    with pytest.raises(ConfigError, match=r"is context [23]'s already"):
        vlans["trunk"].context.set(vlan="trunk")


@pytest.mark.parametrize("vid", [0, 5, 6, 4094])
def test_the_wrong_vlan_from_the_wire_is_dropped_and_counted(vlans, vid):
    for name, own in (("plain", 0), ("five", 5), ("six", 6)):
        before = vlans.machine.nic.counters["rx_drop_filter"]
        got = vlans.send(tagged(vlans, name, "wire", vid), "wire")
        assert (name in got) == (vid == own)
        assert vlans.machine.nic.counters["rx_drop_filter"] == before + (vid != own)


def test_a_trunk_sends_and_receives_every_tag_as_it_is(vlans):
    for vid in (0, 1, 5, 4094):
        data = tagged(vlans, "wire", "trunk", vid)
        assert vlans.send(data, "trunk") == {"wire": [data]}
        data = tagged(vlans, "trunk", "wire", vid)
        assert vlans.send(data, "wire") == {"trunk": [data]}
    data = untagged(vlans, "trunk", "wire")
    assert vlans.send(data, "wire") == {"trunk": [data]}


@pytest.mark.parametrize("size", [22, 64, 68, 1518, 9018])
def test_between_a_trunk_and_an_access_context_the_tag_comes_off_and_goes_on(vlans, size):
    data = tagged(vlans, "five", "trunk", 5, size)
    assert vlans.send(data, "trunk") == {"five": [data[:12] + data[16:]]}
    data = untagged(vlans, "trunk", "five", size - 4)
    assert vlans.send(data, "five") == {"trunk": [data[:12] + vlan_tag(5) + data[12:]]}


def test_an_access_context_sends_no_tags_of_its_own(vlans):
    for source, vids in (("five", (5, 6)), ("plain", (5,))):
        for vid in vids:
            assert vlans.send(tagged(vlans, "wire", source, vid), source) == {}
        assert vlans.stats(source) == {"tx_drop_vlan": len(vids)}


@pytest.mark.parametrize("priority", [0, 5, 7])
def test_a_priority_tag_of_an_access_context_says_no_vlan_and_keeps_its_priority(vlans, priority):
    """IEEE 802.1Q, 6.9.1: such a frame is of the port's VLAN."""
    in_five = priority << 13 | 5
    for to, got in (("wire", in_five), ("trunk", in_five), ("also", None)):
        data = untagged(vlans, to, "five")
        sent = data[:12] + b"\x81\x00" + (priority << 13).to_bytes(2, "big") + data[12:]
        tag = b"" if got is None else b"\x81\x00" + got.to_bytes(2, "big")
        assert vlans.send(sent, "five") == {to: [data[:12] + tag + data[12:]]}
    data = untagged(vlans, "wire", "plain")
    sent = data[:12] + b"\x81\x00\xa0\x00" + data[12:]
    assert vlans.send(sent, "plain") == {"wire": [sent]}
    assert vlans.stats("five") == vlans.stats("plain") == {}


def provided(data: bytes, tpid: bytes, vid: int) -> bytes:
    """A frame with a provider's tag in front."""
    return data[:12] + tpid + vid.to_bytes(2, "big") + data[12:]


@pytest.mark.parametrize("tpid", PROVIDERS)
def test_an_access_context_sends_no_tag_of_a_provider(vlans, tpid):
    """Also none of VLAN 0, which a bridge of customers' tags takes for no priority tag, nor behind one."""
    for source in ("plain", "five"):
        for to in ("wire", "also", "trunk"):
            data = untagged(vlans, to, source)
            for vid in (0, 5, 6):
                assert vlans.send(provided(data, tpid, vid), source) == {}
                behind = provided(provided(data, tpid, vid), b"\x81\x00", 0)
                assert vlans.send(behind, source) == {}
        assert vlans.stats(source) == {"tx_drop_vlan": 18}


@pytest.mark.parametrize("tpid", PROVIDERS)
def test_a_providers_vlan_is_none_of_the_same_number(vlans, tpid):
    """A tag of a provider is for trunks and the wire, as it is; no access context gets what is behind it."""
    for vid in (0, 5, 6):
        for to in ("plain", "five", "six"):
            data = provided(untagged(vlans, to, "wire"), tpid, vid)
            before = vlans.machine.nic.counters["rx_drop_filter"]
            assert vlans.send(data, "wire") == {}
            assert vlans.machine.nic.counters["rx_drop_filter"] == before + 1
            data = provided(untagged(vlans, to, "trunk"), tpid, vid)
            assert vlans.send(data, "trunk") == {"wire": [data]}
        data = provided(untagged(vlans, "trunk", "wire"), tpid, vid)
        assert vlans.send(data, "wire") == {"trunk": [data]}
        data = provided(frame(BROADCAST, OUTSIDE), tpid, vid)
        assert vlans.send(data, "wire") == {"trunk": [data]}


@pytest.mark.parametrize("tpid", PROVIDERS)
@pytest.mark.parametrize("size", [14, 17])
def test_a_providers_tag_that_is_cut_short_is_dropped(vlans, tpid, size):
    data = provided(untagged(vlans, "trunk", "wire"), tpid, 5)[:size]
    assert vlans.send(data, "wire") == {}
    assert vlans.machine.nic.counters["rx_drop_invalid"] == 1
    data = provided(untagged(vlans, "wire", "trunk"), tpid, 5)[:size]
    assert vlans.send(data, "trunk") == {}
    assert vlans.stats("trunk") == {"tx_drop_vlan": 1}


def test_a_tag_that_is_cut_short_is_dropped(vlans):
    data = (vlans.addr("five") + vlans.addr("trunk") + vlan_tag(5))[:14]
    for length in range(14, 18):
        assert vlans.send(data.ljust(length, b"\0"), "trunk") == {}
    assert vlans.stats("trunk") == {"tx_drop_vlan": 4}


def test_a_vlan_changed_while_running(vlans):
    vlans["six"].context.set(vlan=5)
    data = untagged(vlans, "six", "five")
    assert vlans.send(data, "five") == {"six": [data]}


def test_a_broadcast_stays_in_its_vlan(vlans):
    data = frame(BROADCAST, vlans.addr("five"))
    with_tag = data[:12] + vlan_tag(5) + data[12:]
    assert vlans.send(data, "five") == {"also": [data], "trunk": [with_tag], "wire": [with_tag]}
    data = frame(BROADCAST, vlans.addr("plain"))
    assert vlans.send(data, "plain") == {"trunk": [data], "wire": [data]}


# --- multicast and promiscuous contexts ---------------------------------------------------------------------


def test_multicast_reaches_those_that_asked_for_it():
    lan = Lan(a={}, b={"multicast": ("01:00:5e:00:00:01",)}, c={"all_multicast": True}, d={})
    data = frame(GROUP, lan.addr("a"))
    assert lan.send(data, "a") == {"b": [data], "c": [data], "wire": [data]}
    data = frame(OTHER_GROUP, OUTSIDE)
    assert lan.send(data, "wire") == {"c": [data]}
    lan["d"].context.set(multicast=["01:00:5e:00:00:02", "01:00:5e:00:00:03"])
    lan["c"].context.set(all_multicast=False)
    assert lan.send(data, "wire") == {"d": [data]}
    lan["d"].context.set(multicast=[])
    assert lan.send(data, "wire") == {}
    assert lan.machine.nic.counters["rx_drop_filter"] == 1


def test_the_sender_of_a_multicast_does_not_hear_itself():
    lan = Lan(a={"all_multicast": True, "promiscuous": True}, b={})
    data = frame(BROADCAST, lan.addr("a"))
    assert lan.send(data, "a") == {"b": [data], "wire": [data]}


def test_sixteen_groups_and_no_more():
    lan = Lan(a={}, b={})
    groups = [f"01:00:5e:00:00:{i:02x}" for i in range(17)]
    lan["b"].context.set(multicast=groups[:16])
    for i in range(17):
        data = frame(parse_mac(groups[i]), lan.addr("a"), i)
        assert ("b" in lan.send(data, "a")) == (i < 16)
    with pytest.raises(ConfigError, match="a context has 16 filters; set all_multicast for more"):
        lan["b"].context.set(multicast=groups)


def test_a_promiscuous_context_sees_everything_once():
    lan = Lan(a={}, b={}, sniffer={"promiscuous": True})
    data = frame(lan.addr("b"), lan.addr("a"))
    assert lan.send(data, "a") == {"b": [data], "sniffer": [data]}
    data = frame(OUTSIDE, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data], "sniffer": [data]}
    data = frame(lan.addr("b"), OUTSIDE)
    assert lan.send(data, "wire") == {"b": [data], "sniffer": [data]}
    data = frame(OUTSIDE, OUTSIDE)
    assert lan.send(data, "wire") == {"sniffer": [data]}
    data = frame(lan.addr("sniffer"), lan.addr("a"))
    assert lan.send(data, "a") == {"sniffer": [data]}
    data = frame(GROUP, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data], "sniffer": [data]}
    assert lan.machine.nic.counters["rx_drop_filter"] == 0
    assert lan.stats("a") == {}


def test_a_promiscuous_context_sees_its_own_vlan_only():
    lan = Lan(
        a={"vlan": 5}, b={"vlan": 5}, sniffer={"promiscuous": True}, five={"promiscuous": True, "vlan": 5}
    )
    data = frame(lan.addr("b"), lan.addr("a"))
    assert lan.send(data, "a") == {"b": [data], "five": [data]}


def test_promiscuous_mode_is_switched_off_again():
    lan = Lan(a={}, b={}, sniffer={})
    data = frame(lan.addr("b"), lan.addr("a"))
    for on in (True, True, False, False, True):
        lan["sniffer"].context.set(promiscuous=on)
        assert lan.send(data, "a") == {"b": [data], **({"sniffer": [data]} if on else {})}
    lan.machine.vmm.revoke(lan["sniffer"].context)
    del lan.guests["sniffer"]
    assert lan.send(data, "a") == {"b": [data]}


def test_a_stopped_promiscuous_context_loses_frames_that_are_counted():
    lan = Lan(a={}, b={"promiscuous": True})
    page = lan.machine.nic.page_view(lan["b"].context.index)
    page[4:8] = 0xFF  # a receive producer beyond the ring
    page[96] |= 2
    lan["b"].enable_interrupts()  # wakes the NIC
    lan.machine.step()
    assert lan["b"].faulted
    assert lan.send(frame(lan.addr("b"), lan.addr("a")), "a") == {}
    assert lan.stats("b") == {"rx_drop_stopped": 1}
