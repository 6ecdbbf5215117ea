"""A guest as a socket of scapy's: sendp, sr, sniff, answering machines, automata and bridges work on it.

    with ScapySocket(machine.attach("alice")) as alice:
        answer = alice.sr1(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.0.2"), timeout=1)

Any number of sockets share a guest, and each gets every frame. The machine may run; one of this process that
nobody runs is moved by sending, receiving and waiting, so that a test needs neither thread nor clock.
"""

from __future__ import annotations

import ctypes
import select as select_module
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scapy.config import conf
from scapy.data import ETH_P_ALL, MTU
from scapy.error import Scapy_Exception
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.packet import Packet, raw
from scapy.supersocket import SuperSocket
from scapy.utils import EDecimal

from cdna.guest_driver.remote import RemoteDriver
from cdna.guests.driver import Driver
from cdna.guests.scapy_neighbours import EVERYBODY, link_local, next_hop, resolve
from cdna.guests.shared_driver import SharedDriver

GLANCE = 0.1  # seconds between two looks at a socket that sleeps: it may have been closed meanwhile
STEP_EVERY = 0.01  # seconds, where the machine moves by looking: its wire may have received something
NS = 1_000_000_000
ETHERNET = 1  # libpcap's DLT_EN10MB

Guest = Driver | RemoteDriver | SharedDriver
Wants = Callable[[bytes], bool]


class ScapySocket(SuperSocket):  # type: ignore[misc]
    """A layer 2 socket of a guest, which goes on without it when it is closed.

    guest: a Driver or a RemoteDriver. ip: its IPv4 address, for packets that do not say their source.
    network: "10.0.0.0/24", whose broadcast address is known then. type: the one EtherType to receive.
    filter: in libpcap's language. outgoing: receives what the guest sends as well. Fields that a packet
    leaves open are filled in: the guest's own MAC and IP address as the source (IPv6: link-local), and the
    destination's MAC address, by ARP or neighbour discovery on the NIC, never on the host's network.

    `recv` never waits: None where there is no frame. EOFError: the context was revoked, or the socket closed.
    ContextFault: the NIC stopped the context. A frame that the guest may not send (spoofed, VLAN) is dropped
    by the NIC and counted in the context's `stats`. The frames' times are those at which they were taken from
    the ring, in nanoseconds.

    Errors: ConfigError: the context was revoked, or takes frames with offloads. Scapy_Exception: the filter.
    """

    desc = "a guest of a cdna NIC, at layer 2"
    nonblocking_socket = False
    outs = None  # of the base class; there is no socket below
    ins = None

    def __init__(
        self,
        guest: Guest,
        *,
        ip: str | None = None,
        network: str | None = None,
        type: int = ETH_P_ALL,
        filter: str | None = None,
        outgoing: bool = False,
    ) -> None:
        self.closed = True  # until there is something to close
        self.shared = guest if isinstance(guest, SharedDriver) else SharedDriver.of(guest)
        self.ip = ip
        self.network = network
        self.promisc = False  # what a context receives is its VMM's to say
        self._inbox = self.shared.open(_wanted(type, filter), outgoing=outgoing)
        self.closed = False

    # --- the guest ------------------------------------------------------------------------------------------

    @property
    def driver(self) -> Driver | RemoteDriver:
        return self.shared.driver

    @property
    def mac(self) -> str:
        return self.shared.mac

    @property
    def dropped(self) -> int:
        """Frames that this socket lost because it lagged behind other sockets of the same guest."""
        return self._inbox.dropped

    @property
    def l3(self) -> ScapyL3Socket:
        """A new layer 3 socket of the same guest."""
        return ScapyL3Socket(self.shared, ip=self.ip, network=self.network)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"context {self.driver.context.index}"
        return f"<{type(self).__name__} {state}{f', {self.ip}' if self.ip else ''}>"

    # --- frames ---------------------------------------------------------------------------------------------

    def send(self, x: Packet | bytes) -> int:
        """Sends a packet; waits where the ring is full. Returns bytes."""
        self._check_open()
        frame = raw(self._frame(x))
        if isinstance(x, Packet):
            x.sent_time = EDecimal(time.time_ns()) / NS
        self.shared.send(frame)
        return len(frame)

    def _frame(self, packet: Packet | bytes) -> Packet | bytes:
        return self._filled(packet, sending=True)

    def recv_raw(self, x: int = MTU) -> tuple[Any, bytes | None, EDecimal | None]:
        """The next frame as (class, bytes, time), or three times None where there is none."""
        self._check_open()
        taken = self._inbox.take()
        if taken is None:
            return None, None, None
        frame, now = taken
        return Ether, frame[:x], EDecimal(now) / NS

    def sr(self, packets: Any, *args: Any, **options: Any) -> Any:
        """As scapy's `sr` for an open socket: (answers, unanswered)."""
        return super().sr(self._prepared(packets), *args, **options)

    def sr1(self, packets: Any, *args: Any, **options: Any) -> Any:
        """As scapy's `sr1` for an open socket: the first answer, or None."""
        return super().sr1(self._prepared(packets), *args, **options)

    def _prepared(self, packets: Any) -> Any:
        """What an answer is compared with has to be known before it is sent."""
        if isinstance(packets, Packet):
            return self._filled(packets)
        if isinstance(packets, list | tuple):
            return [self._filled(packet) for packet in packets]
        return packets

    def _filled(self, packet: Any, sending: bool = False) -> Any:
        """The packet, or a copy with this guest's addresses where it leaves them open."""
        wanted = list(self._missing(packet, sending)) if isinstance(packet, Packet) else []
        if not wanted:
            return packet
        packet = packet.copy()
        for layer, field, value in wanted:
            setattr(packet[layer], field, value)
        return packet

    def _missing(self, packet: Packet, sending: bool) -> Iterable[tuple[Any, str, str]]:
        """The addresses to fill in. scapy would take the host's, and ask for MAC addresses in its network."""
        link, network = packet, packet if isinstance(packet, IP | IPv6) else packet.payload
        while isinstance(network, Dot1Q | LLC | SNAP):
            network = network.payload
        if isinstance(link, Ether | Dot3) and "src" not in link.fields:
            yield type(link), "src", self.mac
        if isinstance(network, ARP):
            if "hwsrc" not in network.fields:
                yield ARP, "hwsrc", self.mac
            if self.ip and "psrc" not in network.fields:
                yield ARP, "psrc", self.ip
        if self.ip and isinstance(network, IP) and "src" not in network.fields:
            yield IP, "src", self.ip
        if isinstance(network, IPv6) and "src" not in network.fields:
            yield IPv6, "src", link_local(self.mac)
        if isinstance(link, Ether | Dot3) and "dst" not in link.fields:
            mac = self._destination(network, sending)
            if mac is not None:
                yield type(link), "dst", mac

    def _destination(self, network: Packet, sending: bool) -> str | None:
        """The MAC address for a packet; None: of many destinations, each has its own."""
        if isinstance(network, ARP):
            return str(network.hwdst) if "hwdst" in network.fields else EVERYBODY
        if not isinstance(network, IP | IPv6):
            return EVERYBODY
        if isinstance(network.dst, str):
            return resolve(self, str(network.dst))
        return resolve(self, str(next(iter(network.dst)))) if sending else None

    # --- waiting --------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable when there may be a frame; -1 once the socket is closed."""
        if self.closed:
            return -1
        self.shared.listen()
        self._inbox.poll()  # so that it is readable if there is one already
        return self._inbox.fileno()

    @staticmethod
    def select(sockets: Sequence[Any], remain: float | None = conf.recv_poll_rate) -> list[Any]:
        """The sockets, of any kind, that can be read within `remain` seconds; None: without a limit."""
        deadline = None if remain is None else time.monotonic() + remain
        while True:
            ready = [s for s in sockets if isinstance(s, ScapySocket) and (s.closed or s._inbox.poll())]
            left = None if deadline is None else deadline - time.monotonic()
            ready += _poll(sockets, ready, left)
            if ready or (left is not None and left <= 0):
                return ready

    # --- the end --------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise EOFError("this socket was closed")

    def close(self) -> None:
        """Closes the socket; the guest goes on. Closing twice is harmless."""
        if self.closed:
            return
        self.closed = True
        self.shared.close(self._inbox)


class ScapyL3Socket(ScapySocket):
    """A layer 3 socket of a guest: sends IP and IPv6 packets, receives what frames carry.

    The destination's MAC address is found by ARP or neighbour discovery, through `gateway` for what is not in
    the `network` ("10.0.0.0/24"; None: everything is near). A packet whose destination nobody answers for is
    not sent: Scapy_Exception.
    """

    desc = "a guest of a cdna NIC, at layer 3"

    def __init__(
        self, guest: Guest, *, network: str | None = None, gateway: str | None = None, **options: Any
    ) -> None:
        super().__init__(guest, network=network, **options)
        self.gateway = gateway

    def _frame(self, packet: Packet | bytes) -> Packet:
        packet = self._filled(packet, sending=True)
        if not isinstance(packet, IP | IPv6):
            raise ValueError(f"{type(packet).__name__}: give an IP or IPv6 packet, or send it at layer 2")
        hop = next_hop(str(packet.dst), self.network, self.gateway)
        return Ether(src=self.mac, dst=resolve(self, hop)) / packet

    def recv(self, x: int = MTU, **options: Any) -> Packet | None:
        frame = super().recv(x, **options)
        if frame is None:
            return None
        packet = frame.payload
        packet.time = frame.time
        return packet


def _poll(sockets: Sequence[Any], ready: list[Any], left: float | None) -> list[Any]:
    """The sockets of other kinds that are readable; sleeps until one is, or one of ours may be."""
    poller = select_module.poll()
    others = {}
    longest = 0.0 if ready else GLANCE
    for sock in sockets:
        ours = isinstance(sock, ScapySocket)
        if ours and sock.shared.stepped:
            longest = min(longest, STEP_EVERY)
        fd = sock._inbox.fileno() if ours and not sock.closed else -1 if ours else sock.fileno()
        if fd >= 0:
            poller.register(fd, select_module.POLLIN)
            if not ours:
                others[fd] = sock
    timeout = longest if left is None else max(0.0, min(longest, left))
    return [others[fd] for fd, _ in poller.poll(timeout * 1000) if fd in others]


def _wanted(ether_type: int, filter: str | None) -> Wants | None:
    """What says of a frame whether a socket wants it; None: it wants all."""
    tests: list[Wants] = []
    if ether_type != ETH_P_ALL:
        wanted = ether_type.to_bytes(2, "big")
        tests.append(lambda frame: frame[12:14] == wanted)
    if filter:
        tests.append(_compiled(filter))
    if not tests:
        return None
    return lambda frame: all(test(frame) for test in tests)


def _compiled(filter: str) -> Wants:
    from scapy.arch.common import compile_filter

    try:
        from scapy.libs import winpcapy as pcap  # its name; it is libpcap's

        program = compile_filter(filter, linktype=ETHERNET)
    except (ImportError, OSError, Scapy_Exception) as error:
        raise Scapy_Exception(f"cannot set the filter {filter!r}: {error}") from None
    matches = pcap._lib.pcap_offline_filter

    def wants(frame: bytes) -> bool:
        header = pcap.pcap_pkthdr(pcap.timeval(0, 0), len(frame), len(frame))
        return bool(matches(ctypes.byref(program), ctypes.byref(header), frame))

    return wants
