"""A namespace whose packet sockets make each frame dear: it takes its frames slowly, and the others go on."""

import contextlib
import socket
import struct
from collections.abc import Iterator

from cdna.lab.lab import Lab
from cdna.lab.namespace import in_thread
from tests.lab.test_lab import plan, reaches, sock_in
from tests.support.lab import needs_namespaces, wait_for

ETH_P_ALL = 3  # linux/if_ether.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
DIVIDE, RETURN = 0x34, 0x06  # linux/bpf_common.h: BPF_ALU | BPF_DIV | BPF_K; BPF_RET | BPF_K
SOCKETS, INSTRUCTIONS = 100, 1800  # some 500 microseconds a frame

pytestmark = needs_namespaces


@contextlib.contextmanager
def long_filters(lab: Lab, guest: str) -> Iterator[None]:
    """Within it, packet sockets of a guest look at each frame for long, and take none."""
    from pyroute2.netns import setns

    code = struct.pack("HBBI", DIVIDE, 0, 0, 3) * INSTRUCTIONS + struct.pack("HBBI", RETURN, 0, 0, 0)
    with contextlib.ExitStack() as undo:
        program = undo.enter_context(contextlib.closing(_Buffer(code)))

        def make() -> None:
            setns(lab.member(guest).namespace.fd)
            for _ in range(SOCKETS):
                sock = undo.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                sock.setsockopt(
                    socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", INSTRUCTIONS + 1, program.address)
                )
                sock.bind(("eth0", ETH_P_ALL))

        in_thread(make)
        yield


class _Buffer:
    """Bytes with an address."""

    def __init__(self, data: bytes) -> None:
        import ctypes

        self._buffer = ctypes.create_string_buffer(data, len(data))
        self.address = ctypes.addressof(self._buffer)

    def close(self) -> None:
        del self._buffer


def port_stats(lab: Lab, guest: str) -> dict[str, int]:
    member = lab.member(guest)
    return member.pump.stats(member.port)


def test_others_reach_each_other_while_a_guest_is_slow() -> None:
    with Lab(plan(3)) as lab, long_filters(lab, "g3"), sock_in(lab, "g1") as sender:
        with sock_in(lab, "g3") as to:
            wait_for(lambda: sender.sendto(b"x", to.getsockname()) and port_stats(lab, "g3")["slow"] > 0)
            slow = port_stats(lab, "g3")["slow"]
            for _ in range(200):
                sender.sendto(b"x", to.getsockname())
            assert reaches(lab, "g1", "g2")
            assert reaches(lab, "g2", "g1", 6)
            wait_for(lambda: port_stats(lab, "g3")["slow"] > slow)
        assert lab.machine.nic.time(lab.member("g3").context.index)["receive"] > 0
        assert reaches(lab, "g1", "g3")
