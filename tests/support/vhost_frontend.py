"""The vhost-user frontend and virtio-net driver that tests and `cdna fuzz` share are the package's own."""

from cdna.guest_driver.vhost_frontend import (
    ALL_PACKED,
    LEGACY,
    MRG_RXBUF,
    PACKED,
    SPLIT,
    AttachedGuest,
    Frontend,
    NetDriver,
    attach,
    features,
)

__all__ = [
    "ALL_PACKED",
    "LEGACY",
    "MRG_RXBUF",
    "PACKED",
    "SPLIT",
    "AttachedGuest",
    "Frontend",
    "NetDriver",
    "attach",
    "features",
]
