"""A machine with a server for guests of other processes, and two neighbours who talk to each other.

Whatever a guest does, at the end nothing of it is held any more, and the neighbours have lost nothing.
"""

import contextlib
import gc
import os
import socket

from cdna import Machine
from cdna.base.units import PROTECTIONS, parse_mac


def mac_of(context):
    return parse_mac(context.mac)


def frame_between(source, to, size=100):
    return mac_of(to) + mac_of(source) + b"\x88\xb5" + bytes(size - 14)


def descriptors():
    """The open files of this process that are not pipes to a guest's."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists the others
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(name.split(":")[0] for name in names if not name.startswith("pipe:"))


class Host:
    """A machine that moves when it is told to, its server, and two neighbours."""

    def __init__(self, path):
        self.machine = Machine(16 << 20, wire="null", contexts=8)
        self.path = path
        self.server = self.machine.serve(path, protections=PROTECTIONS)
        self.alice = self.machine.attach("alice", tx_ring=16, rx_ring=64)
        self.bob = self.machine.attach("bob", tx_ring=16, rx_ring=64)
        self.there = frame_between(self.alice.context, self.bob.context)
        self.back = frame_between(self.bob.context, self.alice.context, 1500)
        self.talk()
        gc.collect()
        self.baseline = self.held()

    def talk(self, rounds=3):
        """The neighbours exchange frames; each arrives, and as it was sent."""
        for _ in range(rounds):
            assert self.alice.send([self.there] * 8) == 8
            assert self.bob.send([self.back] * 8) == 8
            self.machine.step()
            assert self.bob.recv() == [self.there] * 8
            assert self.alice.recv() == [self.back] * 8

    def held(self):
        """What is held for guests: descriptors, pages, pins, contexts."""
        memory, vmm = self.machine.memory, self.machine.vmm
        for driver in (self.alice, self.bob):
            vmm.tables.reap(driver.context.index)
        return {
            "files": descriptors(),
            "free pages": memory.free_pages,
            "pins": int(memory.pins().sum()),
            "guests": sorted(vmm.guests),
            "contexts": sorted(vmm.contexts),
        }

    def settle(self):
        """Returns when the server has handled all that happened before.

        Who connects is accepted in one turn of its loop and sent away in a later one; what was ready before
        is handled by then.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(os.fspath(self.path))
            sock.send(b"no request")
            assert sock.recv(1) == b""

    def guest_context(self, name="guest"):
        (context,) = self.machine.guest(name).contexts
        return context

    def guest_fault(self):
        """Why the NIC stopped the guest's context."""
        self.machine.vmm.collect_faults()
        return self.guest_context().fault
