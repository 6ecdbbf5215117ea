"""What guest 1 does to guest 2, and the figure that comes of it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cdna.errors import ResourceError
from cdna.vm.server import cdna
from netlab.contenders import CdnaLab, Guests

PACKAGES = {"iperf3": "iperf3", "ping": "iputils-ping", "nsenter": "util-linux"}
PORT = 5201
PATIENCE = 60.0  # seconds beyond the time of the load itself

# 14 of Ethernet, 20 of IPv4, 8 of UDP: 22 more make a frame of 64 bytes, without the FCS.
UDP_PAYLOAD = 64 - 14 - 20 - 8


def need(*programs: str) -> None:
    """ResourceError: the first program that is missing, and what to install."""
    for program in programs:
        if shutil.which(program) is None:
            raise ResourceError(f"{program} is missing: apt-get install {PACKAGES[program]}")


@contextlib.contextmanager
def iperf3_server(guests: Guests, guest: int = 2) -> Iterator[None]:
    server = guests.popen(
        guest, ["iperf3", "-s", "-p", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def tcp_gbps(guests: Guests, seconds: float) -> float:
    """Gb/s of TCP payload that arrived, by cubic: BBR, which some have set, holds to a rate it guesses."""
    return float(_iperf3(guests, seconds, ["-C", "cubic"])["end"]["sum_received"]["bits_per_second"]) * 1e-9


def udp_kpps(guests: Guests, seconds: float) -> float:
    """Thousands of datagrams a second that arrived, in frames of 64 bytes without the FCS."""
    ended = _iperf3(guests, seconds, ["-u", "-b", "0", "-l", str(UDP_PAYLOAD)])["end"]["sum"]
    return float(ended["packets"] - ended["lost_packets"]) / float(ended["seconds"]) * 1e-3


def _iperf3(guests: Guests, seconds: float, options: list[str]) -> dict[str, Any]:
    """The client's report. Tried again while the server is not ready."""
    command = ["iperf3", "-c", guests.address(2), "-p", str(PORT), "-t", f"{seconds:g}", "-J", *options]
    deadline = time.monotonic() + PATIENCE
    while True:
        client = guests.popen(1, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = client.communicate(timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            client.kill()
            client.communicate()
            raise ResourceError(f"{guests.name}: iperf3 did not end") from None
        report = json.loads(out) if out.lstrip().startswith("{") else {"error": err.strip()}
        if "error" not in report:
            return report
        if time.monotonic() > deadline:
            raise ResourceError(f"{guests.name}: iperf3: {report['error']}")


def ping_us(guests: Guests, seconds: float, interval: float) -> list[float]:
    """Round-trip times in microseconds, the first one (which asks for the address) left out."""
    count = max(20, round(seconds / interval))
    command = ["ping", "-n", "-i", f"{interval:g}", "-c", str(count + 1), guests.address(2)]
    client = guests.popen(1, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = client.communicate(timeout=2 * count * interval + PATIENCE)
    times = [1e3 * float(text) for text in re.findall(r"icmp_seq=\d+ .*time=([\d.]+) ms", out)]
    if len(times) < count // 2:
        raise ResourceError(f"{guests.name}: ping: {err.strip() or f'{len(times)} of {count} answers'}")
    return times[1:]


# Datagrams as long as a frame may be, to an address on the wire, at a rate, until it is ended.
FLOOD = """
import socket, sys, time
bits, address = float(sys.argv[1]), (sys.argv[2], 9)
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
payload = bytes(1472)
every = 8 * 1514 / bits * 16
at = time.monotonic()
while True:
    for _ in range(16):
        try:
            out.sendto(payload, address)
        except OSError:
            pass
    at = max(at + every, time.monotonic() - every)
    time.sleep(max(0, at - time.monotonic()))
"""
LINE_OVERHEAD = 24  # bytes of the line that a frame takes beside its own: preamble, FCS, gap
SETTLED = (
    5000  # frames from each guest before anything is counted: more than its queues kept of the last flood
)
OFFERED = 2.0  # times the wire's rate, by all guests together


def flood_shares(lab: CdnaLab, seconds: float, line_rate: float) -> list[float]:
    """The part of the wire that each guest had while all of them flooded it."""
    sink, mac = lab.address(250), lab.mac(250)
    at_rest = lab.sent()
    with contextlib.ExitStack() as stack:
        for guest in range(1, lab.count + 1):
            neighbour = ["ip", "neigh", "replace", sink, "lladdr", mac, "dev", "eth0"]
            if lab.popen(guest, neighbour).wait() != 0:
                raise ResourceError(f"guest {guest}: {' '.join(neighbour)} failed")
        for guest in range(1, lab.count + 1):
            rate = OFFERED * line_rate / lab.count
            flood = lab.popen(guest, [sys.executable, "-I", "-S", "-c", FLOOD, f"{rate:.0f}", sink])
            stack.callback(flood.wait)
            stack.callback(flood.terminate)
        _wait_for(
            lambda: all(now[0] > then[0] + SETTLED for now, then in zip(lab.sent(), at_rest, strict=True))
        )
        first, before = time.monotonic(), lab.sent()
        time.sleep(seconds)
        span, after = time.monotonic() - first, lab.sent()
    return [
        8 * (b[1] - a[1] + LINE_OVERHEAD * (b[0] - a[0])) / span / line_rate
        for a, b in zip(before, after, strict=True)
    ]


@contextlib.contextmanager
def capturing(lab: CdnaLab, snaplen: int) -> Iterator[None]:
    """While all guests are captured to a file, `snaplen` bytes of each frame, 0: all of it."""
    with tempfile.TemporaryDirectory(prefix="cdna-bench-") as place:
        file = Path(place) / "all.pcapng"
        line = cdna("capture", "all", "-w", str(file), "-s", str(snaplen), "--socket", str(lab.socket))
        capture = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _wait_for(lambda: capture.poll() is not None or (file.exists() and file.stat().st_size > 0))
            yield
        finally:
            capture.terminate()
            _, said = capture.communicate()
        if capture.returncode != 0:
            raise ResourceError(said.strip() or "cdna capture ended")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise ResourceError("a guest does not send, or a capture does not begin")
        time.sleep(0.02)
