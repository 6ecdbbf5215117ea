"""A virtual machine: commands inside, devices, reset, and its end. Its network is the kernel's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cdna.vm.host import HostNetwork
from cdna.vm.machine import GuestError, VirtualMachine
from cdna.vm.network import Tap
from cdna.vm.qmp import QmpError
from tests.support.vm import needs_vm, wait_for

FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")

pytestmark = [needs_vm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def host() -> Iterator[HostNetwork]:
    with HostNetwork() as host:
        host.add_bridge(address="10.70.0.254/24")
        yield host


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Started in a directory with firmware of another's, which QEMU must not find."""
    trap = tmp_path_factory.mktemp("trap")
    for name in FIRMWARE:
        (trap / name).write_bytes(bytes(1 << 16))
    with contextlib.chdir(trap):
        guest = VirtualMachine("guest")
    with guest:
        yield guest


def test_commands(guest: VirtualMachine) -> None:
    assert guest.run("echo one; echo two >&2") == "one\ntwo\n"
    assert guest.run("cat /proc/sys/kernel/hostname") == "guest\n"
    assert guest.status("exit 3") == 3
    with pytest.raises(GuestError, match=r"guest: ls /nowhere: status 1: .*No such file"):
        guest.run("ls /nowhere")
    text = "quotes ' \" $HOME and a long line " * 200
    assert guest.run(f"cat <<'END'\n{text}\nEND") == f"{text}\n"


def test_commands_beside_each_other(guest: VirtualMachine) -> None:
    slow = guest.start("until [ -e /tmp/go ]; do usleep 1000; done; echo done")
    assert guest.run("echo quick") == "quick\n"
    with pytest.raises(GuestError, match=r"nothing after 0\.1 s; its console ends with"):
        guest.result(slow, 0.1)
    guest.run("touch /tmp/go")
    assert guest.result(slow).output == "done\n"


def test_plugged_and_unplugged(guest: VirtualMachine, host: HostNetwork) -> None:
    nic = Tap("net0", "02:cd:70:00:00:01", fd=host.open_tap("tap1"))
    guest.plug(nic)
    wait_for(lambda: guest.status("[ -e /sys/class/net/eth0 ]") == 0, "the device")
    guest.run("ip addr add 10.70.0.1/24 dev eth0; ip link set eth0 up")
    guest.run("/bin/ping -n -c 1 -w 20 10.70.0.254")
    guest.unplug(nic)
    assert guest.status("[ -e /sys/class/net/eth0 ]") != 0
    with pytest.raises(QmpError, match="device_del"):
        guest.unplug(nic)


def test_a_device_that_is_refused_leaves_its_port_free(guest: VirtualMachine, host: HostNetwork) -> None:
    fd = host.open_tap("tap2")
    for _ in range(4):
        with pytest.raises(QmpError, match="no_such_property"):
            guest.plug(Tap("net1", "02:cd:70:00:00:02", properties={"no_such_property": 1}, fd=fd))


def test_reset(guest: VirtualMachine) -> None:
    guest.run("touch /tmp/before")
    guest.reset()
    assert guest.status("[ -e /tmp/before ]") != 0


def test_migration(host: HostNetwork) -> None:
    mac = "02:cd:70:00:00:03"
    with (
        VirtualMachine("here", [Tap("net0", mac, fd=host.open_tap("tap3"))]) as here,
        VirtualMachine("there", [Tap("net0", mac, fd=host.open_tap("tap4"))], incoming=True) as there,
    ):
        slow = here.start("until [ -e /tmp/go ]; do usleep 1000; done; cat /tmp/go")
        here.migrate_to(there)
        here.close()
        there.run("echo gone on >/tmp/go.new; mv /tmp/go.new /tmp/go")
        assert there.result(slow).output == "gone on\n"


def test_the_end_of_qemu_is_told() -> None:
    with VirtualMachine("short") as guest:
        guest.wait_ready()
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestError, match="short: echo: the guest is no more"):
            guest.run("echo")


def test_nothing_stays_behind() -> None:
    with VirtualMachine("short") as guest:
        pid = guest.pid
    assert not os.path.exists(f"/proc/{pid}")


def test_qemu_ends_with_the_process_that_started_it() -> None:
    code = (
        "import signal; from cdna.vm.machine import VirtualMachine; "
        "print(VirtualMachine('orphan').pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the end of QEMU")
