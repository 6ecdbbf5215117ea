"""Messages at random, most of them nearly right: no frontend brings the server down or leaves anything."""

import os
import random
import struct

import pytest

from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, Frontend
from cdna.protocol.vhost_user import VERSION, Request
from cdna.vmm.vhost_user.handlers import RULES
from tests.support.vhost_host import check_traffic, until

INTERESTING = (0, 1, 2, 7, 8, 15, 16, 63, 64, 256, 4095, 4096, 32768, 65535, 1 << 20, 8 << 20)
ADDRESSES = (
    1 << 32,
    (1 << 32) + 4096,
    0x7F00_0000_0000,
    0x7F00_0000_2000,
    1 << 63,
    (1 << 64) - 4096,
    (1 << 64) - 1,
)
TWO_WORDS = {
    Request.SET_VRING_NUM,
    Request.SET_VRING_BASE,
    Request.GET_VRING_BASE,
    Request.SET_VRING_ENABLE,
}


class Messages:
    """Requests with payloads of their sizes, mostly, and descriptors of some kind."""

    def __init__(self, seed, memory):
        self.random = random.Random(seed)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.fds = [memory.fd, self.event_fd]

    def payload(self, request):
        sizes = [size for size in range(300) if size in RULES[request].sizes]
        size = self.random.choice(sizes) if self.random.random() < 0.97 else self.random.randrange(300)
        if request in TWO_WORDS and size == 8:
            return struct.pack(
                "=II", self.random.choice((0, 0, 1, 1, 2, 15, 16)), self.random.choice(INTERESTING)
            )
        words = [self.random.choice(INTERESTING + ADDRESSES) for _ in range(size // 8 + 1)]
        if request == Request.SET_MEM_TABLE:
            words[0] = max(0, size - 8) // 32
        if request in (Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES):
            words[0] = self.random.choice((SPLIT, ALL_PACKED, 0x1FFFF & self.random.getrandbits(17), 0))
        return struct.pack(f"={len(words)}Q", *words)[:size]

    def send_one(self, frontend):
        request = self.random.choice(list(RULES))
        least, most = RULES[request].fds
        if request == Request.SET_MEM_TABLE:
            least = most = self.random.choice((1, 1, 2))
        count = self.random.randint(least, most) if self.random.random() < 0.97 else self.random.randint(0, 9)
        fds = [self.random.choice(self.fds) for _ in range(count)]
        flags = VERSION | self.random.choice((0, 8))
        frontend.send(request, self.payload(request), fds, flags)


@pytest.mark.parametrize("seed", range(8))
def test_the_server_survives(host, guest, seed):
    other = host.add("other", 11)
    neighbour = host.attach(other)
    memory = host.memory()
    messages = Messages(seed, memory)
    for _ in range(40):
        frontend = Frontend.connect(guest.path, memory)
        frontend.sock.settimeout(0)
        frontend.send(Request.GET_FEATURES)
        if messages.random.random() < 0.7:
            frontend.give_memory()
        for _ in range(messages.random.randint(1, 40)):
            messages.send_one(frontend)
        host.step(1)
        frontend.close()
    until(lambda: not guest.connected)
    os.close(messages.event_fd)
    assert [line for line in host.lines() if "mistake" in line or "not taken back" in line] == []
    check_traffic(host, other, neighbour)
    check_traffic(host, guest, host.attach(guest))
