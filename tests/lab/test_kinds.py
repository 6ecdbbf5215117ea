"""Synthetic guests beside each other on one NIC; vhost-user and namespaces are in tests/cli/test_serve.py."""

import threading
import time
from collections.abc import Iterator

import pytest

from cdna.errors import ConfigError
from cdna.lab.guest_plans import context_settings, guest_plan
from cdna.lab.lab import Lab
from cdna.lab.plan import NETS, LabPlan
from tests.support.lab import wait_for, wait_until_still


def plan(*contexts: str, poll: str = "adaptive") -> LabPlan:
    return LabPlan(
        tuple(guest_plan("", context_settings("", text), {}, NETS) for text in contexts), poll=poll
    )


@pytest.fixture(params=["adaptive", "busy"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(plan("synthetic:sink", "synthetic:gen,to=sink,size=1000,rate=50M", poll=request.param)) as lab:
        yield lab


def received(lab: Lab) -> int:
    return lab.counters("sink")["rx_frames"]


def moves(lab: Lab) -> None:
    """Waits for frames to arrive."""
    before = received(lab)
    wait_for(lambda: received(lab) > before)


def test_a_generator_sends_without_an_end(lab: Lab) -> None:
    wait_for(lambda: received(lab) > 5000)
    gen = lab.counters("gen")
    assert gen["tx_bytes"] == 1000 * gen["tx_frames"]
    kinds = [(row["guest"], row["kind"], row["state"]) for row in lab.describe()]
    assert kinds == [("sink", "synthetic", "running"), ("gen", "synthetic", "running")]


def test_rate(lab: Lab) -> None:
    lab.change("gen", {"rate": "8M"})  # 1000 frames a second
    start, before = time.monotonic(), received(lab)
    wait_for(lambda: received(lab) > before + 700)
    assert time.monotonic() - start > 0.3  # a full bucket's worth comes at once


def test_link(lab: Lab) -> None:
    moves(lab)
    lab.set_link("gen", False)
    lab.set_link("gen", False)
    wait_until_still(lambda: lab.counters("gen")["tx_frames"])  # what was in the ring has gone
    lab.set_link("gen", True)
    moves(lab)


def test_reset_keeps_address_context_and_counters(lab: Lab) -> None:
    moves(lab)
    before, counted = lab.describe()[1], lab.counters("gen")["tx_frames"]
    lab.reset("gen")
    after = lab.describe()[1]
    assert [after[key] for key in ("mac", "context", "state")] == [
        before[key] for key in ("mac", "context", "state")
    ]
    assert lab.counters("gen")["tx_frames"] >= counted
    moves(lab)


def test_protection(lab: Lab) -> None:
    lab.change("gen", {"protection": "iommu:shared", "weight": "2"})
    assert (lab.describe()[1]["protection"], lab.describe()[1]["weight"]) == ("iommu:shared", 2)
    moves(lab)
    with pytest.raises(ConfigError, match="setting 'size': a guest that runs can change vlan"):
        lab.change("gen", {"size": 60})


def test_it_comes_and_goes(lab: Lab) -> None:
    free, threads = lab.machine.memory.free_pages, threading.active_count()
    for _ in range(3):
        lab.add({"kind": "synthetic", "name": "other", "to": "sink", "mac": "02:00:00:00:00:01"})
        wait_for(lambda: lab.counters("other")["tx_frames"] > 0)
        lab.remove("other")
    assert (lab.machine.memory.free_pages, threading.active_count()) == (free, threads)
    moves(lab)


def test_nobody_to_send_to(lab: Lab) -> None:
    free = lab.machine.memory.free_pages
    with pytest.raises(ConfigError, match="there is no guest 'nobody' to send to; give it before this one"):
        lab.add({"kind": "synthetic", "name": "other", "to": "nobody"})
    assert (lab.machine.memory.free_pages, len(lab.members)) == (free, 2)


def test_a_namespace_needs_a_loop_that_drives_it() -> None:
    with Lab(plan("synthetic:sink", poll="busy")) as lab:
        with pytest.raises(ConfigError, match="start it with --poll adaptive"):
            lab.add({"name": "web"})
        assert [row["guest"] for row in lab.describe()] == ["sink"]


def test_a_thread_that_ended_leaves_nothing() -> None:
    before = threading.active_count()
    with Lab(plan("synthetic:sink", "synthetic:gen,to=sink")):
        pass
    assert threading.active_count() == before
