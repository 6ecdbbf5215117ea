"""What one guest does to the other, and the figures that come of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cdna.compare.vm.plan import LATENCY, TCP, UDP, UDP_PAYLOAD
from cdna.compare.vm.scene import VmScene
from cdna.errors import ResourceError

INTERVAL = 0.002  # seconds between two pings
PATIENCE = 60.0  # seconds beyond the load's own time


@dataclass(frozen=True)
class Turn:
    """What a load came to in one turn: Gb/s or kpps, or round trips in microseconds."""

    value: float = 0.0
    round_trips: tuple[float, ...] = ()


def tcp(scene: VmScene, seconds: float) -> Turn:
    """Gb/s of TCP payload that arrived."""
    ended = _iperf3(scene, seconds, "")["sum_received"]
    return Turn(float(ended["bits_per_second"]) / 1e9)


def udp(scene: VmScene, seconds: float) -> Turn:
    """Thousands of datagrams a second that arrived, in frames of 64 bytes without the FCS."""
    ended = _iperf3(scene, seconds, f"-u -b 0 -l {UDP_PAYLOAD}")["sum"]
    return Turn(float(ended["packets"] - ended["lost_packets"]) / float(ended["seconds"]) / 1e3)


def latency(scene: VmScene, seconds: float) -> Turn:
    """Round trips of small packets, microseconds; both guests are idle between them."""
    count = max(20, round(seconds / INTERVAL))
    command = f"/bin/ping -n -i {INTERVAL} -c {count + 1} {scene.address(1)}"
    times = scene.guests[0].run(
        f"{command} | sed -n 's/.*time=\\([0-9.]*\\) ms/\\1/p'", count * INTERVAL * 2 + PATIENCE
    )
    found = [1e3 * float(text) for text in times.split()]
    if len(found) < count // 2:
        raise ResourceError(f"{scene.path}: ping: {len(found)} of {count} answers")
    return Turn(round_trips=tuple(found[1:]))  # the first one asks for the address


def _iperf3(scene: VmScene, seconds: float, options: str) -> dict[str, Any]:
    whole = max(1, round(seconds))  # iperf3 takes whole seconds, and 0 for no end
    command = f"iperf3 -c {scene.address(1)} -t {whole} -i 0 -J {options}"
    text = scene.guests[0].run(command, seconds + PATIENCE, check=False)
    try:
        report = json.loads(text)
    except ValueError:
        report = {"error": text.strip()[-200:]}
    if "error" in report:
        raise ResourceError(f"{scene.path}: iperf3: {report['error']}")
    ended: dict[str, Any] = report["end"]
    return ended


LOADS: dict[str, tuple[str, Callable[[VmScene, float], Turn]]] = {
    TCP: ("Gb/s", tcp),
    UDP: ("kpps", udp),
    LATENCY: ("us", latency),
}
