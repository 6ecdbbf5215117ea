"""The guests of a turn: ports of one dpdk-testpmd on one core, which is the same for every contender.

Between guests frames go round in a loop, `io` between two ports: what one port receives the other sends, so
no frame is made while it is measured, none can find a full ring, and the addresses stay right: a frame from
the first guest to the second is received by the second, and sent by the first again. No other mode of
testpmd serves: `txonly` receives nothing, and `flowgen` sends from one fixed address to another one.
"""

from __future__ import annotations

from pathlib import Path

from .backends import WIRE_MAC, Backend, Setup, mac
from .testpmd import Testpmd

LOOP_BURSTS = 16  # a direction; with bursts of 32, half of a ring of 1024


def virtio_user(path: Path, port: int, setup: Setup, queues: int = 1) -> str:
    """The --vdev of a port on a vhost-user socket."""
    return (
        f"net_virtio_user{port},path={path},queues={queues},queue_size={setup.queue_size},mac={mac(port)}"
        f"{setup.frontend}"
    )


def attach(backend: Backend, size: int, *, to_each_other: bool) -> Testpmd:
    """A testpmd with a port on each socket of the backend. It forwards nothing yet."""
    setup = backend.setup
    guests = Testpmd(
        [virtio_user(backend.path(port), port, setup) for port in range(backend.ports)],
        cores=setup.guest_cores,
        huge=setup.huge,
        megabytes=setup.megabytes,
        mbufs=setup.mbufs,
        options=[f"--burst={setup.burst}"],
    )
    aim(guests, backend.ports, size, to_each_other=to_each_other)
    return guests


def aim(
    guests: Testpmd, ports: int, size: int, *, to_each_other: bool, macs: list[str] | None = None
) -> None:
    """Says how long the frames are that the ports send, and to whom."""
    macs = macs or [mac(port) for port in range(ports)]
    for port in range(ports):
        guests.command(f"set eth-peer {port} {macs[port ^ 1] if to_each_other else WIRE_MAC}")
    guests.command(f"set txpkts {size}")


def loop_bursts(setup: Setup) -> int:
    """Bursts under way in each direction, so that no ring is ever full."""
    return max(1, min(LOOP_BURSTS, setup.queue_size // (2 * setup.burst)))
