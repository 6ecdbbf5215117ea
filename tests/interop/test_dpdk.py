"""DPDK's virtio driver (dpdk-testpmd with virtio-user) against `cdna serve`: stock programs on both ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.vhostlab", reason="no benchmarks beside these tests")

from benchmarks.vhostlab.backends import CdnaServe, Role, Setup, reading
from benchmarks.vhostlab.frontends import aim, virtio_user
from benchmarks.vhostlab.loads import wait_for
from benchmarks.vhostlab.testpmd import PROGRAM, Testpmd
from benchmarks.vhostlab.verify import from_wire, to_guest, to_wire
from tests.support.lab import Serve

pytestmark = [
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"needs {PROGRAM}"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs: testpmd polls"),
]

RINGS = {
    "split": ",packed_vq=0,in_order=0,mrg_rxbuf=1",
    "split-in-order": ",packed_vq=0,in_order=1,mrg_rxbuf=1",
    "split-not-mergeable": ",packed_vq=0,in_order=0,mrg_rxbuf=0",
    "split-vectorized": ",packed_vq=0,in_order=1,mrg_rxbuf=0,vectorized=1",
    "packed": ",packed_vq=1,in_order=0,mrg_rxbuf=1",
    "packed-in-order": ",packed_vq=1,in_order=1,mrg_rxbuf=1",
    "packed-not-mergeable": ",packed_vq=1,in_order=0,mrg_rxbuf=0",
    "packed-vectorized": ",packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1",
}
FRAMES = 100  # fewer than any ring holds: none is full, none may get lost
GUESTS = 2


@pytest.fixture
def setup() -> Setup:
    engine, guests = sorted(os.sched_getaffinity(0))[:2]
    return Setup(engine=engine, guests=guests, queue_size=256, poll="adaptive", megabytes=128, mbufs=4096)


@pytest.fixture(params=RINGS)
def ring(request: pytest.FixtureRequest, setup: Setup) -> Setup:
    """Each layout of a ring that the driver has code of its own for."""
    return replace(setup, frontend=RINGS[request.param])


def test_frames_between_guests_are_what_was_sent(ring: Setup, tmp_path: Path) -> None:
    assert to_guest(tmp_path, ring, FRAMES) == FRAMES


def test_frames_to_the_wire_are_what_was_sent(ring: Setup, tmp_path: Path) -> None:
    assert to_wire(tmp_path, ring, FRAMES) == FRAMES


def test_frames_from_the_wire_are_what_was_sent(ring: Setup, tmp_path: Path) -> None:
    assert from_wire(tmp_path, ring, FRAMES) == FRAMES


def test_the_command_of_the_page_attaches_and_sends(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dpdk.md").read_text()
    text = page[page.index("    dpdk-testpmd ") : page.index("    testpmd> ")].replace("\\\n", " ")
    entered = "".join(f"{line}\n" for line in re.findall("    testpmd> (.*)", page))
    command = shlex.split(text.replace("/run/cdna", str(tmp_path)).replace("-l 0,2", "-l 0,1"))
    contexts = [f"--context=vhost-user:{tmp_path}/{n}.sock,name={n},mac=02:cd:00:00:00:0{n}" for n in "ab"]
    with Serve(tmp_path / "control", *contexts) as server:
        testpmd = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert testpmd.stdin is not None
        try:
            testpmd.stdin.write(entered.encode())
            testpmd.stdin.flush()
            wait_for(
                "nothing was sent",
                lambda: testpmd.poll() is not None or counter(server, "a", "tx_frames") > 0,
            )
            assert testpmd.poll() is None, testpmd.stdout and testpmd.stdout.read().decode()
        finally:
            testpmd.kill()
            testpmd.communicate()


def counter(server: Serve, guest: str, name: str) -> int:
    return int(json.loads(server.ctl("stats", guest, "--json").stdout)[name])


@pytest.mark.parametrize("poll", ["busy", "adaptive"])
def test_frames_go_round_between_guests(setup: Setup, tmp_path: Path, poll: str) -> None:
    with serve(tmp_path, replace(setup, poll=poll)) as served, attach(served) as guests:
        exchange(guests, 20 * setup.queue_size)
        served.check()


@pytest.mark.parametrize("queues", [1, 4])
@pytest.mark.parametrize("layout", ["split", "packed"])
def test_every_queue_sends(setup: Setup, tmp_path: Path, layout: str, queues: int) -> None:
    setup = replace(setup, frontend=RINGS[layout], context=f",queues={queues}")
    with serve(tmp_path, setup) as served, attach(served, queues=queues) as guests:
        exchange(guests, 20 * setup.queue_size)
        for port in range(GUESTS):
            sent = per_queue(guests, port, "tx")
            assert len(sent) == queues
            assert all(sent)
        served.check()


def test_a_frontend_that_is_killed_leaves_room_for_the_next(setup: Setup, tmp_path: Path) -> None:
    with serve(tmp_path, setup) as served:
        for _ in range(3):
            with attach(served) as guests:
                exchange(guests, 2 * setup.queue_size)
                guests.kill()
        served.check()


@pytest.mark.parametrize("layout", ["split", "packed"])
def test_a_server_that_is_killed_comes_back_under_a_running_frontend(
    setup: Setup, tmp_path: Path, layout: str
) -> None:
    """The frontend listens (virtio-user's server=1), and we connect to it."""
    setup = replace(setup, frontend=f"{RINGS[layout]},server=1", context=",mode=client")
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serve(tmp_path, setup))
        guests = stack.enter_context(attach(served))
        for _ in range(2):
            exchange(guests, 4 * setup.queue_size)
            served.process.kill()
            served.process.wait()
            served = stack.enter_context(serve(tmp_path, setup))
            wait_for("the frontend is not back", lambda now=served: attached(now))
        exchange(guests, 4 * setup.queue_size)
        served.check()


def serve(place: Path, setup: Setup) -> CdnaServe:
    return CdnaServe(place, setup, Role.SWITCH, ports=GUESTS, size=64)


def attach(served: CdnaServe, queues: int = 1) -> Testpmd:
    """A testpmd with a port on each of the server's sockets; the ports send to each other."""
    setup = served.setup
    guests = Testpmd(
        [virtio_user(served.path(port), port, setup, queues) for port in range(served.ports)],
        cores=setup.guest_cores,
        megabytes=setup.megabytes,
        mbufs=setup.mbufs * queues,
        options=[f"--rxq={queues}", f"--txq={queues}"],
    )
    aim(guests, served.ports, 64, to_each_other=True)
    return guests


def attached(served: CdnaServe) -> bool:
    """Whether every ring of every guest is served."""
    guests = [served.client.call("show", guest=f"g{port}")[0]["guest"] for port in range(served.ports)]
    return all(guest["rings"] and all(ring["ready"] for ring in guest["rings"]) for guest in guests)


def exchange(guests: Testpmd, frames: int) -> None:
    """Has frames go round between the ports until each has received so many more."""
    before = [reading(guests, [port]).frames for port in range(GUESTS)]
    guests.start("io", first_bursts=2)
    for port in range(GUESTS):
        wait_for(
            f"port {port} receives nothing",
            lambda port=port: reading(guests, [port]).frames >= before[port] + frames,
        )
    guests.stop()


def per_queue(guests: Testpmd, port: int, way: str) -> list[int]:
    """Frames of each queue of a port."""
    found = re.findall(rf"{way}_q\d+_good_packets: (\d+)", guests.command(f"show port xstats {port}"))
    return [int(frames) for frames in found]
