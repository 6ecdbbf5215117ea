"""The control queue of a frontend that leaves it to us: every command, both ring formats, hostile chains."""

import itertools
import os
import socket
import struct

import numpy as np
import pytest

from cdna import ContextSettings
from cdna.abi import ContextState, Fault, Ring
from cdna.nic.flow_hash import HashType, hash_frame_rss
from cdna.virtio import Feature
from cdna.vmm.vhost_user import OFFERED
from cdna.vmm.vhost_user.messages import CONFIG_HEAD, INFLIGHT, Request
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.frames import BROADCAST, OUTSIDE, frame
from tests.support.vhost_frontend import ALL_PACKED, LEGACY, SPLIT
from tests.support.vhost_host import check_traffic, mac, until
from tests.support.vrings import Buffer, PackedRing, SplitRing
from tests.vmm.vhost_user.test_frames import flows, less, segment

OK, ERR, UNANSWERED = 0, 1, 0xAA
MQ, RSS = Feature.VIRTIO_NET_F_MQ, Feature.VIRTIO_NET_F_RSS
EVENT_IDX, INDIRECT = Feature.VIRTIO_F_EVENT_IDX, Feature.VIRTIO_F_INDIRECT_DESC
GROUP = bytes.fromhex("01005e000001")
ELSE = bytes.fromhex("020000000077")

FORMATS = {
    "split": SPLIT,
    "split, flags": less(SPLIT, EVENT_IDX),
    "packed": ALL_PACKED,
    "packed, flags": less(ALL_PACKED, EVENT_IDX),
}
CUTS = {
    "one piece": lambda data: [data],
    "as Linux": lambda data: [data[:2], data[2:]],
    "bytes": lambda data: [bytes([byte]) for byte in data],
}


class Driver:
    """The control queue's driver side, behind a guest that is attached."""

    def __init__(self, host, guest, attached, size=64, ring=None):
        self.host, self.attached = host, attached
        self.frontend, self.memory = attached.frontend, attached.memory
        accepted = self.frontend.features
        kind = PackedRing if accepted >> Feature.VIRTIO_F_RING_PACKED & 1 else SplitRing
        self.ring = ring or kind(self.memory, size, bool(accepted >> EVENT_IDX & 1))
        many = accepted >> MQ & 1 or accepted >> RSS & 1
        self.queue = guest.device.queues if many else 2
        self._room = self.memory.alloc(32768)
        self._ack = self.memory.alloc(8)
        self.memory.write(self._ack, bytes([UNANSWERED]))

    def start(self, **options):
        self.frontend.start(self.queue, self.ring, **options)
        self.frontend.sync()
        return self

    def post(self, pieces, indirect=False):
        """A command in these pieces, one behind the other in memory with a gap between."""
        chain, at = [], self._room
        for piece in pieces:
            self.memory.write(at, piece)
            chain.append(Buffer(at, len(piece)))
            at += len(piece) + 3
        self.memory.write(self._ack, bytes([UNANSWERED]) * 8)
        self.ring.add([*chain, Buffer(self._ack, 1, True)], indirect)

    def answer(self):
        """Waits for the answer to the last command."""
        used = []
        until(lambda: used.extend(self.ring.take()) or used)
        (entry,) = used
        assert entry.len == 1
        ack, *rest = self.memory.read(self._ack, 8)
        assert rest == [UNANSWERED] * 7
        return ack

    def command(self, command, data=b"", cut=CUTS["as Linux"], indirect=False):
        number = bytes(command.value if isinstance(command, NetCtrl) else command)
        self.post([piece for piece in cut(number + data) if piece], indirect)
        self.ring.kick()
        return self.answer()

    def close(self):
        self.ring.close()


@pytest.fixture
def drivers():
    made = []
    yield made
    for driver in made:
        driver.close()


@pytest.fixture
def control(host, drivers):
    """Makes a guest with its control queue at the backend: (guest, attached, driver)."""

    def make(wanted=SPLIT, *, pairs=1, settings=None, name="guest", number=10, **options):
        address = f"02:00:00:00:00:{number:02x}"
        settings = ContextSettings(protection="table", **{"mac": address, **(settings or {})})
        guest = host.add(name, number, settings=settings, **options)
        attached = host.attach(guest, wanted, pairs=pairs)
        drivers.append(Driver(host, guest, attached).start())
        return guest, attached, drivers[-1]

    return make


def arrives(host, attached, *frames):
    """Which of these frames from the wire a guest receives."""
    host.wire.put(list(frames))
    host.step()
    received = attached.recv()
    return [there in received for there in frames]


def table(unicast=(), multicast=()):
    return b"".join(struct.pack("<I", len(part)) + b"".join(part) for part in (unicast, multicast))


# --- the queue --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indirect", [False, True], ids=["chain", "indirect"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("wanted", FORMATS)
def test_commands_in_every_format(host, control, wanted, cut, indirect):
    guest, attached, driver = control(FORMATS[wanted])
    for _ in range(50):  # the ring wraps around
        assert driver.command(NetCtrl.RX_ALLMULTI, b"\1", CUTS[cut], indirect) == OK
        assert driver.command(NetCtrl.RX_ALLMULTI, b"\2", CUTS[cut], indirect) == ERR
    assert driver.ring.called()
    assert guest.describe()["control"] == {"commands": 100, "refused": 50}
    check_traffic(host, guest, attached)


@pytest.mark.parametrize("wanted", [LEGACY, SPLIT], ids=["legacy", "modern"])
@pytest.mark.parametrize("features", [(MQ, RSS), (MQ,), (RSS,), ()], ids=["one pair", "rss", "mq", "both"])
def test_where_the_queue_is(control, wanted, features):
    """2 where the driver knows of one pair, else behind the pairs that there are (5.1.2)."""
    guest, _, driver = control(less(wanted, *features))
    assert driver.queue == (2 if len(features) == 2 else 16)
    assert driver.command(NetCtrl.RX_PROMISC, b"\0") == OK
    assert guest.describe()["control"]["commands"] == 1


def test_a_guest_of_one_pair(host, drivers):
    guest = host.add(pairs=1)
    assert not guest.features & (1 << MQ | 1 << RSS)
    attached = host.attach(guest)
    drivers.append(Driver(host, guest, attached).start())
    assert drivers[0].queue == 2
    assert drivers[0].command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    check_traffic(host, guest, attached)


def test_a_queue_that_was_not_offered(host, drivers):
    guest = host.add(features=less(OFFERED, Feature.VIRTIO_NET_F_CTRL_VQ))
    attached = host.attach(guest)
    attached.frontend.state(Request.SET_VRING_NUM, 16, 64)
    assert attached.frontend.ended()
    assert "queue 16" in host.lines()[-1]


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_queue_that_is_disabled_waits(control, wanted):
    _, attached, driver = control(FORMATS[wanted])
    attached.frontend.state(Request.SET_VRING_ENABLE, driver.queue, 0)
    attached.frontend.sync()
    driver.post([b"\0\1\1"])
    driver.ring.kick(always=True)
    attached.frontend.sync()
    assert driver.ring.take() == []
    attached.frontend.state(Request.SET_VRING_ENABLE, driver.queue, 1)
    assert driver.answer() == OK


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_queue_without_a_kick_is_looked_at(host, drivers, wanted):
    guest = host.add()
    attached = host.attach(guest, FORMATS[wanted])
    driver = Driver(host, guest, attached)
    drivers.append(driver)
    frontend = attached.frontend
    frontend.state(Request.SET_VRING_NUM, driver.queue, driver.ring.size)
    frontend.state(Request.SET_VRING_BASE, driver.queue, driver.ring.base)
    frontend.addresses(driver.queue, driver.ring)
    frontend.file(Request.SET_VRING_KICK, driver.queue, None)
    frontend.state(Request.SET_VRING_ENABLE, driver.queue, 1)
    for _ in range(3):
        driver.post([b"\0\1\1"])
        assert driver.answer() == OK


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_driver_that_wants_no_interrupt_gets_none(control, wanted):
    _, _, driver = control(FORMATS[f"{wanted}, flags"])
    driver.ring.called()
    if wanted == "split":
        driver.ring.avail[0] = 1
    else:
        driver.ring.driver_event["flags"][0] = 1
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    assert driver.ring.called() == 0


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_queue_stops_and_goes_on(host, control, wanted):
    """As when a machine is paused; what was chosen holds."""
    guest, attached, driver = control(FORMATS[wanted], pairs=2)
    for _ in range(70):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    base = attached.frontend.stop(driver.queue)
    assert base == (driver.ring.base if wanted == "packed" else 70)
    driver.post([b"\0\1\1"])
    driver.start(base=base)
    assert driver.answer() == OK
    assert spread(host, guest, attached) == [True, True]


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_frontend_that_comes_back(host, control, drivers, wanted):
    """It does not know where the ring stands; the guest begins with one pair of queues again."""
    guest, attached, driver = control(FORMATS[wanted], pairs=2)
    for _ in range(5):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    attached.frontend.sock.close()
    until(lambda: not guest.connected)
    attached.reconnect(guest.path)
    again = Driver(host, guest, attached, ring=driver.ring)
    again.start(base=0)
    assert spread(host, guest, attached) == [True, False]
    assert again.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    assert spread(host, guest, attached) == [True, True]


def test_an_inflight_area_with_room_for_the_queue(control):
    _, attached, driver = control(pairs=1)
    frontend = attached.frontend
    area, fd = frontend.get_inflight(17, 64)
    assert area.queues == 17
    frontend.send(Request.SET_INFLIGHT_FD, INFLIGHT.pack(*area), [fd])
    os.close(fd)
    frontend.sync()
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK


def test_a_guest_that_floods_its_queue(host, control):
    """Its commands come to an end, and the others' are carried out meanwhile."""
    _, _, busy = control(name="busy")
    _, _, calm = control(name="calm", number=11)
    for _ in range(20):
        for _ in range(20):
            busy.post([b"\0\1", b"\1"])
        busy.ring.kick()
        assert calm.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
        used = []
        until(lambda: used.extend(busy.ring.take()) or len(used) == 20)  # noqa: B023


# --- what is received -------------------------------------------------------------------------------------


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


def test_an_address_of_its_own_choice(host, control):
    other = host.add("other", 11)
    guest, attached, driver = control(settings={"anti_spoof": False})
    before = mac(guest)
    assert driver.command(NetCtrl.MAC_ADDR_SET, ELSE) == OK
    assert mac(guest) == ELSE
    check_traffic(host, guest, attached)
    assert arrives(host, attached, frame(before, OUTSIDE, 1)) == [False]
    for taken in (mac(other), GROUP, bytes(6), b"\2"):
        assert driver.command(NetCtrl.MAC_ADDR_SET, taken) == ERR
    assert mac(guest) == ELSE
    host.detach(guest, attached)
    until(lambda: mac(guest) == before)  # as the operator has it


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
    drivers.append(Driver(host, guest, attached).start())
    assert arrives(host, attached, frame(GROUP, OUTSIDE, 1)) == [True]
    assert spread(host, guest, attached) == [True, False]


# --- queues -----------------------------------------------------------------------------------------------


def spread(host, guest, attached):
    """Which receive queues get some of many flows."""
    there = flows(mac(guest), OUTSIDE, 32)
    host.wire.put(there)
    host.step()
    found = [attached.recv(pair) for pair in range(len(attached.rx))]
    assert sorted(itertools.chain(*found)) == sorted(there)
    return [bool(frames) for frames in found]


def test_pairs(host, control):
    guest, attached, driver = control(pairs=4)
    assert spread(host, guest, attached) == [True, False, False, False]  # until it says more
    for pairs in (4, 2, 3, 1):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, struct.pack("<H", pairs)) == OK
        assert spread(host, guest, attached) == [pair < pairs for pair in range(4)]
    for pairs in (0, 9, 0x8000, 0xFFFF):
        assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, struct.pack("<H", pairs)) == ERR
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
    "nothing": b"",
    "cut short": rss([0, 1])[:-1],
    "too long": rss([0, 1]) + b"\0",
    "no power of two": rss([0, 1, 2]),
    "a long table": rss([0] * 256),
    "a table that is not there": struct.pack("<IHH", 4, 127, 0),
    "a queue that is none": rss([0, 8]),
    "no queue for the rest": rss([0, 1], unclassified=8),
    "no queue to send by": rss([0, 1], transmit=0),
    "more queues to send by": rss([0, 1], transmit=9),
    "unknown types": rss([0, 1], types=1 << 9),
    "a long key": rss([0, 1], key=bytes(41)),
    "no key": rss([0, 1], key=b""),
}


@pytest.mark.parametrize("case", BAD_RSS)
def test_rss_that_cannot_be(host, control, case):
    guest, attached, driver = control(pairs=2)
    assert driver.command(NetCtrl.MQ_RSS_CONFIG, BAD_RSS[case]) == ERR
    assert "MQ_RSS_CONFIG" in host.lines()[-1]
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


def test_refusals_do_not_fill_the_log(host, control):
    _, _, driver = control()
    for _ in range(100):
        assert driver.command((9, 9)) == ERR
    assert len(host.lines()) < 50


# --- hostile chains ---------------------------------------------------------------------------------------

NEXT, TABLE = 1, 4


def faults(host, guest, driver, *reasons):
    """The context stops for this, and the frontend's error descriptor says so."""
    driver.ring.kick(always=True)
    until(lambda: guest.context.state == ContextState.CONTEXT_FAULTED)
    host.machine.vmm.collect_faults()
    report = host.machine.vmm.faults[-1]
    assert report.reason in reasons
    assert report.ring == Ring.RING_CONTROL
    until(driver.ring.failed)
    host.step()
    assert driver.memory.read(driver._ack, 1)[0] != OK


@pytest.fixture(params=["split", "packed"])
def hostile(request, control):
    guest, attached, driver = control(FORMATS[request.param])
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    driver.memory.write(driver._room, b"\0\1\1")
    driver.memory.write(driver._ack, bytes([UNANSWERED]))
    return guest, attached, driver


def good(driver):
    return [Buffer(driver._room, 3), Buffer(driver._ack, 1, True)]


CHAINS = {
    "nothing to write to": (lambda d: [Buffer(d._room, 3)], Fault.FAULT_DIRECTION),
    "nothing to read": (lambda d: [Buffer(d._ack, 1, True)], Fault.FAULT_HEADER),
    "half a head": (lambda d: [Buffer(d._room, 1), Buffer(d._ack, 1, True)], Fault.FAULT_HEADER),
    "no bytes to write to": (lambda d: [Buffer(d._room, 3), Buffer(d._ack, 0, True)], Fault.FAULT_DIRECTION),
    "written before read": (lambda d: [*good(d), Buffer(d._room, 3)], Fault.FAULT_DIRECTION),
    "command outside": (lambda d: [Buffer(1 << 60, 3), good(d)[1]], Fault.FAULT_MEMORY),
    "command reaches out": (lambda d: [Buffer(d._room, 1 << 30), good(d)[1]], Fault.FAULT_MEMORY),
    "command wraps": (lambda d: [Buffer((1 << 64) - 2, 3), good(d)[1]], Fault.FAULT_MEMORY),
    "answer outside": (lambda d: [good(d)[0], Buffer(0, 1, True)], Fault.FAULT_MEMORY),
    "four billion bytes": (lambda d: [Buffer(d._room, 0xFFFFFFFF), good(d)[1]], Fault.FAULT_MEMORY),
}


@pytest.mark.parametrize("indirect", [False, True], ids=["chain", "indirect"])
@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_that_breaks_a_rule(host, hostile, case, indirect):
    guest, attached, driver = hostile
    make, reason = CHAINS[case]
    driver.ring.add(make(driver), indirect)
    faults(host, guest, driver, reason)
    host.detach(guest, attached)
    until(lambda: guest.context.state == ContextState.CONTEXT_RUNNING)
    check_traffic(host, guest, host.attach(guest))


def test_a_chain_too_long(host, hostile):
    guest, _, driver = hostile
    piece = Buffer(driver._room, 1)
    ring = driver.ring
    at = driver.memory.alloc(16 * 400, 16)
    if isinstance(ring, SplitRing):
        for i in range(400):
            driver.memory.write(at + 16 * i, struct.pack("<QIHH", piece.addr, 1, NEXT, i + 1))
    else:
        for i in range(400):
            driver.memory.write(at + 16 * i, struct.pack("<QIHH", piece.addr, 1, 0, 0))
    ring._indirect.clear()
    head = ring.add([Buffer(at, 16 * 400)])
    make_indirect(ring, head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def make_indirect(ring, id):
    """Has the one descriptor of a buffer name a table."""
    if isinstance(ring, SplitRing):
        ring.table["flags"][id] = TABLE
    else:
        at = (ring.next_avail or ring.size) - 1
        ring.table["flags"][at] |= TABLE


@pytest.mark.parametrize("size", [0, 15, 17, 1 << 31])
def test_a_table_that_is_none(host, hostile, size):
    guest, _, driver = hostile
    make_indirect(driver.ring, driver.ring.add([Buffer(driver._room, size)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_table_outside_memory(host, hostile):
    guest, _, driver = hostile
    make_indirect(driver.ring, driver.ring.add([Buffer(1 << 60, 32)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_table_in_a_table(host, control):
    guest, _, driver = control()
    at = driver.memory.alloc(32, 16)
    driver.memory.write(at, struct.pack("<QIHH", at, 16, TABLE, 0))
    make_indirect(driver.ring, driver.ring.add([Buffer(at, 16)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_table_that_was_not_negotiated(host, control, wanted):
    guest, _, driver = control(less(FORMATS[wanted], INDIRECT))
    driver.ring.add(good(driver), True)
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_chain_that_loops(host, control):
    guest, _, driver = control()
    head = driver.ring.add(good(driver)[:1])
    driver.ring.table[head] = (driver._room, 3, NEXT, head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def test_a_packed_chain_without_end(host, control):
    guest, _, driver = control(ALL_PACKED)
    driver.ring.table["flags"][1:] = NEXT
    driver.ring.table["addr"] = driver._room
    driver.ring.table["len"] = 1
    driver.ring.add(good(driver)[:1])
    driver.ring.table["flags"][0] |= NEXT
    faults(host, guest, driver, Fault.FAULT_CHAIN)


@pytest.mark.parametrize("head", [64, 65535])
def test_a_head_outside_the_ring(host, control, head):
    guest, _, driver = control()
    driver.ring.expose(head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def test_more_available_than_the_ring_has(host, control):
    guest, _, driver = control()
    driver.ring.avail[1] = 65
    faults(host, guest, driver, Fault.FAULT_AVAIL)


def test_memory_that_shrinks(host, control):
    guest, _, driver = control()
    driver.post([b"\0\1", b"\1"])
    os.ftruncate(driver.memory.fd, 0)
    driver.ring.kick(always=True)
    until(lambda: guest.context.state == ContextState.CONTEXT_FAULTED)
    host.machine.vmm.collect_faults()
    assert host.machine.vmm.faults[-1].reason == Fault.FAULT_MEMORY_GONE
    os.ftruncate(driver.memory.fd, driver.memory.size)


def test_neighbours_notice_nothing(host, control):
    _, _, bad = control(name="bad")
    good_one, attached, driver = control(name="good", number=11)
    bad.ring.expose(1000)
    faults(host, host.server.guests[0], bad, Fault.FAULT_CHAIN)
    check_traffic(host, good_one, attached)
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK


def test_a_ring_that_leaves_memory_waits(host, control):
    _, attached, driver = control()
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    frontend = attached.frontend
    elsewhere = host.memory(guest_addr=1 << 40)
    elsewhere.regions[0] = elsewhere.regions[0]._replace(user_addr=1 << 40)
    frontend.send(Request.SET_MEM_TABLE, frontend.table(elsewhere.regions), [elsewhere.fd])
    frontend.sync()
    driver.post([b"\0\1", b"\1"])
    driver.ring.kick(always=True)
    frontend.sync()
    assert driver.ring.take() == []
    frontend.give_memory()
    assert driver.answer() == OK


def test_the_log_has_what_was_answered(host, control):
    log_all = 1 << Feature.VHOST_F_LOG_ALL
    for number, wanted in ((10, SPLIT), (11, ALL_PACKED)):
        _, attached, driver = control(wanted, name=f"guest{number}", number=number)
        size = ((1 << 32) + (8 << 20)) // 4096 // 8
        log = host.memory(size=-(-size // 4096) * 4096)
        frontend = attached.frontend
        frontend.set_log(log.fd, size)
        frontend.put(Request.SET_FEATURES, frontend.features | log_all)
        frontend.addresses(driver.queue, driver.ring, log=driver.ring.device)
        frontend.sync()
        assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
        dirty = {int(page) << 12 for page in np.flatnonzero(np.unpackbits(log.bytes, bitorder="little"))}
        written = driver.ring.device if wanted == SPLIT else driver.ring.desc
        assert {driver._ack & ~4095, written & ~4095} <= dirty
