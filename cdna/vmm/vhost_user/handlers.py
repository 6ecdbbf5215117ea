"""What each message of a frontend does: a method each, and the table of what it has to look like.

`RULES`, at the end, has for each request the method, the sizes that its payload may have, how many
descriptors come with it, and the protocol feature that it belongs to. What is not there is refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, NamedTuple

from cdna import logs
from cdna.base import units
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.nic.event_fd import is_unix_stream
from cdna.nic.virtio.device import Region
from cdna.protocol import vhost_user as messages
from cdna.protocol.features import LOG_ALL, PACKED, names
from cdna.protocol.vhost_user import (
    CONFIG_HEAD,
    CONFIG_MIGRATION,
    INFLIGHT,
    INFLIGHT_PADDED,
    LOG,
    MAX_CONFIG,
    MAX_REGIONS,
    MAX_STATUS,
    REGION,
    SINGLE_REGION,
    TABLE_HEAD,
    U64,
    VERSION,
    VRING_ADDR,
    VRING_INDEX_MASK,
    VRING_NO_FD,
    VRING_STATE,
    BackendRequest,
    Message,
    ProtocolError,
    ProtocolFeature,
    Request,
    VringAddr,
    VringState,
    name_of,
)
from cdna.virtio import Feature, VirtioLimits
from cdna.vmm.vhost_user import inflight
from cdna.vmm.vhost_user.net_config import MAC_BYTES
from cdna.vmm.vhost_user.rings import Rings

if TYPE_CHECKING:
    from cdna.vmm.vhost_user.guest import VhostUserGuest

log = logs.logger("cdna.vhost_user")

DONE = U64.pack(0)
FAILED = U64.pack(1)


class Declined(Exception):
    """A request that is refused by a reply, where the frontend wants one; the text says why."""


class Reply(NamedTuple):
    """An answer's payload, and descriptors that are closed when it was sent."""

    payload: bytes
    fds: tuple[int, ...] = ()


class Rule(NamedTuple):
    """What a request has to look like. fds: least and most."""

    handle: Callable[[Handlers, Message], Reply | None]
    sizes: Container[int]
    fds: tuple[int, int] = (0, 0)
    needs: ProtocolFeature | None = None


class Handlers:
    """The protocol state of one frontend, and what its messages do to the guest's device."""

    def __init__(self, guest: VhostUserGuest) -> None:
        self.guest = guest
        self.device = guest.device
        self.rings = Rings(guest.device, guest.control)
        self.protocol = 0  # protocol features that the frontend accepted
        self.status = 0  # virtio's device status
        self.regions: set[tuple[int, ...]] = set()  # guest address, size, user address of each
        self._log = (-1, 0, 0)  # the dirty log: descriptor, bytes, offset
        self._channel: socket.socket | None = None  # for requests of ours

    @property
    def descriptors(self) -> int:
        """How many are held beside those of the rings: of the log, and of the channel."""
        return (self._log[0] >= 0) + (self._channel is not None)

    def has(self, feature: ProtocolFeature) -> bool:
        return bool(self.protocol >> feature & 1)

    # --- negotiation --------------------------------------------------------------------------------------

    def get_features(self, message: Message) -> Reply:
        return Reply(U64.pack(self.guest.features))

    def set_features(self, message: Message) -> None:
        features = messages.u64(message.payload)
        surplus = features & ~self.guest.features
        if broken(Control.CHECK_FEATURES_OFFERED, surplus):
            raise ProtocolError(f"SET_FEATURES: {', '.join(names(surplus, Feature))} not offered")
        if changed := (features ^ self.rings.features) & ~LOG_ALL:
            self.rings.stop_disabled()
            if broken(Control.CHECK_FEATURES_RUNNING, self.rings.any_running):
                told = ", ".join(names(changed, Feature))
                raise ConfigError(f"{told} changed while rings run: stop them first")
        self.rings.set_features(features)
        self._place_log()

    def get_protocol_features(self, message: Message) -> Reply:
        return Reply(U64.pack(self.guest.protocol_features))

    def set_protocol_features(self, message: Message) -> None:
        protocol = messages.u64(message.payload)
        surplus = protocol & ~self.guest.protocol_features
        if broken(Control.CHECK_PROTOCOL_OFFERED, surplus):
            raise ProtocolError(
                f"SET_PROTOCOL_FEATURES: {', '.join(names(surplus, ProtocolFeature))} not offered"
            )
        self.protocol = protocol

    def set_owner(self, message: Message) -> None:
        """A session starts; some frontends say so once a queue."""

    def reset_owner(self, message: Message) -> None:
        """Deprecated; frontends that still send it mean that the rings shall rest."""
        self.rings.disable_all()

    def get_queue_num(self, message: Message) -> Reply:
        """Answer pairs of queues, as QEMU and DPDK take it; the specification's word is queues.

        A context of one pair does not offer MQ, so that frontends that count queues ask nothing.
        """
        return Reply(U64.pack(self.guest.pairs))

    def get_status(self, message: Message) -> Reply:
        return Reply(U64.pack(self.status))

    def set_status(self, message: Message) -> None:
        status = messages.u64(message.payload)
        if broken(Control.CHECK_STATUS_BYTE, status > MAX_STATUS):
            raise ProtocolError(f"SET_STATUS: {status:#x}, and a status is a byte")
        self.status = status
        if status == 0:
            self.rings.stop_all()

    def reset_device(self, message: Message) -> None:
        with self.guest.quiesced():
            self.rings.stop_all()
            self.rings.reset()
            self.device.set_inflight(-1, 0, 0, 0, 0)
            self.device.set_link(self.guest.link_up)
            self._place_log()
        self.status = 0

    # --- memory -------------------------------------------------------------------------------------------

    def set_mem_table(self, message: Message) -> None:
        table = messages.regions(message.payload)
        if broken(Control.CHECK_REGIONS_FDS, len(table) != len(message.fds)):
            raise ProtocolError(
                f"SET_MEM_TABLE: {len(table)} regions and {len(message.fds)} descriptors, and each has one"
            )
        self.device.set_memory(
            [
                Region(guest, size, user, fd, offset)
                for (guest, size, user, offset), fd in zip(table, message.fds, strict=True)
            ]
        )
        self.regions = {region[:3] for region in table}
        self._memory_changed()

    def add_mem_reg(self, message: Message) -> None:
        """QEMU 7.2 sends each region, and later its end, once for every pair of queues: once is enough."""
        guest, size, user, offset = SINGLE_REGION.unpack(message.payload)
        if (guest, size, user) in self.regions:
            return
        self.device.add_region(Region(guest, size, user, message.fds[0], offset))
        self.regions.add((guest, size, user))
        self._memory_changed()

    def rem_mem_reg(self, message: Message) -> None:
        """Some frontends send a descriptor with it, which says nothing."""
        guest, size, user, _ = SINGLE_REGION.unpack(message.payload)
        if (guest, size, user) not in self.regions:
            return
        self.device.remove_region(guest, size, user)
        self.regions.remove((guest, size, user))
        self._memory_changed()

    def _memory_changed(self) -> None:
        self.rings.have_memory = bool(self.regions)
        for index in self.rings.memory_changed():
            log.info("guest %r: queue %d waits: its ring has no memory", self.guest.name, index)

    def get_max_mem_slots(self, message: Message) -> Reply:
        return Reply(U64.pack(VirtioLimits.VIRTIO_MAX_REGIONS))

    # --- the dirty log ------------------------------------------------------------------------------------

    def set_log_base(self, message: Message) -> Reply:
        """Frontends wait for a reply to this one, wanted or not."""
        size, offset = LOG.unpack(message.payload)
        self.device.set_log(message.fds[0], size, offset)  # ConfigError: it cannot be
        self.close_log()
        self._log = (message.fds.pop(), size, offset)
        self._place_log()
        return Reply(DONE)

    def _place_log(self) -> None:
        """Writes are logged while the frontend has VHOST_F_LOG_ALL on, in the log that it gave last."""
        if self.rings.features & LOG_ALL:
            self.device.set_log(*self._log)
        else:
            self.device.set_log(-1, 0, 0)

    def close_log(self) -> None:
        fd, self._log = self._log[0], (-1, 0, 0)
        if fd >= 0:
            os.close(fd)

    def set_log_fd(self, message: Message) -> None:
        """Who looks at the log looks by itself; nobody is told of changes."""

    # --- rings --------------------------------------------------------------------------------------------

    def set_vring_num(self, message: Message) -> None:
        self.rings.set_size(*VRING_STATE.unpack(message.payload))

    def set_vring_addr(self, message: Message) -> None:
        self.rings.set_addresses(VringAddr(*VRING_ADDR.unpack(message.payload)))

    def set_vring_base(self, message: Message) -> None:
        self.rings.set_base(*VRING_STATE.unpack(message.payload))

    def get_vring_base(self, message: Message) -> Reply:
        index = VringState(*VRING_STATE.unpack(message.payload)).queue
        return Reply(VRING_STATE.pack(index, self.rings.stop(index)))

    def set_vring_enable(self, message: Message) -> None:
        state = VringState(*VRING_STATE.unpack(message.payload))
        if broken(Control.CHECK_ENABLE_SWITCH, state.num > 1):
            raise ProtocolError(f"SET_VRING_ENABLE: {state.num}, and only 0 and 1 mean something")
        self.rings.enable(state.queue, bool(state.num))

    def set_vring_kick(self, message: Message) -> None:
        index, fd = self._vring_fd(message)
        self.rings.target(index).set_kick(index, fd)
        message.fds.clear()  # it is the device's now
        self.rings.kick(index)

    def set_vring_call(self, message: Message) -> None:
        index, fd = self._vring_fd(message)
        self.rings.target(index).set_call(index, fd)
        message.fds.clear()

    def set_vring_err(self, message: Message) -> None:
        index, fd = self._vring_fd(message)
        self.rings.target(index).set_err(index, fd)
        message.fds.clear()

    def _vring_fd(self, message: Message) -> tuple[int, int]:
        """Queue and descriptor of SET_VRING_KICK and its kin; -1: none."""
        word = messages.u64(message.payload)
        name = name_of(message.request)
        if broken(Control.CHECK_RING_FD, bool(word & VRING_NO_FD) == bool(message.fds)):
            given = "a descriptor" if message.fds else "no descriptor"
            raise ProtocolError(f"{name}: {given}, and the payload says the contrary")
        return word & VRING_INDEX_MASK, message.fds[0] if message.fds else -1

    # --- what was begun when a backend died -----------------------------------------------------------------

    def get_inflight_fd(self, message: Message) -> Reply:
        wanted = messages.Inflight(*INFLIGHT.unpack_from(message.payload))
        inflight.check_shape(wanted.queues, wanted.queue_size, self.rings.queues)
        self.guest.areas.take(self.guest.server.clock())
        size = inflight.area_size(wanted.queues, wanted.queue_size, bool(self.rings.features & PACKED))
        payload = INFLIGHT.pack(size, 0, wanted.queues, wanted.queue_size)
        return Reply(payload.ljust(len(message.payload), b"\0"), (inflight.make_area(size),))

    def set_inflight_fd(self, message: Message) -> None:
        area = messages.Inflight(*INFLIGHT.unpack_from(message.payload))
        inflight.check_shape(area.queues, area.queue_size, self.rings.queues)
        # Commands need none: one that was begun is carried out again.
        queues = min(area.queues, self.device.queues)
        self.device.set_inflight(message.fds[0], area.size, area.offset, queues, area.queue_size)

    # --- the network device -------------------------------------------------------------------------------

    def send_rarp(self, message: Message) -> None:
        self.device.announce(message.payload[:MAC_BYTES])

    def net_set_mtu(self, message: Message) -> None:
        mtu = messages.u64(message.payload)
        if broken(Control.CHECK_MTU, not units.MIN_MTU <= mtu <= self.guest.mtu):
            raise Declined(f"an MTU of {mtu}, and this context has {self.guest.mtu}")

    def get_config(self, message: Message) -> Reply:
        """No payload at all says that there is no such piece."""
        wanted = messages.config(message.payload)
        beyond = wanted.offset > MAX_CONFIG or wanted.size > MAX_CONFIG - wanted.offset
        if broken(Control.CHECK_CONFIG_READ, beyond):
            return Reply(b"")
        data = self.guest.config_space()[wanted.offset : wanted.offset + wanted.size]
        return Reply(CONFIG_HEAD.pack(wanted.offset, wanted.size, wanted.flags) + data)

    def set_config(self, message: Message) -> None:
        """Nothing in it is the guest's to write; from another machine it has to be for the same address."""
        given = messages.config(message.payload)
        beyond = given.offset > MAX_CONFIG or given.size > MAX_CONFIG - given.offset
        if broken(Control.CHECK_CONFIG_WRITE, beyond):
            raise Declined("beyond the configuration space")
        if broken(Control.CHECK_CONFIG_MIGRATION, given.flags != CONFIG_MIGRATION):
            raise Declined("the configuration space is read-only")
        mac = given.data[: max(0, MAC_BYTES - given.offset)]
        own = self.guest.config_space()[given.offset : given.offset + len(mac)]
        if broken(Control.CHECK_CONFIG_MAC, mac != own):
            raise Declined("another MAC address than this context's")

    # --- requests of ours ---------------------------------------------------------------------------------

    def set_backend_req_fd(self, message: Message) -> None:
        if broken(Control.CHECK_CHANNEL, not is_unix_stream(message.fds[0])):
            raise ConfigError("no Unix stream socket")
        channel = socket.socket(fileno=message.fds.pop())  # it is the channel's now
        channel.setblocking(False)
        self.close_channel()
        self._channel = channel

    def config_changed(self) -> bool:
        """Tells the frontend. False: it does not listen."""
        if self._channel is None or not self.has(ProtocolFeature.CONFIG):
            return False
        try:
            packet = messages.pack(BackendRequest.CONFIG_CHANGE_MSG, VERSION, b"")
            return self._channel.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(packet)
        except OSError:
            self.close_channel()
            return False

    def close_channel(self) -> None:
        if self._channel is not None:
            self.guest.discard.close_socket(self._channel)
            self._channel = None


_NONE = (0,)
_U64 = (U64.size,)
_STATE = (VRING_STATE.size,)
_CONFIG = range(CONFIG_HEAD.size, CONFIG_HEAD.size + MAX_CONFIG + 1)
_INFLIGHT = (INFLIGHT.size, INFLIGHT_PADDED)
_TABLE = range(TABLE_HEAD.size, TABLE_HEAD.size + MAX_REGIONS * REGION.size + 1)
_P = ProtocolFeature

RULES: dict[int, Rule] = {
    Request.GET_FEATURES: Rule(Handlers.get_features, _NONE),
    Request.SET_FEATURES: Rule(Handlers.set_features, _U64),
    Request.GET_PROTOCOL_FEATURES: Rule(Handlers.get_protocol_features, _NONE),
    Request.SET_PROTOCOL_FEATURES: Rule(Handlers.set_protocol_features, _U64),
    Request.SET_OWNER: Rule(Handlers.set_owner, _NONE),
    Request.RESET_OWNER: Rule(Handlers.reset_owner, _NONE),
    Request.GET_QUEUE_NUM: Rule(Handlers.get_queue_num, _NONE, needs=_P.MQ),
    Request.SET_MEM_TABLE: Rule(Handlers.set_mem_table, _TABLE, (0, MAX_REGIONS)),
    Request.GET_MAX_MEM_SLOTS: Rule(Handlers.get_max_mem_slots, _NONE, needs=_P.CONFIGURE_MEM_SLOTS),
    Request.ADD_MEM_REG: Rule(Handlers.add_mem_reg, (SINGLE_REGION.size,), (1, 1), _P.CONFIGURE_MEM_SLOTS),
    Request.REM_MEM_REG: Rule(Handlers.rem_mem_reg, (SINGLE_REGION.size,), (0, 1), _P.CONFIGURE_MEM_SLOTS),
    Request.SET_LOG_BASE: Rule(Handlers.set_log_base, (LOG.size,), (1, 1), _P.LOG_SHMFD),
    Request.SET_LOG_FD: Rule(Handlers.set_log_fd, _NONE, (1, 1)),
    Request.SET_VRING_NUM: Rule(Handlers.set_vring_num, _STATE),
    Request.SET_VRING_ADDR: Rule(Handlers.set_vring_addr, (VRING_ADDR.size,)),
    Request.SET_VRING_BASE: Rule(Handlers.set_vring_base, _STATE),
    Request.GET_VRING_BASE: Rule(Handlers.get_vring_base, _STATE),
    Request.SET_VRING_KICK: Rule(Handlers.set_vring_kick, _U64, (0, 1)),
    Request.SET_VRING_CALL: Rule(Handlers.set_vring_call, _U64, (0, 1)),
    Request.SET_VRING_ERR: Rule(Handlers.set_vring_err, _U64, (0, 1)),
    Request.SET_VRING_ENABLE: Rule(Handlers.set_vring_enable, _STATE),
    Request.SEND_RARP: Rule(Handlers.send_rarp, _U64, needs=_P.RARP),
    Request.NET_SET_MTU: Rule(Handlers.net_set_mtu, _U64, needs=_P.NET_MTU),
    Request.SET_BACKEND_REQ_FD: Rule(Handlers.set_backend_req_fd, _NONE, (1, 1), _P.BACKEND_REQ),
    Request.GET_CONFIG: Rule(Handlers.get_config, _CONFIG, needs=_P.CONFIG),
    Request.SET_CONFIG: Rule(Handlers.set_config, _CONFIG, needs=_P.CONFIG),
    Request.GET_INFLIGHT_FD: Rule(Handlers.get_inflight_fd, _INFLIGHT, needs=_P.INFLIGHT_SHMFD),
    Request.SET_INFLIGHT_FD: Rule(Handlers.set_inflight_fd, _INFLIGHT, (1, 1), _P.INFLIGHT_SHMFD),
    Request.RESET_DEVICE: Rule(Handlers.reset_device, _NONE, needs=_P.RESET_DEVICE),
    Request.SET_STATUS: Rule(Handlers.set_status, _U64, needs=_P.STATUS),
    Request.GET_STATUS: Rule(Handlers.get_status, _NONE, needs=_P.STATUS),
}
