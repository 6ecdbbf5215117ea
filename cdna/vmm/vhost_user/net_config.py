"""The configuration space of a network device, struct virtio_net_config (virtio 1.2, 5.1.4), little-endian.

 0     6        8       10    12      16       17        18          20           24
+-----+--------+-------+-----+-------+--------+---------+-----------+------------+
| mac | status | pairs | mtu | speed | duplex | RSS key | RSS table | hash types |
+-----+--------+-------+-----+-------+--------+---------+-----------+------------+

Of RSS there is the most that can be: bytes, entries, types.
"""

from __future__ import annotations

import struct

from cdna.protocol.vhost_user import MAX_CONFIG
from cdna.vmm.vhost_user.net_control import RSS_HASH_TYPES, RSS_KEY, RSS_TABLE

_LAYOUT = struct.Struct("<6sHHHIBBHI")
MAC_BYTES = 6
VIRTIO_NET_S_LINK_UP = 1
VIRTIO_NET_S_ANNOUNCE = 2  # the guest is to say where it is
SPEED_UNKNOWN = 0xFFFFFFFF
DUPLEX_UNKNOWN = 0xFF


def net_config(mac: bytes, up: bool, announce: bool, pairs: int, mtu: int) -> bytes:
    """The whole configuration space; what lies behind the fields is zero."""
    status = (VIRTIO_NET_S_LINK_UP if up else 0) | (VIRTIO_NET_S_ANNOUNCE if announce else 0)
    rss = (RSS_KEY, RSS_TABLE, RSS_HASH_TYPES)
    fields = _LAYOUT.pack(mac, status, pairs, mtu, SPEED_UNKNOWN, DUPLEX_UNKNOWN, *rss)
    return fields.ljust(MAX_CONFIG, b"\0")
