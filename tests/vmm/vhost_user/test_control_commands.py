"""What the commands of a control queue do, and which are refused."""

import socket
import struct

import pytest
from tests.support.nic_parts import hash_frame_rss

from cdna import ContextSettings
from cdna.guest_driver.vhost_frontend import SPLIT
from cdna.nic.offload.flow_hash import HashType
from cdna.protocol.vhost_user import CONFIG_HEAD, Request
from cdna.virtio import Feature
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.control_driver import ELSE, ERR, GROUP, MQ, OK, RSS, ControlDriver, arrives, spread, table
from tests.support.frames import BROADCAST, OUTSIDE, flows, frame, vlan_tag
from tests.support.vhost_host import check_traffic, less, mac, until
from tests.vmm.vhost_user.test_frames import segment


def test_promiscuous_only_where_it_may(host, control):
    guest, attached, driver = control()
    foreign = frame(ELSE, OUTSIDE, 1)
    assert driver.command(NetCtrl.RX_PROMISC, b"\0") == OK
    assert driver.command(NetCtrl.RX_PROMISC, b"\1") == ERR
    assert arrives(host, attached, foreign) == [False]
    assert "not to be promiscuous" in host.lines()[-1]
    guest.context.set(promiscuous=True)
    assert arrives(host, attached, foreign) == [True]
    assert driver.command(NetCtrl.RX_PROMISC, b"\0") == OK
    assert arrives(host, attached, foreign) == [False]
    assert driver.command(NetCtrl.RX_PROMISC, b"\1") == OK
    assert arrives(host, attached, foreign) == [True]
    guest.context.set(promiscuous=False)
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    assert arrives(host, attached, foreign) == [False]


def test_multicast(host, control):
    _, attached, driver = control(settings={"all_multicast": True})
    there = [frame(GROUP, OUTSIDE, 1), frame(GROUP[:5] + b"\2", OUTSIDE, 2), frame(BROADCAST, OUTSIDE, 3)]
    assert arrives(host, attached, *there) == [True, True, True]
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\0") == OK
    assert arrives(host, attached, *there) == [False, False, True]
    assert driver.command(NetCtrl.MAC_TABLE_SET, table(multicast=[GROUP])) == OK
    assert arrives(host, attached, *there) == [True, False, True]
    many = [GROUP[:5] + bytes([i]) for i in range(100, 117)]
    assert driver.command(NetCtrl.MAC_TABLE_SET, table(multicast=many[:16])) == OK
    assert arrives(host, attached, *there) == [False, False, True]
    assert driver.command(NetCtrl.MAC_TABLE_SET, table(multicast=many)) == OK  # more than there are filters
    assert arrives(host, attached, *there) == [True, True, True]
    assert driver.command(NetCtrl.MAC_TABLE_SET, table()) == OK
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    assert arrives(host, attached, *there) == [True, True, True]


def test_unicast_addresses(host, control):
    guest, attached, driver = control()
    own, foreign = frame(mac(guest), OUTSIDE, 1), frame(ELSE, OUTSIDE, 2)
    assert driver.command(NetCtrl.MAC_TABLE_SET, table([mac(guest)], [GROUP])) == OK
    assert driver.command(NetCtrl.MAC_TABLE_SET, table([ELSE])) == ERR
    assert arrives(host, attached, own, foreign, frame(GROUP, OUTSIDE, 3)) == [True, False, True]
    guest.context.set(promiscuous=True)
    assert driver.command(NetCtrl.RX_PROMISC, b"\0") == OK
    assert arrives(host, attached, own, foreign) == [True, False]
    assert driver.command(NetCtrl.MAC_TABLE_SET, table([ELSE])) == OK
    assert arrives(host, attached, own, foreign) == [True, True]


@pytest.mark.parametrize("tables", [([GROUP], []), ([], [GROUP, ELSE])])
def test_an_address_in_the_wrong_table(host, control, tables):
    """Also where the guest may have any address."""
    _, _, driver = control(settings={"anti_spoof": False})
    assert driver.command(NetCtrl.MAC_TABLE_SET, table(*tables)) == ERR
    assert host.lines()[-1].endswith("MAC_TABLE_SET: an address in the wrong table")


def test_a_command_of_a_feature_that_was_not_accepted(host, control):
    _, _, driver = control(less(SPLIT, Feature.VIRTIO_NET_F_CTRL_RX))
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == ERR
    assert host.lines()[-1].endswith("RX_ALLMULTI without VIRTIO_NET_F_CTRL_RX")


def test_an_address_of_its_own_choice(host, control):
    other = host.add("other", 11)
    guest, attached, driver = control(settings={"anti_spoof": False})
    before = mac(guest)
    assert driver.command(NetCtrl.MAC_ADDR_SET, ELSE) == OK
    assert mac(guest) == ELSE
    assert len(host.wire.get()) == 1  # its announcement
    check_traffic(host, guest, attached)
    assert arrives(host, attached, frame(before, OUTSIDE, 1)) == [False]
    for taken in (mac(other), GROUP, bytes(6), b"\2"):
        assert driver.command(NetCtrl.MAC_ADDR_SET, taken) == ERR
    assert mac(guest) == ELSE
    host.detach(guest, attached)
    until(lambda: mac(guest) == before)  # as the operator has it


def test_an_address_that_somebody_has_in_another_vlan(host, control):
    """It is free here, and whether somebody has it there is not to be learned."""
    there = ContextSettings(protection="table", mac="02:00:00:00:00:0b", vlan=6)
    other = host.add("other", 11, settings=there)
    _, attached, driver = control(settings={"anti_spoof": False, "vlan": 5})
    assert driver.command(NetCtrl.MAC_ADDR_SET, mac(other)) == OK
    tagged = frame(mac(other), OUTSIDE, 1, tag=vlan_tag(5))
    host.wire.get()
    host.wire.put([tagged])
    host.step()
    assert attached.recv() == [tagged[:12] + tagged[16:]]


def test_an_address_that_is_not_the_guests_to_choose(host, control):
    guest, _, driver = control()
    own = mac(guest)
    assert driver.command(NetCtrl.MAC_ADDR_SET, own) == OK
    assert driver.command(NetCtrl.MAC_ADDR_SET, ELSE) == ERR
    assert mac(guest) == own


@pytest.mark.parametrize(
    ("vlan", "added"), [(0, [OK, ERR, ERR, ERR]), (5, [OK, ERR, ERR, ERR]), ("trunk", [OK, OK, OK, ERR])]
)
def test_vlans_within_the_contexts(control, vlan, added):
    _, _, driver = control(settings={"vlan": vlan})
    vlans = [struct.pack("<H", number) for number in (0, 5, 4094, 4095)]
    assert [driver.command(NetCtrl.VLAN_ADD, number) for number in vlans] == added
    assert [driver.command(NetCtrl.VLAN_DEL, number) for number in vlans] == [OK, OK, OK, ERR]


def test_what_was_chosen_ends_with_the_frontend(host, control):
    guest, attached, driver = control(settings={"all_multicast": True, "promiscuous": True})
    for command in (NetCtrl.RX_PROMISC, NetCtrl.RX_ALLMULTI):
        assert driver.command(command, b"\0") == OK
    there = [frame(ELSE, OUTSIDE, 1), frame(GROUP, OUTSIDE, 2)]
    assert arrives(host, attached, *there) == [False, False]
    host.detach(guest, attached)
    again = host.attach(guest)
    assert arrives(host, again, *there) == [True, True]


def test_a_driver_that_begins_anew_has_chosen_nothing(host, control, drivers):
    guest, attached, driver = control(settings={"all_multicast": True}, pairs=2)
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\0") == OK
    assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    attached.frontend.stop(driver.queue)
    drivers.append(ControlDriver(host, guest, attached).start())
    assert arrives(host, attached, frame(GROUP, OUTSIDE, 1)) == [True]
    assert spread(host, guest, attached) == [True, False]


# --- queues -----------------------------------------------------------------------------------------------


def test_pairs(host, control):
    guest, attached, driver = control(pairs=4)
    assert spread(host, guest, attached) == [True, False, False, False]  # until it says more
    for pairs in (4, 2, 3, 1):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, struct.pack("<H", pairs)) == OK
        assert spread(host, guest, attached) == [pair < pairs for pair in range(4)]
    for pairs in (0, 9, 0x8000, 0xFFFF):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, struct.pack("<H", pairs)) == ERR
    assert host.lines()[0].endswith("MQ_VQ_PAIRS_SET: 0 pairs, and this device has 8")
    check_traffic(host, guest, attached, range(4))


def rss(queues, types=HashType.VIRTIO_NET_HASH_TYPE_UDPv4, unclassified=0, transmit=4, key=bytes(range(40))):
    head = struct.pack(f"<IHH{len(queues)}H", types, len(queues) - 1, unclassified, *queues)
    return head + struct.pack("<HB", transmit, len(key)) + key


def test_receive_side_scaling(host, control):
    guest, attached, driver = control(pairs=4)
    queues = [3, 0, 2, 1, 1, 2, 3, 3]
    assert driver.command(NetCtrl.MQ_RSS_CONFIG, rss(queues)) == OK
    there = flows(mac(guest), OUTSIDE, 48)
    wanted = [[], [], [], []]
    for datagram in there:
        value, _ = hash_frame_rss(datagram, bytes(range(40)), HashType.VIRTIO_NET_HASH_TYPE_UDPv4)
        wanted[queues[value % 8]].append(datagram)
    host.wire.put(there)
    host.step()
    assert [attached.recv(pair) for pair in range(4)] == wanted
    assert driver.command(NetCtrl.MQ_RSS_CONFIG, rss(queues, types=0, unclassified=2, key=b"")) == OK
    assert spread(host, guest, attached) == [False, False, True, False]
    assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    assert spread(host, guest, attached) == [True, True, False, False]


BAD_RSS = {
    "nothing": (b"", "0 bytes"),
    "cut short": (rss([0, 1])[:-1], "39 bytes, and 40 belong to it"),
    "too long": (rss([0, 1]) + b"\0", "41 bytes, and 40 belong to it"),
    "no power of two": (rss([0, 1, 2]), "a table of 3 entries"),
    "a long table": (rss([0] * 256), "a table of 256 entries"),
    "a table that is not there": (struct.pack("<IHH", 4, 127, 0), "8 bytes"),
    "a queue that is none": (rss([0, 8]), "queues beyond the 8 that there are"),
    "no queue for the rest": (rss([0, 1], unclassified=8), "queues beyond the 8 that there are"),
    "no queue to send by": (rss([0, 1], transmit=0), "queues beyond the 8 that there are"),
    "more queues to send by": (rss([0, 1], transmit=9), "queues beyond the 8 that there are"),
    "unknown types": (rss([0, 1], types=1 << 9), "hash types 0x200"),
    "a long key": (rss([0, 1], key=bytes(41)), "a key of 41 bytes"),
    "no key": (rss([0, 1], key=b""), "a key of 0 bytes"),
}


@pytest.mark.parametrize("case", BAD_RSS)
def test_rss_that_cannot_be(host, control, case):
    guest, attached, driver = control(pairs=2)
    data, said = BAD_RSS[case]
    assert driver.command(NetCtrl.MQ_RSS_CONFIG, data) == ERR
    assert f"MQ_RSS_CONFIG: {said}" in host.lines()[-1]
    assert spread(host, guest, attached) == [True, False]


def test_what_rss_can_do_is_in_the_configuration_space(host, control):
    _, attached, _ = control()
    payload = attached.frontend.call(Request.GET_CONFIG, CONFIG_HEAD.pack(17, 7, 0) + bytes(7))
    assert struct.unpack("<BHI", payload[CONFIG_HEAD.size :]) == (40, 128, 0x1FF)


# --- offloads ---------------------------------------------------------------------------------------------

NEEDS_CSUM, GSO_TCPV4 = 1, 1
GUEST_CSUM, GUEST_TSO4 = 1 << Feature.VIRTIO_NET_F_GUEST_CSUM, 1 << Feature.VIRTIO_NET_F_GUEST_TSO4


def test_offloads_are_turned_off_and_on(host, control):
    guest, attached, driver = control()
    source = host.add("source", 11)
    sender = host.attach(source)

    def received():
        partial, _ = segment(source, 3000)
        header = struct.pack("<BBHHHH", NEEDS_CSUM, GSO_TCPV4, 54, 1448, 34, 16)
        sender.send([mac(guest) + partial[6:]], header=header)
        host.step()
        frames = attached.recv()
        return len(frames), {there[0] for there in attached.driver.headers}

    def set_offloads(offloads):
        return driver.command(NetCtrl.GUEST_OFFLOADS_SET, struct.pack("<Q", offloads))

    assert received() == (1, {NEEDS_CSUM})
    assert set_offloads(GUEST_CSUM) == OK
    assert received()[0] == 3
    assert set_offloads(0) == OK
    assert received() == (3, {0})
    attached.frontend.put(Request.SET_FEATURES, attached.frontend.features)  # as when migration begins
    attached.frontend.sync()
    assert received() == (3, {0})
    assert set_offloads(GUEST_CSUM | GUEST_TSO4) == OK
    assert received() == (1, {NEEDS_CSUM})
    assert set_offloads(1 << Feature.VIRTIO_NET_F_HOST_TSO4) == ERR
    assert set_offloads(1 << 63) == ERR
    assert driver.command(NetCtrl.GUEST_OFFLOADS_SET, b"\0") == ERR
    assert received() == (1, {NEEDS_CSUM})


def test_offloads_that_were_not_accepted(control):
    _, _, driver = control(less(SPLIT, Feature.VIRTIO_NET_F_GUEST_TSO4))
    assert driver.command(NetCtrl.GUEST_OFFLOADS_SET, struct.pack("<Q", GUEST_CSUM | GUEST_TSO4)) == ERR
    assert driver.command(NetCtrl.GUEST_OFFLOADS_SET, struct.pack("<Q", GUEST_CSUM)) == OK


# --- announcements ----------------------------------------------------------------------------------------


def test_a_guest_that_goes_on_is_asked_to_announce_itself(host, control):
    _, attached, driver = control()
    frontend = attached.frontend
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()]) == 0

        def status():
            payload = frontend.call(Request.GET_CONFIG, CONFIG_HEAD.pack(6, 2, 0) + bytes(2))
            return struct.unpack("<H", payload[CONFIG_HEAD.size :])[0]

        assert driver.command(NetCtrl.ANNOUNCE_ACK) == OK
        assert status() == 1
        base = frontend.stop(driver.queue)
        driver.start(base=base)
        ours.settimeout(10)
        assert ours.recv(100)
        assert status() == 3
        assert driver.command(NetCtrl.ANNOUNCE_ACK, b"\0") == ERR
        assert driver.command(NetCtrl.ANNOUNCE_ACK) == OK
        assert status() == 1


def test_a_frontend_that_does_not_listen_announces_by_itself(control):
    guest, attached, driver = control()
    assert driver.command(NetCtrl.ANNOUNCE_ACK) == OK
    driver.start(base=attached.frontend.stop(driver.queue))
    assert guest.config_space()[6:8] == b"\1\0"


def test_a_guest_whose_cable_is_plugged_in_again_is_announced(host, control):
    guest, attached, driver = control()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert attached.frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()]) == 0
        guest.set_link(False)
        assert guest.config_space()[6:8] == b"\0\0"
        host.wire.get()
        guest.set_link(True)
        assert guest.config_space()[6:8] == b"\3\0"  # the link is up, and the guest is to say where it is
        assert driver.command(NetCtrl.ANNOUNCE_ACK) == OK
    (rarp,) = host.wire.get()
    assert (rarp[:12], rarp[12:14]) == (BROADCAST + mac(guest), b"\x80\x35")


def test_another_address_is_announced(host, control):
    _, _, driver = control(settings={"anti_spoof": False})
    host.wire.get()
    assert driver.command(NetCtrl.MAC_ADDR_SET, ELSE) == OK
    assert driver.command(NetCtrl.MAC_ADDR_SET, ELSE) == OK  # no other one
    (rarp,) = host.wire.get()
    assert (rarp[:12], rarp[12:14]) == (BROADCAST + ELSE, b"\x80\x35")


# --- commands that are refused ----------------------------------------------------------------------------

BAD = {
    "unknown class": ((6, 0), b""),
    "vendor's class": ((255, 255), bytes(1000)),
    "unknown command": ((0, 6), b"\0"),
    "another unknown command": ((5, 1), bytes(8)),
    "alluni": (NetCtrl.RX_ALLUNI, b"\0"),
    "nomulti": (NetCtrl.RX_NOMULTI, b"\0"),
    "nouni": (NetCtrl.RX_NOUNI, b"\1"),
    "nobcast": (NetCtrl.RX_NOBCAST, b"\1"),
    "hash reports": (NetCtrl.MQ_HASH_CONFIG, bytes(53)),
    "no switch": (NetCtrl.RX_PROMISC, b""),
    "two switches": (NetCtrl.RX_ALLMULTI, b"\0\0"),
    "half a switch": (NetCtrl.RX_ALLMULTI, b"\x80"),
    "no table": (NetCtrl.MAC_TABLE_SET, b""),
    "one table": (NetCtrl.MAC_TABLE_SET, bytes(4)),
    "a table of too many": (NetCtrl.MAC_TABLE_SET, struct.pack("<II", 0xFFFFFFFF, 0)),
    "a table of one too many": (NetCtrl.MAC_TABLE_SET, struct.pack("<II", 0, 2) + GROUP),
    "more than the tables": (NetCtrl.MAC_TABLE_SET, table() + b"\0"),
    "groups among addresses": (NetCtrl.MAC_TABLE_SET, table([GROUP])),
    "addresses among groups": (NetCtrl.MAC_TABLE_SET, table([], [ELSE])),
    "half an address": (NetCtrl.MAC_ADDR_SET, b"\2\0\0"),
    "half a VLAN": (NetCtrl.VLAN_ADD, b"\0"),
    "no VLAN": (NetCtrl.VLAN_DEL, b"\xff\xff"),
    "half a number of pairs": (NetCtrl.MQ_VQ_PAIRS_SET, b"\1"),
    "a command too long": (NetCtrl.MAC_TABLE_SET, bytes(16384)),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(host, control, case):
    command, data = BAD[case]
    guest, attached, driver = control()
    assert driver.command(command, data) == ERR
    assert len([line for line in host.lines() if "control queue" in line]) == 1
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    assert guest.connected
    check_traffic(host, guest, attached)


NEEDS = {
    Feature.VIRTIO_NET_F_CTRL_RX: (NetCtrl.RX_ALLMULTI, b"\1"),
    Feature.VIRTIO_NET_F_CTRL_MAC_ADDR: (NetCtrl.MAC_ADDR_SET, bytes.fromhex("02000000000a")),
    Feature.VIRTIO_NET_F_CTRL_VLAN: (NetCtrl.VLAN_DEL, b"\1\0"),
    Feature.VIRTIO_NET_F_GUEST_ANNOUNCE: (NetCtrl.ANNOUNCE_ACK, b""),
    MQ: (NetCtrl.MQ_VQ_PAIRS_SET, b"\1\0"),
    RSS: (NetCtrl.MQ_RSS_CONFIG, rss([0])),
    Feature.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: (NetCtrl.GUEST_OFFLOADS_SET, bytes(8)),
}


@pytest.mark.parametrize("feature", NEEDS, ids=lambda feature: feature.name)
def test_a_command_of_a_feature_that_was_not_negotiated(host, control, feature):
    command, data = NEEDS[feature]
    _, _, driver = control(name="with")
    assert driver.command(command, data) == OK
    _, _, driver = control(less(SPLIT, feature), name="without", number=11, settings={"anti_spoof": False})
    assert driver.command(command, data) == ERR
    assert feature.name in host.lines()[-1]


def test_refusals_do_not_fill_the_log(host, control, monkeypatch):
    """One line in the interval, which lasts as long as the test."""
    monkeypatch.setattr("cdna.logs.LINES", 1)
    monkeypatch.setattr("cdna.logs.INTERVAL", 1e6)
    _, _, driver = control()
    for _ in range(100):
        assert driver.command((9, 9)) == ERR
    assert host.lines() == ["guest 'guest': control queue: class 9, command 9: not known"]
