"""Steps of campaign "messages" from a seed: vhost-user messages of every kind, most of them nearly right."""

from __future__ import annotations

import struct
from random import Random

from cdna.fuzz.arguments import Step
from cdna.guest_driver.vhost_frontend import ALL_PACKED, LEGACY, SPLIT
from cdna.protocol.vhost_user import VERSION, Request
from cdna.vmm.vhost_user.handlers import RULES

MEMORY = 1 << 20  # bytes of a hostile frontend
GUEST = 1 << 32  # guest address of its memory
USER = 0x7F00_0000_0000  # and where its process has it
LENGTH = 60  # steps of a row, at most
NUMBERS = (0, 1, 2, 7, 8, 15, 16, 63, 64, 256, 4095, 4096, 32768, 65535, MEMORY, MEMORY + 4096, 8 << 20)
ADDRESSES = (
    GUEST,
    GUEST + 4096,
    GUEST + MEMORY - 1,
    USER,
    USER + 8192,
    1 << 63,
    (1 << 64) - 4096,
    (1 << 64) - 1,
)
TWO_WORDS = (Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.GET_VRING_BASE, Request.SET_VRING_ENABLE)
MACS = ("02ffffffff01", "ffffffffffff", "020000000002", "020000000003", "02cd0a000000")


def message_steps(random: Random) -> list[Step]:
    """A row: connections that are set up well or badly, and what is done with them."""
    steps: list[Step] = []
    while len(steps) < LENGTH and (not steps or random.random() < 0.8):
        steps.append(["connect", {}])
        if random.random() < 0.85:
            steps.append(["negotiate", {"features": random.choice((SPLIT, SPLIT, ALL_PACKED, LEGACY))}])
            if random.random() < 0.8:
                pairs = random.choice((1, 1, 1, 2))
                steps.append(["start", {"pairs": pairs, "size": random.choice((2, 16, 64))}])
        steps += [_step(random) for _ in range(random.randint(1, 25))]
    return steps


def _step(random: Random) -> Step:
    kind = random.choices(
        ("message", "frames", "chain", "garbage", "raw", "shrink_memory", "hang_up"), (50, 15, 20, 5, 1, 1, 1)
    )[0]
    if kind == "message":
        return _message(random)
    if kind == "frames":
        size = random.choice((14, 60, 1514))
        return [kind, {"count": random.randint(1, 16), "size": size, "to": random.choice(MACS)}]
    if kind == "chain":
        return [
            kind,
            {"queue": random.randrange(4), "rows": [_row(random) for _ in range(random.randint(1, 8))]},
        ]
    if kind == "garbage":
        offset = random.choice((0, 0, random.randrange(MEMORY))) & ~15
        size = random.choice((16, 256, 4096, MEMORY))
        return [kind, {"seed": random.getrandbits(32), "offset": offset, "size": size}]
    if kind == "raw":
        return [kind, {"data": random.randbytes(random.choice((1, 11, 12, 13, 200))).hex()}]
    if kind == "shrink_memory":
        return [kind, {"size": random.choice((0, 4096, MEMORY // 2, MEMORY - 4096))}]
    return [kind, {}]


def _row(random: Random) -> list[int]:
    """A descriptor of a split ring or of a packed one: address, length, flags, next."""
    address = random.choice((GUEST + random.randrange(MEMORY), GUEST + MEMORY - 60, *ADDRESSES))
    length = random.choice((60, 72, 1526, 12, 0, 16, 160, 65536, 0xFFFFFFFF, random.randrange(MEMORY)))
    flags = random.choice((0, 1, 1, 2, 3, 4, 5, 0x80, 0x81, 0x84, 0x8080, 0xFFFF))
    return [address, length, flags, random.choice((0, 1, 2, 3, 7, 65535))]


def _message(random: Random) -> Step:
    request = random.choice(list(RULES)) if random.random() < 0.97 else random.randrange(1 << 8)
    rule = RULES.get(request)
    least, most = rule.fds if rule else (0, 1)
    if request == Request.SET_MEM_TABLE:
        least = most = random.choice((1, 1, 2))
    count = random.randint(least, most) if random.random() < 0.97 else random.randint(0, 9)
    payload = _payload(random, request)
    return [
        "message",
        {
            "request": int(request),
            "payload": payload.hex(),
            "fds": "".join(random.choice("mmeefs") for _ in range(count)),
            "flags": VERSION | random.choice((0, 8)) if random.random() < 0.98 else random.getrandbits(32),
            "size": None if random.random() < 0.98 else random.choice(NUMBERS),
        },
    ]


def _payload(random: Random, request: int) -> bytes:
    rule = RULES.get(request)
    sizes = [size for size in range(300) if rule is None or size in rule.sizes]
    size = random.choice(sizes) if random.random() < 0.97 else random.randrange(300)
    if request in TWO_WORDS and size == 8:
        return struct.pack("=II", random.choice((0, 0, 1, 1, 2, 15, 16)), random.choice(NUMBERS))
    words = [random.choice(NUMBERS + ADDRESSES) for _ in range(size // 8 + 1)]
    if request == Request.SET_MEM_TABLE:
        words[0] = max(0, size - 8) // 32
    if request in (Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES):
        words[0] = random.choice((SPLIT, ALL_PACKED, 0x1FFFF & random.getrandbits(17), 0))
    return struct.pack(f"={len(words)}Q", *words)[:size]
