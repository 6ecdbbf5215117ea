"""How much memory frontends may lend: each by itself, and those without a limit of their own together."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

import pytest

from cdna import ConfigError
from cdna.guest_driver.vhost_frontend import SPLIT, Frontend
from cdna.nic.virtio.regions import Mapping
from cdna.protocol.vhost_user import SINGLE_REGION, TABLE_HEAD, Request
from cdna.vmm.vhost_user import Allowance
from cdna.vmm.vhost_user.lent import MANY, RESERVE, Lent
from tests.support.vhost_host import VhostHost, check_traffic

MIB = 1 << 20
TIB = 1 << 40
HUGE = 2 * MIB


def allowance(most: int, others: list[int] | None = None) -> Allowance:
    """Of so many bytes; others: one number, of what the cgroup holds."""
    limit = most * RESERVE // (RESERVE - 1)
    return Allowance(limit, others=lambda: others[0] if others else 0)


@pytest.fixture
def holes() -> Iterator[int]:
    """A file of 1 GiB that has no page."""
    fd = os.memfd_create("holes", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 30)
    yield fd
    os.close(fd)


@pytest.fixture
def host(host: VhostHost) -> VhostHost:
    """A server that can pay for 32 MiB."""
    host.server.allowance = allowance(32 * MIB)
    return host


def table(frontend: Frontend, size: int, fd: int) -> bool:
    """Whether a table of these bytes, all of one file, is taken."""
    payload = TABLE_HEAD.pack(1, 0) + struct.pack("=QQQQ", TIB, size, TIB, 0)
    return frontend.acknowledged(Request.SET_MEM_TABLE, payload, [fd]) == 0


def ready(host: VhostHost, name: str = "guest", number: int = 10, **options: object) -> Frontend:
    frontend = host.connect(host.add(name, number, **options))
    frontend.negotiate(SPLIT)
    return frontend


def test_a_file_of_holes_is_more_than_the_server_can_pay_for(host, holes):
    frontend = ready(host)
    assert not table(frontend, 1 << 30, holes)
    assert frontend.ended()
    (guest,) = host.server.guests
    told = guest.describe()
    assert told["last_error"] == host.lines()[-1].partition("connection ended: ")[2]
    assert "1073741824 bytes more; the server can pay for 33554432 of all guests" in told["last_error"]
    assert (told["mapped"], told["memory_refused"]) == (0, 1)
    check_traffic(host, guest, host.attach(guest))
    assert guest.describe()["mapped"] == 8 * MIB


def test_a_limit_of_its_own_lifts_it(host, holes):
    frontend = ready(host, memory=1 << 30)
    assert table(frontend, 1 << 30, holes)
    assert host.server.guests[0].describe()["mapped"] == 1 << 30
    add = SINGLE_REGION.pack(0, 4096, 0, 0)
    assert frontend.acknowledged(Request.ADD_MEM_REG, add, [holes]) != 0
    assert frontend.ended()
    assert "this guest maps up to 1073741824 (memory=), and 1073741824 already" in host.lines()[-1]


def test_the_log_and_the_inflight_area_count(host, holes):
    frontend = ready(host, memory=4 * MIB)
    assert table(frontend, 3 * MIB, holes)
    frontend.set_log(holes, MIB)
    frontend.set_log(holes, MIB)  # in the place of the first one
    payload = struct.pack("=QQHH", 4096, 0, 1, 128)
    assert frontend.acknowledged(Request.SET_INFLIGHT_FD, payload, [holes]) == 0  # the log is not mapped yet
    assert table(frontend, 4 * MIB - 4096, holes)
    assert not table(frontend, 4 * MIB, holes)


def test_guests_share(host, holes):
    one, two = ready(host, "one", 11), ready(host, "two", 12)
    other = os.memfd_create("other", os.MFD_CLOEXEC)
    os.ftruncate(other, 1 << 30)
    assert table(one, 20 * MIB, holes)
    assert not table(two, 20 * MIB, other)
    own = ready(host, "own", 13, memory=20 * MIB)
    assert table(own, 20 * MIB, other)  # and it takes nothing from the others
    host.detach(host.server.guests[0], one)
    three = ready(host, "three", 14)
    assert table(three, 20 * MIB, other)
    os.close(other)


def test_a_table_that_comes_again_counts_once(host, holes):
    """A frontend repeats its table, with the same files, whenever its machine's memory map changes."""
    os.ftruncate(holes, 20 * MIB)
    frontend = ready(host)
    for _ in range(3):
        assert table(frontend, 20 * MIB, holes)
    assert host.server.guests[0].describe()["mapped"] == 20 * MIB


def test_files_that_were_lent_before_count_while_they_may_be_there(host, holes):
    """One after the other, each is filled with pages and kept."""
    there = [0]
    host.server.allowance = allowance(32 * MIB, there)
    first = ready(host)
    assert table(first, 20 * MIB, holes)
    there[0] = 20 * MIB  # which the NIC has made
    host.detach(host.server.guests[0], first)
    host.server.remove(host.server.guests[0])
    with contextlib.closing(ready(host)) as second:
        other = os.memfd_create("other", os.MFD_CLOEXEC)
        os.ftruncate(other, 20 * MIB)
        assert not table(second, 20 * MIB, other)
    there[0] = 10 * MIB  # the frontend has closed the file
    with contextlib.closing(ready(host, "three", 12)) as third:
        assert table(third, 20 * MIB, other)
    os.close(other)


def test_a_limit_changes_while_the_guest_runs(host, holes):
    frontend = ready(host)
    (guest,) = host.server.guests
    assert table(frontend, 20 * MIB, holes)
    with pytest.raises(ConfigError, match="the guest maps 20971520 bytes now"):
        guest.set_memory(10 * MIB)
    assert guest.describe()["memory"] is None
    guest.set_memory(64 * MIB)
    assert table(frontend, 60 * MIB, holes)
    with pytest.raises(ConfigError, match="the server can pay for 33554432"):
        guest.set_memory(None)
    assert guest.describe()["memory"] == 64 * MIB
    assert table(frontend, 20 * MIB, holes)
    guest.set_memory(None)
    assert not table(frontend, 40 * MIB, holes)


def test_huge_pages_are_not_charged_to_the_server(host):
    try:
        huge = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB)
        os.ftruncate(huge, 1 << 30)
        frontend = ready(host)
        if not table(frontend, HUGE, huge) and "cannot be mapped" in host.lines()[-1]:
            pytest.skip("no huge pages")
    except OSError as error:
        pytest.skip(f"no huge pages: {error}")
    assert table(frontend, 1 << 30, huge)
    os.close(huge)


# --- the account by itself ----------------------------------------------------------------------------------


def test_many_files_are_known_by_their_sum():
    """A frontend that lends a page of each of many files does not fill the server's tables."""
    shared = allowance(1 << 30, [1 << 30])
    for number in range(3 * MANY):
        mapping = Mapping((1, number), 4096, 4096, False)
        shared.take(mapping)
        shared.give(mapping)
    assert shared.charged == 3 * MANY * 4096
    assert len(shared._files) <= MANY + 1
    assert shared.fits(Mapping((2, 0), (1 << 30) - 3 * MANY * 4096, 1 << 30, False))
    assert not shared.fits(Mapping((2, 0), (1 << 30) - 3 * MANY * 4096 + 4096, 1 << 30, False))


def test_what_the_server_has_itself_is_not_the_guests():
    own = [10 * MIB]
    shared = Allowance(32 * MIB, own=lambda: own[0])
    assert shared.most == 20 * MIB
    own[0] = 64 * MIB
    assert shared.most == 0
    lent = Lent(shared)
    with pytest.raises(ConfigError, match="the server can pay for 0 of all guests"):
        lent.take("memory region 0", Mapping((1, 1), 4096, 4096, False), 0)
