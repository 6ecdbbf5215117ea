"""Whether this process may have packet sockets with mapped rings (`cdna.extend.trial`)."""

import socket

from cdna.extend.trial import step

SOL_PACKET, PACKET_VERSION, PACKET_VNET_HDR, TPACKET_V2 = 263, 10, 15, 1  # linux/if_packet.h


def af_packet() -> None:
    with step("opening AF_PACKET"):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with step("asking for mapped rings"), sock:
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
