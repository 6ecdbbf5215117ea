"""A virtual machine: a QEMU process, its monitor, and a shell inside.

    this process                        QEMU
    qmp    socketpair ----------------- monitor: devices, link, reset, migration
    agent  socketpair ----------------- second serial port: commands (init.sh runs them)
           a file in memory ----------- first serial port: the console, quoted when something fails

Devices are plugged over the monitor, before the guest starts or while it runs, into ports of the PCI
Express root. The guest's memory is a memfd that a vhost-user backend maps. QEMU dies with this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from cdna.base.closing import Closing
from cdna.errors import ResourceError
from cdna.vm.agent import BOOTED, Agent, Result
from cdna.vm.image import QEMU, initrd, kernel
from cdna.vm.network import Nic
from cdna.vm.qmp import Qmp, QmpError

PORTS = 3  # root ports: places for network devices
BOOT_SECONDS = 90.0  # some 4 when nothing else runs
COMMAND_SECONDS = 60.0
END_SECONDS = 5.0
TAIL = 1500  # bytes of the console in an error's message
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# What a guest that lives for minutes under an emulator can do without.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests tsc=reliable "
    "no_timer_check rcupdate.rcu_expedited=1 random.trust_cpu=on net.ifnames=0 panic=0"
)


class GuestError(ResourceError):
    """A guest did not do what it was told; the message ends with its console's last lines."""


class VirtualMachine(Closing):
    """A guest that boots when it is made; `wait_ready` or the first command waits until it has.

    memory: MiB. cpus: virtual ones. incoming: it doesn't boot but waits for another to migrate to it.
    GuestError, ResourceError: it cannot be had; then nothing is left behind.
    """

    def __init__(
        self,
        name: str,
        nics: Sequence[Nic] = (),
        *,
        memory: int = 192,
        cpus: int = 1,
        incoming: bool = False,
    ) -> None:
        self.name = name
        self._ready = False
        self._ports: dict[str, str] = {}
        self._console = os.memfd_create(f"console of {name}")
        self._undo = contextlib.ExitStack()
        self._undo.callback(os.close, self._console)
        try:
            self._start(memory, cpus, incoming)
            for nic in nics:
                self.plug(nic)
            if not incoming:
                self.qmp("cont")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def console(self) -> str:
        """What the guest has written on its console."""
        return os.pread(self._console, 1 << 20, 0).decode(errors="replace")

    def _start(self, memory: int, cpus: int, incoming: bool) -> None:
        monitor, theirs = socket.socketpair()
        serial, theirs2 = socket.socketpair()
        with theirs, theirs2:
            self.qmp, self.agent = Qmp(monitor), Agent(serial)
            self._undo.callback(self.qmp.close)
            self._undo.callback(self.agent.close)
            fds = (theirs.fileno(), theirs2.fileno(), self._console)
            command = _command(self.name, memory, cpus, incoming, *fds)
            self._process = subprocess.Popen(
                command,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._console,
                preexec_fn=die_with_parent,
                cwd="/",  # QEMU would rather boot firmware that lies in the current directory than its own
            )
            self._undo.callback(self._end)
        try:
            self.qmp.greet(BOOT_SECONDS)
        except QmpError as error:
            raise self._error(str(error)) from None

    def wait_ready(self, seconds: float = BOOT_SECONDS) -> None:
        """Waits until the guest has booted."""
        if not self._ready:
            self._wait(BOOTED, "to boot", seconds)
            self._ready = True

    def run(self, command: str, seconds: float = COMMAND_SECONDS, *, check: bool = True) -> str:
        """The output of a shell command. GuestError: its exit status is not 0, or it takes longer."""
        result = self.result(self.start(command), seconds, what=command)
        if check and result.status != 0:
            raise GuestError(f"{self.name}: {command}: status {result.status}: {result.output.strip()}")
        return result.output

    def status(self, command: str, seconds: float = COMMAND_SECONDS) -> int:
        """The exit status of a shell command."""
        return self.result(self.start(command), seconds, what=command).status

    def start(self, command: str) -> int:
        """Has the guest run a shell command, beside others. Returns its number, for `result`."""
        self.wait_ready()
        return self.agent.start(command)

    def result(self, number: int, seconds: float = COMMAND_SECONDS, what: str = "a command") -> Result:
        """How a command ended that `start` started."""
        return self._wait(number, what, seconds)

    def plug(self, nic: Nic) -> None:
        """Adds a network device. QmpError: QEMU refuses it."""
        free = [f"port{i}" for i in range(PORTS) if f"port{i}" not in self._ports.values()]
        if not free:
            raise ResourceError(f"{self.name}: all {PORTS} ports are taken; unplug a device first")
        for name, fd in nic.fds().items():
            self.qmp.give(name, fd)
        with contextlib.ExitStack() as undo:
            if (chardev := nic.chardev()) is not None:
                self.qmp.execute("chardev-add", chardev)
                undo.callback(self.qmp, "chardev-remove", id=chardev["id"])
            self.qmp.execute("netdev_add", nic.netdev())
            undo.pop_all()  # a network backend takes its character device with it
            undo.callback(self.qmp, "netdev_del", id=f"{nic.name}-net")
            self.qmp.execute("device_add", nic.device(free[0]))
            undo.pop_all()
        self._ports[nic.name] = free[0]

    def unplug(self, nic: Nic, seconds: float = COMMAND_SECONDS) -> None:
        """Has the guest give a network device up, then removes it and what is behind it."""
        self.qmp.forget_events()
        self.qmp("device_del", id=nic.name)
        try:
            self.qmp.wait_event("DEVICE_DELETED", seconds, device=nic.name)
        except QmpError as error:
            raise self._error(f"{nic.name} is not given up: {error}") from None
        self.qmp("netdev_del", id=f"{nic.name}-net")
        del self._ports[nic.name]

    def reset(self) -> None:
        """Presses the reset button; the guest boots anew."""
        self.agent.forget_boot()
        self._ready = False
        self.qmp("system_reset")

    def migrate_to(self, other: VirtualMachine, seconds: float = COMMAND_SECONDS) -> float:
        """Moves the guest, while it runs, to a machine that was made with `incoming`. Returns its downtime.

        Seconds. This machine is then of no use but to be closed.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.qmp.give("migration", ours.fileno())
            other.qmp.give("migration", theirs.fileno())
        other.qmp("migrate-incoming", uri="fd:migration")
        self.qmp("migrate", uri="fd:migration")
        deadline = time.monotonic() + seconds
        while (told := self.qmp("query-migrate")).get("status") != "completed":
            if told.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
                reason = told.get("error-desc", "it takes too long")
                raise self._error(f"migration {told.get('status')}: {reason}; there: {other._tail()}")
            time.sleep(0.02)
        other.agent.take_over(self.agent)
        other._ready, other._ports = self._ready, {**self._ports}
        return float(told.get("downtime", 0)) / 1e3

    def close(self) -> None:
        """Ends QEMU. Closing twice is harmless."""
        self._undo.close()

    def _wait(self, number: int, what: str, seconds: float) -> Result:
        try:
            return self.agent.wait(number, seconds)
        except TimeoutError:
            raise self._error(f"{what}: nothing after {seconds:g} s") from None
        except ResourceError as error:
            raise self._error(f"{what}: {error}") from None

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _error(self, problem: str) -> GuestError:
        return GuestError(f"{self.name}: {problem}; {self._tail()}")

    def _tail(self) -> str:
        return f"its console ends with: {self.console[-TAIL:].strip() or 'nothing'}"


def cpu_times(pid: int) -> tuple[float, float]:
    """Seconds that a process has run so far, in user mode and in the kernel (proc(5), stat)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def _command(
    name: str, memory: int, cpus: int, incoming: bool, monitor: int, serial: int, console: int
) -> list[str]:
    ports = [f"pcie-root-port,id=port{i},chassis={i + 1},slot={i + 1}" for i in range(PORTS)]
    command = [QEMU, "-name", name, "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-machine", "q35,memory-backend=memory", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", str(cpus), "-m", str(memory)]
    command += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    command += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
    command += ["-chardev", f"file,id=console,path=/proc/self/fd/{console},append=on"]
    command += ["-serial", "chardev:console"]
    command += ["-chardev", f"socket,id=agent,fd={serial}", "-serial", "chardev:agent"]
    command += ["-kernel", str(kernel().image), "-initrd", str(initrd())]
    command += ["-append", f"{KERNEL_ARGUMENTS} hostname={name}"]
    for port in ports:
        command += ["-device", port]
    return command + (["-incoming", "defer"] if incoming else ["-S"])


def die_with_parent() -> None:
    """For a child before it runs its program: it ends when the thread that started it does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
