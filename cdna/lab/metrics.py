"""A lab's counters in the text format of Prometheus (exposition format 0.0.4).

    # HELP cdna_context_dropped_frames_total Frames dropped, by reason.
    # TYPE cdna_context_dropped_frames_total counter
    cdna_context_dropped_frames_total{context="web",direction="tx",reason="spoof"} 3

`tx` is what the guest sends, as everywhere. A counter starts anew with its context.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdna.base.shown import printable
from cdna.lab.kinds import KINDS
from cdna.nic.wires import named_wire

if TYPE_CHECKING:
    from cdna.lab.lab import Lab

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, object]

# Counters of a context by name: the metric without its prefix and suffix, and what it counts.
CONTEXT = {
    "tx_frames": ("tx_frames", "Frames that the guest has sent."),
    "tx_bytes": ("tx_bytes", "Bytes of the frames that the guest has sent, without the FCS."),
    "rx_frames": ("rx_frames", "Frames that the guest has received."),
    "rx_bytes": ("rx_bytes", "Bytes of the frames that the guest has received, without the FCS."),
    "tx_local": ("tx_local_frames", "Frames sent to other guests only, which never reached the wire."),
    "rx_own_source": (
        "rx_own_source_frames",
        "Frames from the wire with this guest's own source address: a duplicate, or a loop.",
    ),
    "interrupts": ("interrupts", "Virtual interrupts."),
    "doorbells": ("doorbells", "Doorbells that the guest has rung."),
    "faults": ("faults", "Times that the NIC has stopped the context."),
}
CORE = ("core_seconds", "Time of the NIC's core, in seconds, by what for.")
WORST_ROUND = ("worst_round_seconds", "Of the round of the engine that took most time.")
WORST_STANDSTILL = ("worst_standstill_seconds", "The longest time that the engine stood still for control.")
DROPPED = ("cdna_context_dropped_frames", "Frames dropped, by reason.")
NIC = {
    "rounds": "Rounds of the engine.",
    "frames": "Frames that the engine has moved.",
    "interrupts": "Physical interrupts.",
    "faults": "Contexts stopped.",
    "rx_drop_filter": "Frames of the wire for nobody.",
    "slow_signals": "Interrupts of virtio guests that took long, and that a second thread sent.",
    "rx_drop_invalid": "Frames of the wire that are none.",
}


@dataclass
class Family:
    """A metric: its samples, one a set of labels."""

    name: str
    kind: str  # counter, gauge
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"# HELP {self.name} {_help(self.help)}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{_labels(labels)} {_number(value)}" for labels, value in self.samples]
        return "".join(f"{line}\n" for line in lines)


class Metrics:
    """Collects samples; `text` has every metric once, with its samples together, as the format wants it."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def count(self, name: str, help: str, value: float, **labels: object) -> None:
        self._add(Family(f"{name}_total", "counter", help), value, labels)

    def gauge(self, name: str, help: str, value: float, **labels: object) -> None:
        self._add(Family(name, "gauge", help), value, labels)

    def _add(self, family: Family, value: float, labels: Labels) -> None:
        self._families.setdefault(family.name, family).samples.append((labels, value))

    def text(self) -> str:
        return "".join(family.text() for family in self._families.values())


def metrics_text(lab: Lab) -> str:
    """All metrics of a lab as they are now."""
    from cdna.version import __version__

    metrics = Metrics()
    metrics.gauge("cdna_build_info", "1, with the version as a label.", 1, version=__version__)
    metrics.count("process_cpu_seconds", "Processor time of the server, in seconds.", time.process_time())
    guests, counters = lab.snapshot()
    for guest in guests:
        _describe(metrics, guest)
    for guest in guests:
        _count(metrics, guest, counters[guest["guest"]])
    for name, times in lab.times().items():
        _count_time(metrics, "cdna_context", times, context=name)
    _count_time(metrics, "cdna_nic", lab.machine.nic.core_time)
    _count_wire(metrics, lab.wire())
    for name, value in lab.machine.nic.counters.items():
        if name in NIC:
            metrics.count(f"cdna_nic_{name}", NIC[name], value)
    return metrics.text()


def _describe(metrics: Metrics, guest: Mapping[str, Any]) -> None:
    name = guest["guest"]
    labels = {"index": guest["context"], "kind": guest["kind"], "mac": guest["mac"], "vlan": guest["vlan"]}
    metrics.gauge("cdna_context_info", "1, with what the context is as labels.", 1, context=name, **labels)
    gauges: list[tuple[str, str, float]] = [
        ("running", "Whether it is served: 1; 0: stopped by a fault.", guest["state"] == "running"),
        ("link_up", "Whether its cable is plugged in.", guest["link"] == "up"),
        ("weight", "Its share when contexts compete.", guest["weight"]),
        ("rate_limit_bits", "Bits a second that it may send; 0: no limit.", guest["rate"]),
    ]
    gauges += [(key, help, guest[key]) for key, help in KINDS[guest["kind"]].gauges.items()]
    for gauge, help, value in gauges:
        metrics.gauge(f"cdna_context_{gauge}", help, float(value), context=name)


def _count(metrics: Metrics, guest: Mapping[str, Any], counters: Mapping[str, int]) -> None:
    name, drops = guest["guest"], KINDS[guest["kind"]].drops
    for counter, value in counters.items():
        where, drop, reason = counter.partition("_drop_")
        if drop:
            where, reason = drops.get(counter, (where, reason))
            metrics.count(*DROPPED, value, context=name, direction=where, reason=reason)
        else:
            metric, help = CONTEXT.get(counter, (counter, f"Counter {counter} of the context."))
            metrics.count(f"cdna_context_{metric}", help, value, context=name)


def _count_time(metrics: Metrics, prefix: str, times: Mapping[str, int], **labels: object) -> None:
    """times: nanoseconds by what for; those of the worst round and standstill are no sums."""
    gauges = {"worst_round": WORST_ROUND, "worst_standstill": WORST_STANDSTILL}
    for activity, ns in times.items():
        name, help = gauges.get(activity, CORE)
        if activity in gauges:
            metrics.gauge(f"{prefix}_{name}", help, ns / 1e9, **labels)
        else:
            metrics.count(f"{prefix}_{name}", help, ns / 1e9, **labels, activity=activity)


def _count_wire(metrics: Metrics, wire: Mapping[str, Any]) -> None:
    labels, helps = {"wire": wire["wire"]}, named_wire(wire["wire"])[0].counters
    metrics.gauge("cdna_wire_link_up", "Whether the wire is plugged in.", wire["link"] == "up", **labels)
    for name, value in wire.items():
        if isinstance(value, int) and not isinstance(value, bool) and name not in NIC:
            help = helps.get(name, f"Counter {name} of the wire.")
            metrics.count(f"cdna_wire_{name}", help, value, **labels)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_value(str(value))}"' for name, value in labels.items()) + "}"


def _value(text: str) -> str:
    """A label's value. The format escapes three characters; readers show the others as they are."""
    text = "\n".join(map(printable, text.split("\n")))
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
