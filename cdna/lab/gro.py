"""Whether a guest's device takes UDP datagrams that are joined, as `ethtool -K` inside the guest has it.

Two switches of the kernel's own say so: rx-gro, received packets may be joined, and rx-udp-gro-forwarding,
UDP datagrams among them, also where no socket has asked for it. The latter is off in every new device.
"""

from __future__ import annotations

import ctypes
import socket

from cdna.errors import ResourceError

GRO, JOINS_UDP = "rx-gro", "rx-udp-gro-forwarding"  # net/ethtool/common.c

_names: list[str] = []  # of all switches, in the kernel's order, which is the same for every device


class GroSwitch:
    """The switch of `device`, in the network namespace of the thread that makes this object.

    Any thread may use it later.
    """

    def __init__(self, device: str) -> None:
        from pyroute2.ethtool import ioctl  # takes a while to import

        self._device = device
        # Its constructor would open a socket of IPv4, which a sandboxed server must not.
        self._ethtool = ioctl.IoctlEthtool.__new__(ioctl.IoctlEthtool)
        self._ethtool.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ethtool.change_ifname(device)
        try:
            if not _names:
                _names.extend(self._ethtool.get_stringset())
            self._bits = [divmod(_names.index(name), 32) for name in (GRO, JOINS_UDP) if name in _names]
        except OSError as error:
            self.close()
            raise ResourceError(f"{device}: its features: {error.strerror}") from None
        size = ioctl.feature_bits_to_blocks(len(_names))
        self._values = ioctl.EthtoolGfeatures(cmd=ioctl.ETHTOOL_GFEATURES, size=size)
        self._request = ctypes.pointer(self._values)
        self._errors = (OSError, ioctl.EthtoolError)
        self._list = ioctl.EthtoolFeaturesList

    def joins_udp(self) -> bool:
        """Whether datagrams may be joined. Not, where the guest has removed or renamed its device."""
        try:
            self._read()
        except self._errors:
            return False
        words = self._values.features
        return len(self._bits) == 2 and all(words[word].active >> bit & 1 for word, bit in self._bits)

    def set_joins_udp(self, on: bool) -> None:
        """Has datagrams joined from now on, or not. ResourceError: the device does not have it."""
        try:
            self._read()
            features = self._list(self._values, _names)
            features[JOINS_UDP] = on
            if on:
                features[GRO] = True
            self._ethtool.set_features(features)
        except (*self._errors, KeyError):
            state = "on" if on else "off"
            reason = "the device is gone, or its kernel does not have it (Linux 5.12)"
            raise ResourceError(f"{self._device} with gro {state}: {reason}") from None

    def _read(self) -> None:
        self._ethtool.ifreq.gfeatures = self._request
        self._ethtool.ioctl()

    def close(self) -> None:
        self._ethtool.close()
