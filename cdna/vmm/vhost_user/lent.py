"""How much of the guests' memory files the server maps, as it may have to pay for their pages.

The pages of a memory file are charged to the cgroup of the process that touches them first. So where a
frontend lends a file of holes, the NIC's reads and writes make pages there that are the server's. A page that
the guest throws away is made again, so nothing less than the size of what is mapped is a bound. And pages
stay as long as their file does: a frontend that lends one file after another leaves the pages of all behind.

    guests with memory=       what each of them maps is at most that
    all others, together      what they map, and have mapped of files that may still be there, is at most what
                              the server's cgroup allows (of the machine: its RAM), less what the server has

Of a file that is mapped no more nobody tells the server when it is gone. So before the others are refused for
its sake, the server looks how much its cgroup really holds. Files of a hugetlbfs are not charged that way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.nic.virtio.regions import Mapping

RESERVE = 16  # of the limit, this part is left to page tables, sockets, and what else the kernel charges
MANY = 1024  # files that were mapped once; beyond that, only their sum is known


@dataclass
class _Charge:
    """What may be charged for a file: all that was mapped of it at once, but no more than it has."""

    mapped: int = 0
    peak: int = 0
    size: int = 0

    @property
    def bytes(self) -> int:
        return min(self.peak, self.size)

    def more(self, mapping: Mapping) -> int:
        """The bytes more that it is with this mapping."""
        peak = max(self.peak, self.mapped + mapping.length)
        return min(peak, max(self.size, mapping.size)) - self.bytes


class Allowance:
    """What guests without a limit of their own may have the server hold together.

    limit: bytes that the server may hold. own: those that it has for itself. others: those that its cgroup
    holds beside, so that files which are mapped no more have no more.
    """

    def __init__(
        self,
        limit: int,
        own: Callable[[], int] = lambda: 0,
        others: Callable[[], int] = lambda: 0,
    ) -> None:
        self._limit = limit - limit // RESERVE
        self._own = own
        self._others = others
        self._files: dict[tuple[int, int], _Charge] = {}  # by device and inode
        self._left = 0  # bytes of files that are mapped no more, and known by their sum only
        self.charged = 0  # bytes

    @property
    def most(self) -> int:
        """Bytes of which `charged` is a part."""
        return max(0, self._limit - self._own())

    def fits(self, mapping: Mapping) -> bool:
        """Whether there is room for this mapping."""
        return self._has_room(mapping) or (self._look() and self._has_room(mapping))

    def _has_room(self, mapping: Mapping) -> bool:
        more = self._files.get(mapping.file, _Charge()).more(mapping)
        return self.charged + more <= self.most

    def take(self, mapping: Mapping) -> None:
        charge = self._files.setdefault(mapping.file, _Charge())
        self.charged += charge.more(mapping)
        charge.mapped += mapping.length
        charge.peak = max(charge.peak, charge.mapped)
        charge.size = max(charge.size, mapping.size)

    def give(self, mapping: Mapping) -> None:
        """It is mapped no more. What was charged stays so, for the file may still be there."""
        self._files[mapping.file].mapped -= mapping.length
        if len(self._files) > MANY:
            self._left += self._forget()

    def _forget(self) -> int:
        """Forgets the files that are mapped no more. Returns the bytes that were charged for them."""
        idle = {file: charge.bytes for file, charge in self._files.items() if not charge.mapped}
        for file in idle:
            del self._files[file]
        return sum(idle.values())

    def _look(self) -> bool:
        """Counts files that are mapped no more by what there is of them. Returns whether that is less."""
        idle = self._left + sum(charge.bytes for charge in self._files.values() if not charge.mapped)
        there = self._others()
        if there >= idle:
            return False
        self._forget()
        self._left = there
        self.charged -= idle - there
        return True


class Lent:
    """What one guest has lent to the server. most: bytes of all mappings, 0: it shares the allowance."""

    def __init__(self, allowance: Allowance, most: int = 0) -> None:
        self.most = most
        self.refused = 0  # mappings that were not made
        self._allowance = allowance
        self._mappings: list[Mapping] = []

    def take(self, what: str, mapping: Mapping, held: int) -> None:
        """Counts a mapping that is to be made. ConfigError: it must not be.

        held: bytes that the guest maps beside it; the table that it replaces is none of them.
        """
        trouble = self._trouble(mapping, held)
        if trouble is not None:
            self.refused += 1
            raise ConfigError(f"{what}: {mapping.length} bytes more; {trouble}")
        if self._shares(mapping):
            self._allowance.take(mapping)
        self._mappings.append(mapping)

    def _shares(self, mapping: Mapping) -> bool:
        return not self.most and not mapping.huge

    def _trouble(self, mapping: Mapping, held: int) -> str | None:
        if broken(Control.CHECK_LENT_OWN, self.most and held + mapping.length > self.most):
            return f"this guest maps up to {self.most} (memory=), and {held} already"
        if self._shares(mapping) and broken(Control.CHECK_LENT_SHARED, not self._allowance.fits(mapping)):
            return (
                f"the server can pay for {self._allowance.most} of all guests without memory=, and does for "
                f"{self._allowance.charged}: give this guest memory=SIZE, or the server's cgroup more"
            )
        return None

    def give(self, mapping: Mapping) -> None:
        """The mapping is gone."""
        self._mappings.remove(mapping)
        if self._shares(mapping):
            self._allowance.give(mapping)

    def limit(self, most: int, held: int) -> None:
        """Sets `most`; ConfigError: the guest maps more by now, and nothing has changed."""
        if most and held > most:
            raise ConfigError(f"memory {most}: the guest maps {held} bytes now; take its link down first")
        before, mappings, refused = self.most, self._mappings, self.refused
        self.most, self._mappings = most, []
        if not before:
            for mapping in mappings:
                if not mapping.huge:
                    self._allowance.give(mapping)
        try:
            for mapping in mappings:
                self.take("memory", mapping, 0)
        except ConfigError:
            for mapping in list(self._mappings):
                self.give(mapping)
            self.most, self._mappings, self.refused = before, mappings, refused
            raise
