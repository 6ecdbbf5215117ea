"""Namespace guests on CDNA beside a kernel bridge, in one run.

    python benchmarks/namespaces.py [--seconds S] [--rounds N] [--only LOAD,...] [--json FILE]

tcp        iperf3 between two guests, Gb/s of payload
udp        iperf3 between two guests, frames of 64 bytes (without the FCS), datagrams that arrive
ping       round-trip times at 1000 and at 10 a second, the median and the 99th percentile
fairness   eight guests flood a wire of 500 Mb/s, one is held to a tenth of it
capture    tcp with a capture of both guests to a file, whole frames and headers, over tcp without

Contenders take turns, so that what disturbs one disturbs all; a ratio is the median over rounds, with the
quartiles. Needs root, iperf3, ping and nsenter.
"""

from __future__ import annotations

import contextlib
import sys

from netlab.contenders import CdnaLab, Guests, TapBridge, VethBridge
from netlab.loads import capturing, flood_shares, iperf3_server, need, ping_us, tcp_gbps, udp_kpps
from netlab.program import compare, parse_turns, turns_parser
from netlab.tables import judged
from netlab.turns import Figure, Load, Loads, figures, percentile, ratio, take_turns

from cdna.report.summary import spread

LOADS = ("tcp", "udp", "ping", "fairness", "capture")
LINE_RATE = 500e6  # bits a second, of the wire that is flooded
FLOODERS = 8
HELD_TO = 0.1  # of the wire, one of them
HEADERS = 128  # bytes of a frame, for who looks at headers


def main() -> int:
    given = parse_turns(turns_parser(__doc__, LOADS, seconds=2.0, rounds=5), LOADS)
    return compare(given, run(given.only, given.seconds, given.rounds))


def run(wanted: list[str], seconds: float, rounds: int) -> Loads:
    """The loads, one after the other, each as soon as it is measured."""
    need("iperf3", "ping", "nsenter")
    with contextlib.ExitStack() as stack:
        if {"tcp", "udp", "ping"} & set(wanted):
            guests = [stack.enter_context(kind(2)) for kind in (CdnaLab, VethBridge, TapBridge)]
            for one in guests:
                stack.enter_context(iperf3_server(one))
            contenders = {one.name: one for one in guests}
            if "tcp" in wanted:
                yield tcp(contenders, seconds, rounds)
            if "udp" in wanted:
                yield udp(contenders, seconds, rounds)
            if "ping" in wanted:
                yield from ping(contenders, seconds, rounds)
    if "fairness" in wanted:
        yield fairness(seconds, rounds)
    if "capture" in wanted:
        yield capture(seconds, rounds)


def tcp(contenders: dict[str, Guests], seconds: float, rounds: int) -> Load:
    found = take_turns(contenders, rounds, lambda guests: tcp_gbps(guests, seconds))
    load = Load("tcp", "TCP between two guests", "Gb/s", figures(found))
    return judged(load, wanted="at least 1.0")


def udp(contenders: dict[str, Guests], seconds: float, rounds: int) -> Load:
    found = take_turns(contenders, rounds, lambda guests: udp_kpps(guests, seconds))
    load = Load("udp", "UDP, frames of 64 B", "kpps", figures(found))
    return judged(load, TapBridge.name, wanted="at least 2.0")


def ping(contenders: dict[str, Guests], seconds: float, rounds: int) -> Loads:
    for interval in (0.001, 0.1):
        times = take_turns(contenders, rounds, lambda guests, every=interval: ping_us(guests, seconds, every))
        for percent in (50, 99):
            found = {name: [percentile(turn, percent) for turn in turns] for name, turns in times.items()}
            name = f"ping, {1 / interval:.0f} a second, {percent}th percentile"
            load = Load("ping", name, "us", figures(found))
            yield judged(load, wanted="at most 1.0" if percent == 99 else "", least=True)


def fairness(seconds: float, rounds: int) -> Load:
    """Shares of the wire in per cent. The first guest is held to its rate."""
    held = {"rate": f"{LINE_RATE * HELD_TO / 1e6:.0f}M"}
    with CdnaLab(FLOODERS, f"null:rate={LINE_RATE / 1e6:.0f}M", [held]) as lab:
        turns = [flood_shares(lab, seconds, LINE_RATE) for _ in range(rounds)]
    shares = [
        Figure(f"guest {guest}", [100 * turn[guest - 1] for turn in turns])
        for guest in range(1, FLOODERS + 1)
    ]
    others = [share.median for share in shares[1:]]
    full = sum(share.median for share in shares)
    apart = 100 * (max(others) / min(others) - 1) if min(others) else float("inf")
    return Load(
        "fairness",
        f"{FLOODERS} guests flood {LINE_RATE / 1e6:g} Mb/s, guest 1 is held to {HELD_TO:.0%}",
        "% of the wire",
        shares,
        said=(
            f"Guest 1 has {shares[0].median:.2f}% (wanted: 9 to 11); the other seven are {apart:.1f}% apart "
            f"(wanted: at most 5). The wire is {full:.0f}% full."
        ),
    )


def capture(seconds: float, rounds: int) -> Load:
    """Each frame is captured twice: as one guest sends it and as the other receives it."""
    bare, headers, whole = "not captured", f"first {HEADERS} bytes captured", "captured whole"
    kept = {headers: HEADERS, whole: 0, bare: None}

    def measure(guests: Guests, snaplen: int | None) -> float:
        with contextlib.nullcontext() if snaplen is None else capturing(guests, snaplen):
            return tcp_gbps(guests, seconds)

    with CdnaLab(2) as lab, iperf3_server(lab):
        found = take_turns(kept, rounds, lambda snaplen: measure(lab, snaplen))
    load = Load("capture", "TCP while both guests are captured", "Gb/s", figures(found))
    over = {name: ratio(found[name], found[bare]) for name in (headers, whole)}
    load.said = "".join(f"{name.capitalize()}: {spread(over[name], '-')} of it. " for name in over)
    load.said += "(wanted: at least 0.8)"
    return load


if __name__ == "__main__":
    sys.exit(main())
