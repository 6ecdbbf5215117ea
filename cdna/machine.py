"""A whole machine in three lines: memory, a NIC on a wire, and its VMM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

from cdna.base.closing import Closing
from cdna.errors import ConfigError, known, whole
from cdna.guest_driver.queues import memory_needed
from cdna.guests.driver import Driver
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.nic.wire import Wire
from cdna.nic.wires import make_wire
from cdna.settings import ContextSettings, Settings
from cdna.vmm.domain import Context, Guest
from cdna.vmm.hypervisor import Hypervisor
from cdna.vmm.policy import Policy, PolicyOptions
from cdna.vmm.server import Server

if TYPE_CHECKING:
    from cdna.vmm.capture import FileCapture

ANY = (-(1 << 200), 1 << 200)  # a whole number; memory and NIC say which are possible
BUFFER_SIZES = (64, 65472)  # bytes, the least and the greatest
LARGEST_MEMORY = 1 << 40  # bytes


class NicOptions(TypedDict, total=False):
    """Options of `cdna.nic.device.Nic`."""

    max_ring: int
    interrupt_frames: int
    interrupt_us: float


class GuestSettings(Settings, total=False):
    """The arguments of `Machine.attach`, for a function that hands them on."""

    memory: int | None
    buffer_size: int


class Machine(Closing):
    """Machine memory, a NIC of `contexts` contexts on `wire`, and the VMM.

        with Machine(wire="loopback") as machine:
            alice, bob = machine.attach("alice"), machine.attach("bob")
            alice.send([frame])
            bob.wait(1)
            frames = bob.recv()

    wire: a `Wire`, or what `make_wire` takes: "null", "loopback", "pcap:FILE", "tap:NAME".
    identity: tells this machine's NIC from others of this host, for MAC addresses that no other NIC hands out
    (`cdna.vmm.addresses`). None: the device's name where the wire is one; elsewhere nobody can meet them, and
    a context's address tells its index: 02:cd:0a:00:00:00 and up.
    nic: `NicOptions`. ConfigError: one of these cannot be, or there is no such option.
    Entered, the NIC runs in a thread on a core of its own and the VMM handles its interrupts in another.
    Not entered, the machine moves only when it is told to: `step`.
    """

    def __init__(
        self,
        memory: int = 64 << 20,
        *,
        wire: Wire | str = "null",
        contexts: int = 32,
        identity: str | None = None,
        **nic: Unpack[NicOptions],
    ) -> None:
        known("option of a machine", nic, NicOptions.__annotations__)
        memory, contexts = whole("memory", memory, *ANY), whole("contexts", contexts, *ANY)
        if "max_ring" in nic:
            nic["max_ring"] = whole("max_ring", nic["max_ring"], *ANY)
        if not isinstance(wire, Wire | str):
            raise TypeError(f"wire {wire!r}: give a Wire, or the name of one")
        self.memory = Memory(memory)
        self.wire = make_wire(wire) if isinstance(wire, str) else wire
        try:
            self.nic = Nic(self.memory, self.wire, contexts, **nic)
        except Exception:
            self.wire.close()
            raise
        self.vmm = Hypervisor(self.memory, self.nic, _device(self.wire) if identity is None else identity)

    def attach(
        self,
        name: str,
        *,
        memory: int | None = None,
        buffer_size: int = 2048,
        **settings: Unpack[Settings],
    ) -> Driver:
        """Creates a guest, assigns it a context and loads its driver. `settings` are `ContextSettings`.

        ConfigError: a setting that cannot be, or that there is not; a name that is taken.
        """
        wanted = ContextSettings.of(**settings)
        buffer_size = whole("buffer_size", buffer_size, *BUFFER_SIZES)
        needed = memory_needed(wanted.tx_ring, wanted.rx_ring, buffer_size)
        guest = self.vmm.create_guest(name, needed if memory is None else memory)
        try:
            return Driver(self.vmm.assign(guest, wanted), buffer_size)
        except Exception:
            self.vmm.destroy_guest(guest)
            raise

    def serve(
        self, path: str | os.PathLike[str], policy: Policy | None = None, **options: Unpack[PolicyOptions]
    ) -> Server:
        """Takes guests of other processes, which use `RemoteDriver`, on a Unix socket at `path`.

        options: those of `Policy`, where none is given. ConfigError, ResourceError: it cannot listen.
        """
        return self.vmm.serve(path, policy, **options)

    def capture(
        self, path: str | os.PathLike[str], contexts: str | Sequence[str] = "all", **options: int
    ) -> FileCapture:
        """Writes frames of contexts to a pcapng file until the result is closed; use `with`.

            with machine.capture("lab.pcapng", ["alice", "bob"]) as capture:
                ...

        contexts: "all", also those that come later, or names of guests or contexts (`cdna.vmm.capture`).
        options: snaplen, bytes kept of a frame, and buffer, bytes of frames that wait to be written.
        """
        from cdna.vmm.capture import FileCapture

        return FileCapture(self.vmm, path, contexts, **options)

    def guest(self, name: str) -> Guest:
        if name not in self.vmm.guests:
            known = ", ".join(map(repr, self.vmm.guests)) or "there is none"
            raise ConfigError(f"no guest {name!r}: give one of this machine ({known})")
        return self.vmm.guests[name]

    def step(self, rounds: int = 1) -> int:
        """Runs rounds of the NIC here and handles its interrupts. Returns frames moved."""
        self.vmm.check_open()
        frames = self.nic.poll(rounds)
        self.vmm.handle_interrupts()
        return frames

    def start(self, cpu: int | None = None) -> None:
        """Starts the NIC's thread, on core `cpu`, and the VMM's interrupt thread."""
        self.vmm.check_open()
        self.nic.start_engine(cpu)
        self.vmm.start_interrupts()

    def close(self) -> None:
        """Stops the threads, revokes everything, closes the wire, for good. Closing twice is harmless."""
        self.nic.stop_engine()
        self.vmm.close()
        self.wire.close()

    def __enter__(self) -> Self:
        self.start()
        return self


def _device(wire: Wire) -> str | None:
    """The name of the device that the wire plugs into; None: it is no device."""
    from cdna.nic.watched_wire import WatchedWire

    return f"device {wire.name}" if isinstance(wire, WatchedWire) else None


__all__ = ["Context", "Guest", "Machine"]
