"""The control queue of a frontend that leaves it to us: its place and formats, how it stops and goes on."""

import os

import numpy as np
import pytest

from cdna.guest_driver.vhost_frontend import ALL_PACKED, LEGACY, SPLIT
from cdna.protocol.vhost_user import INFLIGHT, Request
from cdna.virtio import Feature
from cdna.vmm.vhost_user import SUPPORTED
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.control_driver import CUTS, ERR, FORMATS, MQ, OK, RSS, ControlDriver, spread
from tests.support.inflight import get_inflight
from tests.support.vhost_host import check_traffic, less, until


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
    drivers.append(ControlDriver(host, guest, attached).start())
    assert drivers[0].queue == 2
    assert drivers[0].command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    check_traffic(host, guest, attached)


def test_a_queue_that_was_not_offered(host, drivers):
    guest = host.add(features=less(SUPPORTED, Feature.VIRTIO_NET_F_CTRL_VQ))
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
    driver = ControlDriver(host, guest, attached)
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
    again = ControlDriver(host, guest, attached, ring=driver.ring)
    again.start(base=0)
    assert spread(host, guest, attached) == [True, False]
    assert again.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    assert spread(host, guest, attached) == [True, True]


def test_an_inflight_area_with_room_for_the_queue(control):
    _, attached, driver = control(pairs=1)
    frontend = attached.frontend
    area, fd = get_inflight(frontend, 17, 64)
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
