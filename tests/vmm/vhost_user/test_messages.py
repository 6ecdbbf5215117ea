"""Each message of the protocol, as the specification has it."""

import contextlib
import os
import socket
import struct

import pytest

from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import SplitRing
from cdna.protocol.vhost_user import (
    CONFIG_HEAD,
    HEADER,
    INFLIGHT,
    LOG,
    SINGLE_REGION,
    U64,
    VERSION,
    VRING_STATE,
    BackendRequest,
    ProtocolFeature,
    Request,
)
from cdna.virtio import Feature
from cdna.vmm.vhost_user import OFFERED, OFFERED_PROTOCOL, SUPPORTED
from tests.support.inflight import get_inflight, set_inflight
from tests.support.vhost_host import check_traffic, incoming, mac, outgoing, refused, until

ACK = 1 << ProtocolFeature.REPLY_ACK


def test_features_are_offered_and_taken(guest, frontend):
    assert frontend.get(Request.GET_FEATURES) == SUPPORTED
    assert SUPPORTED >> Feature.VIRTIO_F_VERSION_1 & 1
    frontend.put(Request.SET_FEATURES, SPLIT)
    frontend.put(Request.SET_FEATURES, SPLIT)
    frontend.sync()
    assert guest.device.features == SPLIT
    assert "VIRTIO_NET_F_MRG_RXBUF" in guest.describe()["features"]


def test_receive_side_scaling_is_offered_on_request(host):
    plain = host.connect(host.add("plain", 11, features=OFFERED))
    assert plain.get(Request.GET_FEATURES) == SUPPORTED & ~(1 << Feature.VIRTIO_NET_F_RSS)


def test_one_pair_offers_no_number_of_queues(host):
    """QEMU and DPDK compare the number with pairs, User-Mode Linux with queues."""
    single = host.connect(host.add("single", 11, pairs=1))
    single.negotiate()
    assert single.protocol == OFFERED_PROTOCOL & ~(1 << ProtocolFeature.MQ)
    several = host.connect(host.add("several", 12, pairs=3))
    several.negotiate()
    assert several.get(Request.GET_QUEUE_NUM) == 3


def test_protocol_features_are_offered_and_taken(guest, frontend):
    assert frontend.get(Request.GET_PROTOCOL_FEATURES) == OFFERED_PROTOCOL
    frontend.put(Request.SET_PROTOCOL_FEATURES, ACK)
    assert frontend.acknowledged(Request.SET_OWNER) == 0
    assert guest.describe()["protocol_features"] == ["REPLY_ACK"]


def test_less_may_be_offered(host):
    lean = host.add("lean", 11, features=SPLIT & ~(1 << Feature.VIRTIO_NET_F_CSUM), protocol=ACK)
    frontend = host.connect(lean)
    assert not frontend.get(Request.GET_FEATURES) >> Feature.VIRTIO_NET_F_CSUM & 1
    assert frontend.get(Request.GET_PROTOCOL_FEATURES) == ACK


def test_an_acknowledgement_needs_the_feature(frontend):
    frontend.send(Request.SET_OWNER, flags=VERSION | 8)
    frontend.sync()  # the first reply is that of GET_FEATURES


def test_an_own_reply_is_the_only_one(frontend):
    frontend.negotiate()
    frontend.send(Request.GET_FEATURES, flags=VERSION | 8)
    frontend.reply()
    frontend.sync()


def test_owner_is_set_as_often_as_a_frontend_likes(frontend):
    for _ in range(4):
        frontend.send(Request.SET_OWNER)
    frontend.sync()


def test_queue_num_counts_pairs(host, frontend):
    assert frontend.get(Request.GET_QUEUE_NUM) == 8
    three = host.connect(host.add("three", 11, pairs=3))
    assert three.get(Request.GET_QUEUE_NUM) == 3


def test_one_pair_offers_no_multiqueue(host):
    one = host.connect(host.add("one", 11, pairs=1))
    assert not one.get(Request.GET_FEATURES) >> Feature.VIRTIO_NET_F_MQ & 1


def test_memory_slots(frontend):
    assert frontend.get(Request.GET_MAX_MEM_SLOTS) == 64


def test_memory_comes_region_by_region(host, guest):
    memory = host.memory(regions=3)
    attached = host.attach(guest, memory=memory)
    frontend = attached.frontend
    frontend.give_memory()  # once more, while the rings run
    frontend.sync()
    check_traffic(host, guest, attached)
    for region in memory.regions[1:]:
        assert frontend.acknowledged(Request.REM_MEM_REG, SINGLE_REGION.pack(*region)) == 0
    check_traffic(host, guest, attached)
    for region in memory.regions[1:]:
        frontend.add_region(region)
    frontend.sync()
    check_traffic(host, guest, attached)


def test_a_descriptor_with_rem_mem_reg_is_closed(host, guest, frontend):
    frontend.negotiate()
    frontend.give_memory()
    frontend.sync()
    baseline = host.held()
    frontend.remove_region(frontend.memory.regions[0], [frontend.memory.fd])
    frontend.add_region(frontend.memory.regions[0])
    frontend.sync()
    assert host.held() == baseline


def test_a_memory_table_with_room_for_more(host, guest):
    """User-Mode Linux sends room for two regions, whatever there is."""
    frontend = host.connect(guest)
    frontend.negotiate()
    frontend.send(Request.SET_MEM_TABLE, frontend.table() + bytes(32), [frontend.memory.fd])
    driver = host.driver(frontend.memory, frontend.features)
    for queue, ring in enumerate(driver.queues):
        frontend.start(queue, ring)
    frontend.sync()
    check_traffic(host, guest, driver)


def test_regions_that_come_and_go_twice(host, guest):
    """QEMU 7.2 sends them once for every pair of queues."""
    attached = host.attach(guest, memory=host.memory(regions=2))
    frontend = attached.frontend
    second = attached.memory.regions[1]
    for _ in range(2):
        assert frontend.acknowledged(Request.REM_MEM_REG, SINGLE_REGION.pack(*second)) == 0
    for _ in range(2):
        frontend.add_region(second)
    frontend.sync()
    check_traffic(host, guest, attached)


def test_rings_wait_for_memory_that_is_replaced(host, guest):
    """A frontend may take the region of the rings away and give it again, larger."""
    attached = host.attach(guest)
    region = attached.memory.regions[0]
    check_traffic(host, guest, attached)
    attached.frontend.remove_region(region)
    attached.frontend.sync()
    sent = outgoing(guest)
    attached.send(sent)
    host.step()
    assert host.wire.get() == []
    attached.frontend.add_region(region)
    attached.frontend.sync()
    host.step()
    assert host.wire.get() == sent
    check_traffic(host, guest, attached)


def test_rings_start_and_stop(host, guest):
    attached = host.attach(guest)
    assert guest.describe()["state"] == "running"
    check_traffic(host, guest, attached)
    bases = attached.stop()
    assert bases == [10, 10]
    assert guest.describe()["state"] == "connected"
    attached.send(outgoing(guest))
    host.wire.put(incoming(guest))
    host.step()
    assert host.wire.get() == []
    assert attached.recv() == []
    attached.start()
    host.step()
    assert host.wire.get() == outgoing(guest)
    attached.reclaim()
    check_traffic(host, guest, attached)


def test_a_stopped_ring_keeps_its_base(frontend):
    frontend.state(Request.SET_VRING_BASE, 3, 77)
    assert [frontend.stop(3), frontend.stop(3), frontend.stop(5)] == [77, 77, 0]


def test_rings_that_were_never_configured_are_no_matter(host, guest):
    attached = host.attach(guest)
    for queue in range(2, guest.device.queues):
        attached.frontend.state(Request.SET_VRING_ENABLE, queue, 1)
        attached.frontend.file(Request.SET_VRING_CALL, queue, attached.rx[0].call_fd)
    check_traffic(host, guest, attached)


def test_enable_and_disable(host, guest):
    attached = host.attach(guest)
    for on in (0, 1, 1, 0, 1):
        attached.frontend.state(Request.SET_VRING_ENABLE, 1, on)
    attached.frontend.state(Request.SET_VRING_ENABLE, 0, 0)
    attached.frontend.sync()
    host.wire.put(incoming(guest))
    host.step()
    assert attached.recv() == []
    attached.frontend.state(Request.SET_VRING_ENABLE, 0, 1)
    attached.frontend.sync()
    check_traffic(host, guest, attached)


def test_rings_start_enabled_without_protocol_features(host, guest):
    attached = host.attach(guest, SPLIT & ~(1 << Feature.VHOST_USER_F_PROTOCOL_FEATURES))
    check_traffic(host, guest, attached)


def test_rings_start_disabled_with_protocol_features(host, guest):
    frontend = host.connect(guest)
    frontend.negotiate()
    frontend.give_memory()
    driver = host.driver(frontend.memory, frontend.features)
    for queue, ring in enumerate(driver.queues):
        frontend.start(queue, ring, enable=False)
    frontend.sync()
    host.wire.put(incoming(guest))
    driver.send(outgoing(guest))
    host.step()
    assert driver.recv() == []
    assert [info["enabled"] for info in guest.describe()["queues"][:2]] == [False, False]
    for queue in (0, 1):
        frontend.state(Request.SET_VRING_ENABLE, queue, 1)
    frontend.sync()
    host.step()
    assert host.wire.get() == outgoing(guest)


@pytest.mark.parametrize("order", ["kick first", "memory last", "features last"])
def test_any_order_will_do(host, guest, order):
    frontend = host.connect(guest)
    frontend.get(Request.GET_FEATURES)
    driver = host.driver(frontend.memory, SPLIT)

    def rings():
        for queue, ring in enumerate(driver.queues):
            if order == "kick first":
                frontend.file(Request.SET_VRING_KICK, queue, ring.kick_fd)
                frontend.state(Request.SET_VRING_ENABLE, queue, 1)
            frontend.addresses(queue, ring)
            frontend.state(Request.SET_VRING_BASE, queue, ring.base)
            frontend.state(Request.SET_VRING_NUM, queue, ring.size)
            frontend.state(Request.SET_VRING_ENABLE, queue, 1)
            frontend.file(Request.SET_VRING_KICK, queue, ring.kick_fd)

    steps = {
        "kick first": [lambda: frontend.put(Request.SET_FEATURES, SPLIT), frontend.give_memory, rings],
        "memory last": [lambda: frontend.put(Request.SET_FEATURES, SPLIT), rings, frontend.give_memory],
        "features last": [frontend.give_memory, lambda: frontend.put(Request.SET_FEATURES, SPLIT), rings],
    }
    for step in steps[order]:
        step()
    frontend.sync()
    check_traffic(host, guest, driver)


def test_a_ring_without_a_kick_descriptor_is_polled(host, guest):
    attached = host.attach(guest)
    for queue in (0, 1):
        attached.frontend.file(Request.SET_VRING_KICK, queue, None)
        attached.frontend.file(Request.SET_VRING_CALL, queue, None)
        attached.frontend.file(Request.SET_VRING_ERR, queue, None)
    attached.frontend.sync()
    check_traffic(host, guest, attached)
    assert attached.rx[0].called() <= 1  # the one of before


def test_the_call_descriptor_is_written(host, guest):
    attached = host.attach(guest)
    attached.rx[0].called()
    host.wire.put(incoming(guest))
    host.step()
    assert attached.rx[0].called() > 0


def test_a_call_descriptor_may_be_a_socket(host, guest):
    """As User-Mode Linux gives it: eight bytes a signal; one that is full, or closed, does no harm."""
    attached = host.attach(guest)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        attached.frontend.file(Request.SET_VRING_CALL, 0, theirs.fileno())
        attached.frontend.sync()
        host.wire.put(incoming(guest))
        host.step()
        received = ours.recv(1 << 16, socket.MSG_DONTWAIT)
        assert received == U64.pack(1) * (len(received) // 8) != b""
        assert len(attached.recv()) == 10
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(bytes(8))
        theirs.setblocking(True)  # the flag is the open file's
        check_traffic(host, guest, attached)
    check_traffic(host, guest, attached)  # its reader has gone
    attached.frontend.file(Request.SET_VRING_CALL, 0, attached.rx[0].call_fd)
    check_traffic(host, guest, attached)


def test_a_disabled_ring_is_set_up_anew(host, guest):
    """User-Mode Linux leaves a driver's rings disabled; the next driver may take other features."""
    attached = host.attach(guest, ALL_PACKED)
    check_traffic(host, guest, attached)
    for queue in (1, 0):
        attached.frontend.state(Request.SET_VRING_ENABLE, queue, 0)
    attached.frontend.put(Request.SET_FEATURES, SPLIT)
    driver = host.driver(attached.memory, SPLIT, size=32)
    for queue, ring in enumerate(driver.queues):
        attached.frontend.start(queue, ring)
    attached.frontend.sync()
    assert guest.connected
    check_traffic(host, guest, driver)


def test_features_do_not_change_under_running_rings(host, guest):
    attached = host.attach(guest)
    attached.frontend.put(Request.SET_FEATURES, attached.frontend.features)
    check_traffic(host, guest, attached)
    attached.frontend.put(Request.SET_FEATURES, attached.frontend.features & ~(1 << 15))
    assert refused(attached.frontend)
    assert "VIRTIO_NET_F_MRG_RXBUF changed while rings run" in host.lines()[-1]


def test_reset_owner_disables_rings(host, guest):
    attached = host.attach(guest)
    attached.frontend.send(Request.RESET_OWNER)
    attached.frontend.sync()
    host.wire.put(incoming(guest))
    host.step()
    assert attached.recv() == []
    for queue in (0, 1):
        attached.frontend.state(Request.SET_VRING_ENABLE, queue, 1)
    attached.frontend.sync()
    check_traffic(host, guest, attached)


def test_reset_device_begins_anew(host, guest):
    attached = host.attach(guest)
    check_traffic(host, guest, attached)
    attached.frontend.send(Request.RESET_DEVICE)
    attached.frontend.sync()
    assert guest.device.features == 0
    assert guest.describe()["state"] == "connected"
    assert attached.frontend.get(Request.GET_STATUS) == 0
    driver = host.driver(attached.memory, attached.frontend.features)
    attached.frontend.put(Request.SET_FEATURES, driver.features)
    for queue, ring in enumerate(driver.queues):
        attached.frontend.start(queue, ring)
    attached.frontend.sync()
    check_traffic(host, guest, driver)


def test_status_is_kept_and_zero_stops_rings(host, guest):
    attached = host.attach(guest)
    frontend = attached.frontend
    assert frontend.get(Request.GET_STATUS) == 0
    for status in (1, 3, 0xB, 0xF):
        assert frontend.acknowledged(Request.SET_STATUS, U64.pack(status)) == 0
        assert frontend.get(Request.GET_STATUS) == status
    check_traffic(host, guest, attached)
    frontend.put(Request.SET_STATUS, 0)
    assert frontend.get(Request.GET_STATUS) == 0
    assert guest.describe()["state"] == "connected"
    attached.start()
    check_traffic(host, guest, attached)


# --- the network device -----------------------------------------------------------------------------------


def test_rarp_is_broadcast_in_the_guests_name(host, guest, frontend):
    frontend.negotiate()
    frontend.send(Request.SEND_RARP, mac(guest) + b"\0\0")
    frontend.sync()
    host.step()
    (rarp,) = host.wire.get()
    assert rarp[:14] == b"\xff" * 6 + mac(guest) + b"\x80\x35"
    assert rarp[22:28] == mac(guest)


def test_rarp_is_not_sent_while_the_link_is_down(host, guest, frontend):
    frontend.negotiate()
    guest.device.set_link(False)
    frontend.send(Request.SEND_RARP, mac(guest) + b"\0\0")
    frontend.sync()
    host.step()
    assert host.wire.get() == []


def test_rarp_is_sent_within_the_rate(host, guest, frontend):
    frontend.negotiate()
    guest.context.set(rate=8000)  # sixteen such frames a second
    for _ in range(400):
        frontend.send(Request.SEND_RARP, mac(guest) + b"\0\0")
    frontend.sync()
    host.step()
    assert 0 < len(host.wire.get()) < 200


@pytest.mark.parametrize(("mtu", "answer"), [(1500, 0), (68, 0), (1501, 1), (67, 1), (1 << 63, 1)])
def test_an_mtu_beyond_the_contexts_is_declined(host, guest, frontend, mtu, answer):
    frontend.negotiate()
    assert frontend.acknowledged(Request.NET_SET_MTU, U64.pack(mtu)) == answer
    frontend.sync()
    assert ["NET_SET_MTU declined" in line for line in host.lines()] == [True] * answer


def test_an_mtu_cannot_be_declined_without_reply_ack(host, frontend):
    frontend.put(Request.NET_SET_MTU, 9000)
    assert frontend.ended()
    assert host.lines() == [
        "guest 'guest': connection ended: NET_SET_MTU: an MTU of 9000, and this context has 1500"
    ]


def config(frontend, offset, size):
    payload = frontend.call(Request.GET_CONFIG, CONFIG_HEAD.pack(offset, size, 0) + bytes(size))
    assert CONFIG_HEAD.unpack_from(payload) == (offset, size, 0)
    return payload[CONFIG_HEAD.size :]


def test_configuration_space(host):
    guest = host.add(pairs=4, mtu=9000)
    frontend = host.connect(guest)
    frontend.negotiate()
    address, status, pairs, mtu = struct.unpack("<6sHHH", config(frontend, 0, 12))
    assert (address, status, pairs, mtu) == (mac(guest), 1, 4, 9000)
    assert config(frontend, 6, 2) == b"\1\0"
    assert config(frontend, 100, 156) == bytes(156)


@pytest.mark.parametrize(("offset", "size"), [(0, 257), (256, 1), (200, 57), (0xFFFFFFFF, 1), (257, 0)])
def test_beyond_the_configuration_space_there_is_nothing(host, guest, frontend, offset, size):
    frontend.negotiate()
    payload = CONFIG_HEAD.pack(offset, size, 0) + bytes(size)
    if size > 256:
        frontend.send(Request.GET_CONFIG, payload)
        assert frontend.ended()
    else:
        assert frontend.call(Request.GET_CONFIG, payload) == b""


def test_the_configuration_space_is_read_only(host, guest, frontend):
    frontend.negotiate()

    def put(data, offset=0, flags=0):
        payload = CONFIG_HEAD.pack(offset, len(data), flags) + data
        return frontend.acknowledged(Request.SET_CONFIG, payload)

    before = config(frontend, 0, 24)
    assert put(b"\2\3\4\5\6\7") == 1
    assert put(before) == 1
    assert put(before, flags=1) == 0  # from the source of a migration
    assert put(b"\2\3\4\5\6\7", flags=1) == 1
    assert put(b"\0\0", 6, flags=1) == 0
    assert put(b"\0\0", 255, flags=1) == 1
    assert config(frontend, 0, 24) == before


# --- requests of the backend's ----------------------------------------------------------------------------


def test_the_frontend_hears_of_the_link(guest, frontend):
    frontend.negotiate()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()]) == 0
        ours.settimeout(10)
        for up in (False, True):
            guest.set_link(up)
            assert HEADER.unpack(ours.recv(100)) == (BackendRequest.CONFIG_CHANGE_MSG, VERSION, 0)
            assert config(frontend, 6, 2) == (b"\1\0" if up else b"\0\0")
        assert guest.connected


def test_a_backend_channel_that_is_no_socket(host, frontend):
    frontend.negotiate()
    frontend.send(Request.SET_BACKEND_REQ_FD, fds=[frontend.memory.fd])
    assert frontend.ended()
    assert "SET_BACKEND_REQ_FD" in host.lines()[-1]


# --- inflight ---------------------------------------------------------------------------------------------


def test_inflight_areas_are_made_in_the_size_asked_for(frontend):
    frontend.negotiate()
    area, fd = get_inflight(frontend, 4, 128)
    assert (area.offset, area.queues, area.queue_size) == (0, 4, 128)
    assert area.size == 4 * (64 + 128 * 16) == os.fstat(fd).st_size
    set_inflight(frontend, area, fd)
    os.close(fd)
    frontend.sync()


def test_a_padded_inflight_description_is_answered_padded(frontend):
    frontend.negotiate()
    frontend.send(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 2, 64) + bytes(4))
    request, payload, fds = frontend.reply()
    assert (request, len(payload)) == (Request.GET_INFLIGHT_FD, 24)
    frontend.send(Request.SET_INFLIGHT_FD, payload, fds)
    os.close(fds[0])
    frontend.sync()


# --- the log ----------------------------------------------------------------------------------------------


def test_the_log_is_answered_unasked(host, frontend):
    frontend.negotiate()
    log = host.memory(size=1 << 20)
    assert frontend.call(Request.SET_LOG_BASE, LOG.pack(1 << 20, 0), [log.fd]) == U64.pack(0)
    assert frontend.call(Request.SET_LOG_BASE, LOG.pack(4096, 4096), [log.fd]) == U64.pack(0)
    frontend.send(Request.SET_LOG_FD, fds=[log.fd])
    frontend.sync()


def test_vring_state_is_two_words():
    assert (VRING_STATE.size, U64.size, HEADER.size) == (8, 8, 12)


def test_split_ring_of_a_frontend_that_goes_is_let_go(host, guest):
    """Its rings stop at once; the next frontend starts with none."""
    attached = host.attach(guest)
    host.detach(guest, attached)
    until(lambda: guest.describe()["state"] == "waiting")
    assert not any(guest.device.info(queue)["started"] for queue in range(guest.device.queues))
    assert isinstance(attached.rx[0], SplitRing)
