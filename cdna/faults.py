"""What the VMM says of a stopped context and of a refused hypercall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cdna import abi

FAULTS_KEPT = 1024  # reports

_REFUSALS = {
    abi.Refusal.REFUSED_CONTEXT: "not a running context of this guest",
    abi.Refusal.REFUSED_OWNER: "page {page} belongs to another domain; a guest may name its own pages only",
    abi.Refusal.REFUSED_ADDRESS: "page {page} is outside the memory; see Guest.maddr and Guest.size",
    abi.Refusal.REFUSED_LENGTH: "a buffer has 1 to 65535 bytes",
    abi.Refusal.REFUSED_FLAGS: "unknown descriptor flags; see cdna.abi.DescFlag",
    abi.Refusal.REFUSED_RING_FULL: "the ring is full; wait for completions",
    abi.Refusal.REFUSED_PINNED: "page {page} is pinned by outstanding DMA; wait for its completion",
    abi.Refusal.REFUSED_MODE: "this hypercall does not belong to the context's protection mode",
    abi.Refusal.REFUSED_MAPPED: "an I/O page that is mapped already, or is not mapped (page {page})",
}
assert _REFUSALS.keys() == set(abi.Refusal)


def refusal_text(status: int, page: int) -> str:
    """A Refusal in words; `page` is the one to blame."""
    reason = abi.Refusal(status)
    return f"{reason.name}, {_REFUSALS[reason].format(page=page)}"


@dataclass(frozen=True)
class FaultReport:
    """Why the NIC stopped a context: which check failed, where, and by what."""

    guest: str
    domain: int
    context: int
    reason: abi.Fault
    ring: abi.Ring
    index: int  # descriptor index, free-running
    expected: int
    found: int

    @classmethod
    def of(cls, guest: str, domain: int, context: int, info: dict[str, Any]) -> FaultReport:
        """What the NIC says of a context that it stopped (`Nic.info`)."""
        return cls(
            guest,
            domain,
            context,
            abi.Fault(info["fault"]),
            abi.Ring(info["fault_ring"]),
            info["fault_index"],
            info["fault_expected"],
            info["fault_found"],
        )

    @property
    def whose(self) -> str:
        """Whose line in the log it is. A guest of another process may come again with another name."""
        return f"context {self.context}"

    def __str__(self) -> str:
        return f"guest {self.guest!r}, context {self.context}: {self.why}"

    @property
    def why(self) -> str:
        """The check that failed, where, and by what."""
        return (
            f"{self.reason.name} in {self.ring.name} "
            f"at index {self.index}, expected {self.expected}, found {self.found}"
        )
