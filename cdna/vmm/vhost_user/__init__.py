"""Contexts as vhost-user devices: unmodified QEMU machines and DPDK programs attach over a socket each.

    server = VhostUserServer(vmm)
    guest = server.add("web", "/run/cdna/web.sock", settings=ContextSettings(protection="table"))

This package is control only. What moves frames is the engine, out of the guest's own memory
(`cdna.nic.virtio.device`). The life of a connection:

    socket       `endpoint`     listens or connects; checks who the peer is
    bytes        `connection`   whole messages with their descriptors, in pieces if they come so
    message      `backend`      checked against a table: size, descriptors, feature; then `handlers`
    rings        `rings`        what the frontend said of each virtqueue, and the moment when it starts
    guest        `guest`        the context that outlives connections
    commands     `control`      of the guest's driver, where its frontend leaves them to us; `net_control`
    thread       `server`       one for all sockets of the process; it waits for nobody
"""

from cdna.protocol.features import OFFERED, OFFERED_PROTOCOL, SUPPORTED
from cdna.vmm.vhost_user.guest import VhostUserGuest
from cdna.vmm.vhost_user.lent import Allowance
from cdna.vmm.vhost_user.server import VhostUserServer

__all__ = ["Allowance", "OFFERED", "OFFERED_PROTOCOL", "SUPPORTED", "VhostUserGuest", "VhostUserServer"]
