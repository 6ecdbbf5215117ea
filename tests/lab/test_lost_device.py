"""A guest that deletes its own device, or whose counters cannot be read: the others go on."""

import logging
from collections.abc import Callable, Iterator

import pytest

from cdna.errors import CdnaError, ResourceError
from cdna.lab.lab import Lab
from tests.lab.test_lab import plan, reaches
from tests.support.lab import needs_namespaces

pytestmark = needs_namespaces

CHANGES: dict[str, Callable[[Lab], object]] = {
    "reset": lambda lab: lab.reset("g2"),
    "none": lambda lab: lab.change("g2", {"protection": "none"}),
    "same": lambda lab: lab.change("g2", {"protection": "validated"}),
    "rate": lambda lab: lab.change("g2", {"rate": "1M"}),
    "link": lambda lab: lab.set_link("g2", False),
    "remove": lambda lab: lab.remove("g2"),
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests, of which g2 has deleted its device."""
    with Lab(plan(2)) as lab:
        inside(lab, "link", "del", ifname="eth0")
        yield lab


def inside(lab: Lab, what: str, *words: str, **more: object) -> None:
    """Has netlink do something in the namespace of g2."""
    lab.member("g2").namespace.run(lambda netlink: getattr(netlink, what)(*words, **more))


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_done_to_it_the_others_go_on(lab: Lab, change: str) -> None:
    CHANGES[change](lab)
    assert {t.guest for t in lab.sample()} >= {"g1"}
    assert lab.describe()[0]["state"] == "running"
    lab.add({"name": "late"})
    assert reaches(lab, "g1", "late")


def test_a_reset_makes_the_device_anew(lab: Lab) -> None:
    mac = lab.member("g2").context.mac
    assert [guest["device"] for guest in lab.describe()] == [True, False]
    lab.set_link("g2", False)
    lab.reset("g2")
    link = lab.member("g2").namespace.run(lambda netlink: netlink.get_links(ifname="eth0")[0])
    assert (link.get("address"), link.get("carrier")) == (mac, 0)
    lab.set_link("g2", True)
    assert [guest["device"] for guest in lab.describe()] == [True, True]
    assert reaches(lab, "g1", "g2")
    assert reaches(lab, "g2", "g1", 6)


def test_a_device_of_the_guest_s_own_is_not_taken(lab: Lab) -> None:
    inside(lab, "link", "add", ifname="eth0", kind="veth", peer="far0")
    sent = lab.counters("g2")["tx_frames"]
    for change in ("reset", "none"):
        with pytest.raises(ResourceError, match=r"guest g2: its device was deleted inside.*eth0 exists"):
            CHANGES[change](lab)
    assert lab.counters("g2")["tx_frames"] == sent
    assert lab.describe()[1]["protection"] == "validated"
    inside(lab, "link", "del", ifname="eth0")
    CHANGES["none"](lab)
    assert reaches(lab, "g1", "g2")


def test_a_guest_left_without_a_context_can_be_reset(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine is there for it, not even for what it had before."""
    frames = lab.counters("g2")["tx_frames"]
    free = lab.machine.memory.free_pages
    with monkeypatch.context() as full:
        full.setattr(lab.machine.vmm, "create_guest", _refuse)
        with pytest.raises(ResourceError, match="no memory"):
            lab.reset("g2")
    assert lab.counters("g2")["tx_frames"] == frames
    assert lab.describe()[1]["state"] == "free"
    with pytest.raises(CdnaError):
        lab.change("g2", {"rate": "1M"})
    lab.add({"name": "late", "mac": "02:00:00:00:00:99"})  # on the context that is free
    lab.reset("g2")
    assert reaches(lab, "g1", "g2")
    lab.remove("late")
    assert lab.machine.memory.free_pages == free


def _refuse(name: str, memory: int) -> None:
    raise ResourceError("no memory")


def test_a_device_that_cannot_be_looked_at_ends_no_sample(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr(lab.member("g2"), "look", fail)
    with caplog.at_level(logging.ERROR, "cdna.lab"):
        assert [t.guest for t in lab.sample()] == ["g1", "g2"]
    assert [record.getMessage() for record in caplog.records] == [
        "guest 'g2': internal error: its device cannot be looked at"
    ]


def test_counters_that_cannot_be_read_keep_nobody_else_s(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = lab.counters("g2")

    def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr(lab.member("g2"), "counters", fail)
    with caplog.at_level(logging.ERROR, "cdna.lab"):
        for _ in range(3):
            assert [t.guest for t in lab.sample()] == ["g1", "g2"]
    assert lab.snapshot()[1]["g2"] == before
    assert [record.getMessage() for record in caplog.records] == [
        "guest 'g2': internal error: its counters cannot be read"
    ]
