"""The inflight area of a vhost-user connection, as a frontend asks for it and hands it on."""

from cdna.guest_driver.vhost_frontend import Frontend
from cdna.protocol.vhost_user import INFLIGHT, Inflight, Request


def get_inflight(frontend: Frontend, queues: int, queue_size: int) -> tuple[Inflight, int]:
    """The area that the backend proposes, and its file, which is the caller's."""
    frontend.send(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, queues, queue_size))
    request, payload, fds = frontend.reply()
    assert request == Request.GET_INFLIGHT_FD
    return Inflight(*INFLIGHT.unpack(payload)), fds[0]


def set_inflight(frontend: Frontend, area: Inflight, fd: int) -> None:
    frontend.send(Request.SET_INFLIGHT_FD, INFLIGHT.pack(*area), [fd])
