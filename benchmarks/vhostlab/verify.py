"""Before anything is counted: frames of random bytes pass through `cdna serve`, and come out as they went in.

A testpmd forwards (io) between a port on the server's socket and a capture: what the capture holds is sent,
what the server delivers is written. Sending and receiving guests are one process whose ports are chained:

    capture to send -> port 0 -> cdna -> port 1 -> capture received
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from cdna.base.units import parse_mac
from cdna.errors import ResourceError

from .backends import WIRE_MAC, Backend, CdnaServe, Role, Setup, mac, write_source
from .frontends import virtio_user
from .loads import wait_for
from .testpmd import Testpmd

FRAMES = 200  # fewer than the smallest ring holds, so that none finds it full
SIZES = (60, 61, 64, 65, 127, 128, 129, 512, 1000, 1513, 1514)


def verify(load: str, setup: Setup) -> str:
    """What was looked at, for a load of this name. ResourceError: which frame is not what was sent."""
    frames = min(FRAMES, setup.queue_size // 2)
    with tempfile.TemporaryDirectory(prefix="cdna-dpdk-") as name:
        place = Path(name)
        if "tx" in load:
            found = to_wire(place, setup, frames)
        elif "rx" in load:
            found = from_wire(place, setup, frames)
        else:
            found = to_guest(place, setup, frames)
    return f"{found} frames came through unharmed"


def to_guest(place: Path, setup: Setup, frames: int, backend: type[Backend] = CdnaServe) -> int:
    sent = write_random(place / "sent.pcap", frames, mac(1), mac(0))
    with (
        backend(place, setup, Role.SWITCH, ports=2, size=64) as served,
        _frontend(served, f"rx_pcap={place}/sent.pcap,tx_pcap={place}/received.pcap") as guests,
    ):
        guests.start("io")
        wait_for("cdna serve: frames are missing", lambda: guests.stats()[-1].tx_frames >= frames)
    return compare(sent, read(place / "received.pcap"))


def to_wire(place: Path, setup: Setup, frames: int) -> int:
    sent = write_random(place / "sent.pcap", frames, WIRE_MAC, mac(0))
    with (
        CdnaServe(place, setup, Role.SINK, ports=1, size=64, wire=f"pcap:write={place}/wire.pcap") as served,
        _frontend(served, f"rx_pcap={place}/sent.pcap,tx_pcap={place}/nothing.pcap") as guests,
    ):
        guests.start("io")
        wait_for("cdna serve: frames are missing", lambda: served.received().frames >= frames)
    return compare(sent, read(place / "wire.pcap"))


def from_wire(place: Path, setup: Setup, frames: int) -> int:
    """The source repeats its frames without end; drops are between them, so they are known by their bytes."""
    with (
        CdnaServe(place, setup, Role.SOURCE, ports=1, size=1514) as served,
        _frontend(served, f"tx_pcap={place}/received.pcap") as guests,
    ):
        guests.start("io")
        wait_for("cdna serve: frames are missing", lambda: guests.stats()[-1].tx_frames >= frames)
    write_source(place / "known.pcap", 1, 1514)
    known = set(read(place / "known.pcap"))
    received = read(place / "received.pcap", frames)
    for number, frame in enumerate(received):
        if frame not in known:
            raise ResourceError(f"cdna serve: frame {number} from the wire is not one that was sent")
    return len(received)


def _frontend(served: Backend, capture: str) -> Testpmd:
    """Ports on the server's sockets and one on captures behind them, chained."""
    setup = served.setup
    vdevs = [virtio_user(served.path(port), port, setup) for port in range(served.ports)]
    return Testpmd(
        [*vdevs, f"net_pcap0,{capture}"],
        cores=setup.guest_cores,
        huge=setup.huge,
        megabytes=setup.megabytes,
        mbufs=setup.mbufs,
        options=["--port-topology=chained", "--no-flush-rx"],
    )


def write_random(file: Path, frames: int, to: str, source: str) -> list[bytes]:
    from scapy.utils import wrpcap

    chance = random.Random(frames)
    addresses = parse_mac(to) + parse_mac(source) + b"\x88\xb5"
    sent = [addresses + chance.randbytes(SIZES[i % len(SIZES)] - 14) for i in range(frames)]
    wrpcap(str(file), sent, linktype=1)
    return sent


def read(file: Path, most: int | None = None) -> list[bytes]:
    """The frames of a capture, or the first ones."""
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(file)) as reader:
        return [bytes(frame) for frame, _ in islice(reader, most)]


def compare(sent: list[bytes], received: Iterable[bytes]) -> int:
    received = list(received)
    for number, (one, other) in enumerate(zip(sent, received, strict=False)):
        if one != other:
            raise ResourceError(f"cdna serve: frame {number} of {len(one)} bytes came through as another one")
    if len(received) != len(sent):
        raise ResourceError(f"cdna serve: {len(received)} frames came through of {len(sent)}")
    return len(sent)
