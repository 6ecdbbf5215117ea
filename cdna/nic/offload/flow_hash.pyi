from enum import IntEnum

from typing_extensions import Buffer

class HashType(IntEnum):
    VIRTIO_NET_HASH_TYPE_IPv4 = 1
    VIRTIO_NET_HASH_TYPE_TCPv4 = 2
    VIRTIO_NET_HASH_TYPE_UDPv4 = 4
    VIRTIO_NET_HASH_TYPE_IPv6 = 8
    VIRTIO_NET_HASH_TYPE_TCPv6 = 16
    VIRTIO_NET_HASH_TYPE_UDPv6 = 32
    VIRTIO_NET_HASH_TYPE_IP_EX = 64
    VIRTIO_NET_HASH_TYPE_TCP_EX = 128
    VIRTIO_NET_HASH_TYPE_UDP_EX = 256

class HashReport(IntEnum):
    VIRTIO_NET_HASH_REPORT_NONE = 0
    VIRTIO_NET_HASH_REPORT_IPv4 = 1
    VIRTIO_NET_HASH_REPORT_TCPv4 = 2
    VIRTIO_NET_HASH_REPORT_UDPv4 = 3
    VIRTIO_NET_HASH_REPORT_IPv6 = 4
    VIRTIO_NET_HASH_REPORT_TCPv6 = 5
    VIRTIO_NET_HASH_REPORT_UDPv6 = 6
    VIRTIO_NET_HASH_REPORT_IPv6_EX = 7
    VIRTIO_NET_HASH_REPORT_TCPv6_EX = 8
    VIRTIO_NET_HASH_REPORT_UDPv6_EX = 9

def hash_frame(frame: Buffer) -> int: ...
def hash_frame_rss(frame: Buffer, key: Buffer, types: int) -> tuple[int, HashReport]: ...
