"""What a guest's driver may ask of its device over the control queue (virtio 1.2, 5.1.6.5).

A guest chooses what it receives within what its operator lets the context receive:

    promiscuous          where the operator has it on; other unicast addresses also where anti-spoof is off
    another address      where the operator has anti-spoof off, and nobody else of its VLAN has the address
    a VLAN               where the context is a trunk, which gets every tag; untagged frames are no VLAN
    multicast            any, of its own VLAN: filters, and all of it beyond so many
    queues, RSS          of the pairs that it has
    offloads             of those that it accepted as features

What breaks this, or is not known, or belongs to a feature that was not negotiated, is answered with
VIRTIO_NET_ERR, and nothing has changed. What the guest has chosen holds until its driver begins anew or its
frontend goes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from cdna import logs
from cdna.base.units import VLAN_TRUNK, parse_mac
from cdna.control_checks import Control, broken
from cdna.errors import CdnaError
from cdna.nic.offload.flow_hash import HashType
from cdna.nic.options import MAX_MULTICAST
from cdna.virtio import Feature

if TYPE_CHECKING:
    from cdna.nic.virtio.device import VirtioDevice
    from cdna.vmm.domain import Context

log = logs.logger("cdna.vhost_user")

VIRTIO_NET_OK = 0
VIRTIO_NET_ERR = 1

RSS_KEY = 40  # bytes, at most
RSS_TABLE = 128  # entries, at most
RSS_HASH_TYPES = sum(HashType)
VLANS = 4095  # numbers, of which the last is reserved (IEEE 802.1Q)

_MAC = 6  # bytes
_COUNT = struct.Struct("<I")
_U16 = struct.Struct("<H")
_U64 = struct.Struct("<Q")
_RSS_HEAD = struct.Struct("<IHH")  # hash types, table's mask, unclassified queue; then the table
_RSS_TAIL = struct.Struct("<HB")  # transmit queues, length of the key; then the key


class NetCtrl(Enum):
    """(class, command); VIRTIO_NET_CTRL_ stands before each name."""

    RX_PROMISC = (0, 0)
    RX_ALLMULTI = (0, 1)
    RX_ALLUNI = (0, 2)
    RX_NOMULTI = (0, 3)
    RX_NOUNI = (0, 4)
    RX_NOBCAST = (0, 5)
    MAC_TABLE_SET = (1, 0)
    MAC_ADDR_SET = (1, 1)
    VLAN_ADD = (2, 0)
    VLAN_DEL = (2, 1)
    ANNOUNCE_ACK = (3, 0)
    MQ_VQ_PAIRS_SET = (4, 0)
    MQ_RSS_CONFIG = (4, 1)
    MQ_HASH_CONFIG = (4, 2)
    GUEST_OFFLOADS_SET = (5, 0)


class Declined(Exception):
    """A command that is not carried out; the text says why."""


class Rule(NamedTuple):
    """What carries a command out, and the feature that it belongs to."""

    carry_out: Callable[[NetControl, bytes], None]
    needs: Feature


class NetControl:
    """The choices of one guest's driver. None: it has not chosen."""

    def __init__(self, context: Context, device: VirtioDevice) -> None:
        self.context = context
        self.device = device
        self.announcing = False  # the guest is asked to say where it is (VIRTIO_NET_S_ANNOUNCE)
        self.commands = 0
        self.refused = 0
        self._clear()

    def _clear(self) -> None:
        self.promiscuous: bool | None = None
        self.all_multicast: bool | None = None
        self.multicast: list[bytes] | None = None
        self.unicast = False  # addresses beside its own
        self.mac: bytes | None = None
        self.pairs = 1  # a driver begins with the first one (5.1.6.5.5)
        self.rss: tuple[int, bytes, list[int], int] | None = None
        self.offloads: int | None = None
        self.announcing = False

    def has(self, feature: Feature) -> bool:
        return bool(self.device.features >> feature & 1)

    # --- the driver comes and goes ------------------------------------------------------------------------

    def begin(self, fresh: bool) -> None:
        """The control queue starts, with a driver that begins or goes on with what it has chosen."""
        if fresh:
            self._clear()
        vmm = self.context.vmm
        with vmm.contexts_locked(), vmm.nic.quiesced(self.context.index):
            self._filter()
            self._steer()
            self.take_offloads()

    def end(self) -> None:
        """Its frontend has gone, and the device was reset: the context is as its operator has it."""
        self._clear()
        try:
            self._filter()
        except CdnaError as error:  # somebody else has the address meanwhile
            log.warning("guest %r: %s", self.context.guest.name, error)

    # --- one command --------------------------------------------------------------------------------------

    def handle(self, command: bytes) -> int:
        """Carries a command out. Returns the byte that answers it."""
        self.commands += 1
        name = "a command too long"
        try:
            if command:
                name = f"class {command[0]}, command {command[1]}"
                name = self._carry_out(command)
        except (Declined, CdnaError) as error:
            name = f"{name}: {error}"
        else:
            if command:
                return VIRTIO_NET_OK
        self.refused += 1
        log.warning("guest %r: control queue: %s", self.context.guest.name, name)
        return VIRTIO_NET_ERR

    def _carry_out(self, command: bytes) -> str:
        try:
            known = NetCtrl((command[0], command[1]))
        except ValueError:
            raise Declined("not known") from None
        rule = RULES.get(known)
        if rule is None:
            raise Declined(f"{known.name} is not offered")
        if broken(Control.CHECK_COMMAND_ACCEPTED, not self.has(rule.needs)):
            raise Declined(f"{known.name} without {rule.needs.name}")
        try:
            rule.carry_out(self, command[2:])
        except (Declined, CdnaError) as error:
            raise Declined(f"{known.name}: {error}") from None
        return known.name

    # --- what is received ---------------------------------------------------------------------------------

    def rx_promisc(self, data: bytes) -> None:
        on = _switch(data)
        if broken(Control.CHECK_PROMISCUOUS, on and not self.context.options["promiscuous"]):
            raise Declined("this context is not to be promiscuous")
        self._choose(promiscuous=on)

    def rx_allmulti(self, data: bytes) -> None:
        self._choose(all_multicast=_switch(data))

    def mac_table_set(self, data: bytes) -> None:
        unicast, rest = _table(data)
        multicast, rest = _table(rest)
        if broken(Control.CHECK_TABLE_END, rest):
            raise Declined(f"{len(rest)} bytes behind the tables")
        groups = any(address[0] & 1 for address in unicast)
        if broken(Control.CHECK_TABLE_KIND, groups or not all(address[0] & 1 for address in multicast)):
            raise Declined("an address in the wrong table")
        others = any(address != self._address() for address in unicast)
        options = self.context.options
        # Where it may send with other addresses, those are learned (`ext/cdna/nic/learn.pxd`).
        narrow = options["anti_spoof"] and not options["promiscuous"]
        if broken(Control.CHECK_TABLE_OTHERS, others and narrow):
            raise Declined("unicast addresses beside its own, and this context is not to be promiscuous")
        self._choose(unicast=others, multicast=multicast)

    def mac_addr_set(self, data: bytes) -> None:
        mac = _sized(data, _MAC)
        vmm = self.context.vmm
        with vmm.contexts_locked():  # no other context comes meanwhile
            if mac != self._address():
                if broken(Control.CHECK_ADDRESS_OWN, self.context.options["anti_spoof"]):
                    raise Declined(f"{mac.hex(':')}, and this context is to keep its address")
                taken = vmm.nic.mac_taken(mac, self.context.options["vlan"])
                if broken(Control.CHECK_ADDRESS_TAKEN, taken):
                    raise Declined(f"{mac.hex(':')} is taken")
            moved = mac != self._address()
            self._choose(mac=mac)
            if moved:
                self.device.announce(mac)

    def _choose(self, **chosen: Any) -> None:
        """Filters by what was chosen, or as before where that cannot be."""
        before = {name: getattr(self, name) for name in chosen}
        vars(self).update(chosen)
        try:
            self._filter()
        except CdnaError:
            vars(self).update(before)
            raise

    def _address(self) -> bytes:
        return parse_mac(self.context.mac)

    def _filter(self) -> None:
        granted = self.context.options
        options = {name: granted[name] for name in ("promiscuous", "all_multicast", "multicast")}
        if self.promiscuous is not None:
            options["promiscuous"] = granted["promiscuous"] and (self.promiscuous or self.unicast)
        if self.all_multicast is not None or self.multicast is not None:
            filters = list(dict.fromkeys(self.multicast or ()))
            many = len(filters) > MAX_MULTICAST
            options["all_multicast"] = bool(self.all_multicast) or many
            options["multicast"] = [] if many else filters
        mac = granted["mac"] if self.mac is None or granted["anti_spoof"] else self.mac
        if mac != self._address():
            options["mac"] = mac
        self.context.adopt(options)

    def vlan_add(self, data: bytes) -> None:
        vlan = _vlan(data)
        if broken(Control.CHECK_VLAN_TRUNK, vlan and self.context.options["vlan"] != VLAN_TRUNK):
            raise Declined(f"VLAN {vlan}, and this context is no trunk")

    def vlan_del(self, data: bytes) -> None:
        """A trunk gets every tag, asked for or not; filtering is best effort (5.1.6.5.3)."""
        _vlan(data)

    # --- announcements ------------------------------------------------------------------------------------

    def announce_ack(self, data: bytes) -> None:
        _sized(data, 0)
        self.announcing = False

    # --- queues -------------------------------------------------------------------------------------------

    def mq_vq_pairs_set(self, data: bytes) -> None:
        (pairs,) = _U16.unpack(_sized(data, _U16.size))
        if broken(Control.CHECK_PAIRS, not 1 <= pairs <= self.device.pairs):
            raise Declined(f"{pairs} pairs, and this device has {self.device.pairs}")
        self.pairs, self.rss = pairs, None
        self._steer()

    def mq_rss_config(self, data: bytes) -> None:
        if broken(Control.CHECK_RSS_HEAD, len(data) < _RSS_HEAD.size):
            raise Declined(f"{len(data)} bytes")
        types, last, unclassified = _RSS_HEAD.unpack_from(data)
        if broken(Control.CHECK_RSS_TYPES, types & ~RSS_HASH_TYPES):
            raise Declined(f"hash types {types:#x}, of which some are not supported")
        if broken(Control.CHECK_RSS_ENTRIES, last >= RSS_TABLE or last & (last + 1)):
            raise Declined(f"a table of {last + 1} entries: give a power of two, up to {RSS_TABLE}")
        tail = _RSS_HEAD.size + _U16.size * (last + 1)
        if broken(Control.CHECK_RSS_TAIL, len(data) < tail + _RSS_TAIL.size):
            raise Declined(f"{len(data)} bytes")
        table = [queue for (queue,) in _U16.iter_unpack(data[_RSS_HEAD.size : tail])]
        transmit, length = _RSS_TAIL.unpack_from(data, tail)
        key = _sized(data[tail + _RSS_TAIL.size :], length)
        if broken(Control.CHECK_RSS_KEY_BYTES, length > RSS_KEY or (types and not length)):
            raise Declined(f"a key of {length} bytes: give up to {RSS_KEY}")
        beyond = max(*table, unclassified) >= self.device.pairs
        if broken(Control.CHECK_RSS_QUEUES, beyond or not 1 <= transmit <= self.device.pairs):
            raise Declined(f"queues beyond the {self.device.pairs} that there are")
        if not types:  # nothing is hashed, so nothing is classified
            types, table = HashType.VIRTIO_NET_HASH_TYPE_IPv4, [unclassified]
        self.rss = (types, key.ljust(RSS_KEY, b"\0"), table, unclassified)
        self._steer()

    def _steer(self) -> None:
        if self.rss is not None:
            self.device.set_rss(*self.rss)
        else:
            self.device.set_pairs(self.pairs)

    # --- offloads -----------------------------------------------------------------------------------------

    def guest_offloads_set(self, data: bytes) -> None:
        (offloads,) = _U64.unpack(_sized(data, _U64.size))
        self.device.set_offloads(offloads)
        self.offloads = offloads

    def take_offloads(self) -> None:
        """After the features were set (again), which are all of them on."""
        if self.offloads is not None:
            self.device.set_offloads(self.offloads & self.device.features)


def _sized(data: bytes, size: int) -> bytes:
    if broken(Control.CHECK_COMMAND_SIZE, len(data) != size):
        raise Declined(f"{len(data)} bytes, and {size} belong to it")
    return data


def _switch(data: bytes) -> bool:
    (value,) = _sized(data, 1)
    if broken(Control.CHECK_COMMAND_SWITCH, value > 1):
        raise Declined(f"{value}, and only 0 and 1 mean something")
    return bool(value)


def _vlan(data: bytes) -> int:
    (vlan,) = _U16.unpack(_sized(data, _U16.size))
    if broken(Control.CHECK_VLAN_NUMBER, vlan >= VLANS):
        raise Declined(f"VLAN {vlan}: there is none")
    return int(vlan)


def _table(data: bytes) -> tuple[list[bytes], bytes]:
    """A count and so many addresses, and what follows."""
    if broken(Control.CHECK_TABLE_COUNT, len(data) < _COUNT.size):
        raise Declined("a table is missing")
    (count,) = _COUNT.unpack_from(data)
    data = data[_COUNT.size :]
    if broken(Control.CHECK_TABLE_WHOLE, count > len(data) // _MAC):
        raise Declined(f"{count} addresses in {len(data)} bytes")
    return [data[i : i + _MAC] for i in range(0, count * _MAC, _MAC)], data[count * _MAC :]


# Not there: RX_ALLUNI and its kin (VIRTIO_NET_F_CTRL_RX_EXTRA), which the NIC has no filters for, and
# MQ_HASH_CONFIG (VIRTIO_NET_F_HASH_REPORT), as the NIC reports no hashes.
RULES: dict[NetCtrl, Rule] = {
    NetCtrl.RX_PROMISC: Rule(NetControl.rx_promisc, Feature.VIRTIO_NET_F_CTRL_RX),
    NetCtrl.RX_ALLMULTI: Rule(NetControl.rx_allmulti, Feature.VIRTIO_NET_F_CTRL_RX),
    NetCtrl.MAC_TABLE_SET: Rule(NetControl.mac_table_set, Feature.VIRTIO_NET_F_CTRL_RX),
    NetCtrl.MAC_ADDR_SET: Rule(NetControl.mac_addr_set, Feature.VIRTIO_NET_F_CTRL_MAC_ADDR),
    NetCtrl.VLAN_ADD: Rule(NetControl.vlan_add, Feature.VIRTIO_NET_F_CTRL_VLAN),
    NetCtrl.VLAN_DEL: Rule(NetControl.vlan_del, Feature.VIRTIO_NET_F_CTRL_VLAN),
    NetCtrl.ANNOUNCE_ACK: Rule(NetControl.announce_ack, Feature.VIRTIO_NET_F_GUEST_ANNOUNCE),
    NetCtrl.MQ_VQ_PAIRS_SET: Rule(NetControl.mq_vq_pairs_set, Feature.VIRTIO_NET_F_MQ),
    NetCtrl.MQ_RSS_CONFIG: Rule(NetControl.mq_rss_config, Feature.VIRTIO_NET_F_RSS),
    NetCtrl.GUEST_OFFLOADS_SET: Rule(NetControl.guest_offloads_set, Feature.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS),
}
