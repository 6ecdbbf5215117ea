"""What has to become of each frame of the corpus, on every path, and why.

The tables name every frame that does not arrive as it was sent, and the counter that says so. What is in no
table arrives, and moves no counter of a drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import cdna
from tests.captures.corpus import ALICE, BOB, load
from tests.support.namespace import until

FRAMES = load()
VLANS = [0, 7, "trunk"]
Vlan = int | str
MARK = bytes.fromhex((BOB + ALICE).replace(":", "")) + b"\x88\xb6" + bytes(46)  # comes behind another frame

# --- the reasons ------------------------------------------------------------------------------------------

SPOOFED, TAGGED = "tx_drop_spoof", "tx_drop_vlan"
FILTERED = "nic rx_drop_filter"  # of the NIC, not of a context: a frame from the wire for nobody
INVALID = "nic rx_drop_invalid"  # or none at all
ELSEWHERE = ""  # a frame that no other guest of its VLAN is to see: it went to the wire; nothing is counted
PROVIDERS = 0x1000  # VLANs of another space of numbers, which access contexts have no part in (IEEE 802.1ad)
KERNEL = ""  # the kernel at the other end has dropped it

# Frames with a tag: their VLAN, and why a context that is not a trunk may not send them. A frame whose tag
# says VLAN 0 is of the sender's, unless another tag is behind that one.
TAGS: dict[str, tuple[int, str | None, str | None]] = {
    #                               VLAN   sent by an untagged, by an access context
    "vlan 7": (7, TAGGED, TAGGED),
    "vlan 7 priority 5": (7, TAGGED, TAGGED),
    "vlan 7 broadcast": (7, TAGGED, TAGGED),
    "vlan 7 of 18 bytes": (7, TAGGED, TAGGED),
    "vlan 7 jumbo": (7, TAGGED, TAGGED),
    "vlan 1": (1, TAGGED, TAGGED),
    "vlan 4094": (4094, TAGGED, TAGGED),
    "vlan 4095": (4095, TAGGED, TAGGED),
    "priority tag": (0, None, None),
    "qinq": (PROVIDERS + 100, TAGGED, TAGGED),
    "qinq outer 7": (PROVIDERS + 7, TAGGED, TAGGED),
    "two tags of 802.1Q": (7, TAGGED, TAGGED),
    "priority tag before a tag": (0, TAGGED, TAGGED),
}

# Nobody may send these, and none is taken from a wire: the tag is not whole.
HALF_TAGS = ("tag cut short", "tag without anything")

# It speaks for the link, which is not a guest's alone. From a wire it is taken, as any frame of a group.
PAUSE = "pause"

# With the tag of an access context this is longer than any frame that is taken from a wire, or from a file.
TOO_LONG_WITH_A_TAG = "9018 bytes"

# The kernel receives no tagged frame without two bytes behind the EtherType (skb_vlan_untag).
KERNEL_LOSES: dict[Vlan, tuple[str, ...]] = {
    0: (),
    7: ("14 bytes", "15 bytes"),
    "trunk": ("vlan 7 of 18 bytes",),
}
KERNEL_RECEIVES_NONE = ("vlan 7 of 18 bytes", *HALF_TAGS)


def vlan_of(name: str, sender: Vlan) -> int:
    """The VLAN that a frame belongs to, sent by a context of VLAN `sender`."""
    if TAGS.get(name, (0,))[0]:
        return TAGS[name][0]
    return sender if isinstance(sender, int) else 0


def sending_drop(name: str, sender: Vlan) -> str | None:
    """Why a context may not send a frame."""
    if name == PAUSE:
        return SPOOFED
    if name in HALF_TAGS:
        return TAGGED
    if name in TAGS and sender != "trunk":
        return TAGS[name][1 if sender == 0 else 2]
    return None


def admits(receiver: Vlan, vlan: int) -> bool:
    return receiver in ("trunk", vlan)


def tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


def on_the_wire(name: str, frame: bytes, sender: Vlan) -> bytes:
    """A frame as it leaves the NIC: with the tag of an access context, or its VLAN in the frame's own."""
    if not isinstance(sender, int) or not sender:
        return frame
    if name in TAGS:
        priority = int.from_bytes(frame[14:16], "big") & 0xF000
        return frame[:14] + (priority | sender).to_bytes(2, "big") + frame[16:]
    return tagged(frame, sender)


def as_received(name: str, frame: bytes, sender: Vlan, receiver: Vlan) -> bytes:
    """A frame as a context gets it: an access context without the tag, a trunk with it."""
    vlan = vlan_of(name, sender)
    if receiver == "trunk":
        return on_the_wire(name, frame, sender)
    return frame[:12] + frame[16:] if vlan and name in TAGS else frame


# --- what was counted -------------------------------------------------------------------------------------


class Counters:
    """What was dropped since the last look, by the name of the counter."""

    def __init__(self, machine: cdna.Machine, *contexts: Any) -> None:
        self.machine = machine
        self.contexts = contexts
        self.before = self._now()

    def _now(self) -> Counter[str]:
        now: Counter[str] = Counter()
        for context in self.contexts:
            for name, value in context.stats().items():
                if "_drop_" in name or name == "faults":
                    now[name] += value
        for name in (FILTERED, INVALID):
            now[name] = self.machine.nic.counters[name.removeprefix("nic ")]
        for name, value in self.machine.wire.stats().items():
            if "lost" in name or "drop" in name or "oversize" in name:
                now[f"wire {name}"] += value
        return now

    def new(self) -> dict[str, int]:
        now = self._now()
        new, self.before = now - self.before, now
        return dict(new)


def check(
    name: str, got: list[bytes], drops: dict[str, int], expected: bytes | None, why: str | None
) -> None:
    if why is None:
        assert (got, drops) == ([expected], {}), name
    else:
        assert (got, drops) == ([], {why: 1} if why else {}), name


# --- the wires --------------------------------------------------------------------------------------------


def to_a_wire(
    machine: cdna.Machine, sender: Vlan, take: Callable[[], list[bytes]], lost: tuple[str, ...] = ()
) -> None:
    """Alice sends everything to the wire; `take` says what came out. lost: what a kernel drops there."""
    alice = machine.attach("alice", mac=ALICE, vlan=sender)
    counters = Counters(machine, alice.context)
    for name, frame in FRAMES.items():
        assert alice.send([frame]) == 1
        while machine.step(2):
            pass
        why = KERNEL if name in lost else sending_drop(name, sender)
        check(name, take(), counters.new(), on_the_wire(name, frame, sender), why)


def from_a_wire(
    machine: cdna.Machine,
    receiver: Vlan,
    give: Callable[[bytes], None],
    mark: bytes | None = None,
    lost: tuple[str, ...] = (),
) -> None:
    """`give` puts everything on the wire; Bob receives it. `mark`: comes behind each frame, for Bob.

    lost: frames that a kernel on the way drops.
    """
    bob = machine.attach("bob", mac=BOB, vlan=receiver, all_multicast=True)
    counters = Counters(machine, bob.context)
    for name, frame in FRAMES.items():
        why = None if admits(receiver, vlan_of(name, 0)) else FILTERED
        if name in HALF_TAGS:
            why = INVALID
        if name in lost:
            why = KERNEL
        got: list[bytes] = []
        give(frame)
        if mark is not None:
            give(mark)

        def arrived(got: list[bytes] = got) -> bool:
            machine.step(2)
            got += [f for f in bob.recv() if f[6:12] == MARK[6:12]]  # the kernel sends some of its own
            return mark is None or got[-1:] == [mark]

        until(arrived)
        if mark is not None:
            got.pop()
        check(name, got, counters.new(), as_received(name, frame, 0, receiver), why)
