"""All vhost-user sockets of this process, served by one thread that waits for none of them.

Each ready connection gets one message carried out in each turn, so a frontend that floods its socket delays
nobody by more than that; all of them together take no more than a tenth of the time, in equal parts
(`SharedTime`). One part is that of the users that are refused, at whichever socket.
What other threads ask (`add`, `remove`, `VhostUserGuest.set_link` ...) happens
between two turns, under `lock`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cdna import logs
from cdna.abi import Protection
from cdna.base.control_time import SHARE, SharedTime
from cdna.base.loop import Clock, Loop
from cdna.base.units import MIN_MTU
from cdna.errors import ConfigError, whole
from cdna.nic.virtio.device import VirtioDevice
from cdna.nic.virtio.mapping import MAX_MAPPED
from cdna.protocol.features import OFFERED, OFFERED_PROTOCOL, PAIRS, check_offer
from cdna.protocol.vhost_user import ProtocolFeature
from cdna.settings import ContextSettings
from cdna.virtio import VirtioLimits
from cdna.vmm.vhost_user.endpoint import Connecting, Listening
from cdna.vmm.vhost_user.guest import VhostUserGuest
from cdna.vmm.vhost_user.lent import Allowance, Lent

if TYPE_CHECKING:
    from cdna.vmm.hypervisor import Hypervisor

log = logs.logger("cdna.vhost_user")

STALL = 5.0  # seconds that a message may take from its first byte to its last
GUEST_MEMORY = 4096  # bytes: the VMM gives such a guest one page that it never sees; its memory is its own
NO_LIMIT = 1 << 60  # bytes
MAX_OFFERED_MTU = 65535  # bytes: what the field of the device's configuration holds


class VhostUserServer(Loop):
    """Serves virtual machines and DPDK programs, a socket each, until `close`.

    control_share: of the time, that the requests of all guests may take. clock, cost: those of `SharedTime`.
    allowance: what guests without a limit of their own may have mapped together; None: without end.
    """

    def __init__(
        self,
        vmm: Hypervisor,
        *,
        control_share: float = SHARE,
        allowance: Allowance | None = None,
        clock: Clock = time.monotonic,
        cost: Clock = time.thread_time,
    ) -> None:
        super().__init__("cdna-vhost-user", log, clock)
        self.vmm = vmm
        self.time = SharedTime(control_share, clock=clock, cost=cost)
        self.allowance = allowance or Allowance(NO_LIMIT)
        self.refused = self.time.bucket()  # what frontends that are not admitted have taken
        self._guests: list[VhostUserGuest] = []
        self.begin()

    @property
    def guests(self) -> list[VhostUserGuest]:
        with self.lock:
            return list(self._guests)

    def add(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        settings: ContextSettings | None = None,
        client: bool = False,
        pairs: int = VirtioLimits.VIRTIO_MAX_PAIRS,
        mtu: int = 1500,
        memory: int | None = None,
        features: int = OFFERED,
        protocol: int = OFFERED_PROTOCOL,
        uids: Iterable[int] = (),
        stall: float = STALL,
        context_index: int | None = None,
    ) -> VhostUserGuest:
        """A guest with a context of its own, for the frontend that attaches at `path`.

        client: connects to a frontend that listens there, and again when it has gone. pairs: of queues.
        mtu: the largest that a frontend may set, bytes. memory: bytes that it may lend, in memory table, log
        and inflight area; None: it shares what the server can pay for (`Allowance`). features, protocol: what
        is offered, of what this NIC can do. uids: users that may attach beside this one and root. stall:
        seconds that a message may take.
        ConfigError, ResourceError: it cannot be, and nothing is left behind.
        """
        settings = settings or ContextSettings(protection="table")
        if settings.mode != Protection.PROTECTION_TABLE:
            raise ConfigError(
                f"guest {name!r}: give protection='table', which is what a vhost-user guest has"
            )
        pairs = whole(f"guest {name!r}: pairs", pairs, 1, VirtioLimits.VIRTIO_MAX_PAIRS)
        mtu = whole(f"guest {name!r}: mtu", mtu, MIN_MTU, MAX_OFFERED_MTU)
        memory = whole(f"guest {name!r}: memory", memory or 0, 0, MAX_MAPPED)
        check_offer(features, protocol)
        if pairs == 1:
            features &= ~PAIRS
            protocol &= ~(1 << ProtocolFeature.MQ)
        path, uids = os.fspath(path), tuple(uids)
        endpoint = Connecting(path) if client else Listening(path, self, bool(uids))
        with self.lock:
            if self.closed:
                raise ConfigError("this server was closed: make another")
            with contextlib.ExitStack() as undo:
                domain = self.vmm.create_guest(name, GUEST_MEMORY)
                undo.callback(self.vmm.destroy_guest, domain)
                context = self.vmm.assign(domain, settings, index=context_index)
                lent = Lent(self.allowance, memory)
                device = VirtioDevice(self.vmm.nic, context.index, pairs=pairs, lent=lent)
                undo.callback(device.close)
                guest = VhostUserGuest(
                    self,
                    context,
                    device,
                    lent,
                    endpoint,
                    pairs=pairs,
                    mtu=mtu,
                    features=features,
                    protocol=protocol,
                    uids=uids,
                    stall=stall,
                )
                guest.start()
                undo.pop_all()
            context.on_revoke = self.wake  # under the VMM's lock: the thread does the rest
            self._guests.append(guest)
        self.wake()
        return guest

    def remove(self, guest: VhostUserGuest) -> None:
        """Disconnects a guest's frontend and gives its context back. Removing twice is harmless."""
        with self.lock:
            if guest not in self._guests:
                return
            self._guests.remove(guest)
            guest.context.on_revoke = None
            guest.close()
            guest.device.close()
            self.vmm.destroy_guest(guest.context.guest)

    # --- the thread -----------------------------------------------------------------------------------------

    def due(self) -> Iterable[float]:
        return (at for guest in self._guests if (at := guest.due()) is not None)

    def tick(self, now: float) -> None:
        for guest in self.guests:
            if guest.context.revoked:
                log.warning("guest %r: its context was revoked", guest.name)
                self.remove(guest)
            else:
                try:
                    guest.tick(now)
                except Exception:  # the other guests go on
                    log.exception("guest %r: internal error; it is removed", guest.name)
                    self.remove(guest)

    def end(self) -> None:
        for guest in self.guests:
            self.remove(guest)
