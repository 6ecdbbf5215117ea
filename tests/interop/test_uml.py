"""Two User-Mode Linux machines, Debian's `user-mode-linux` as it is, which talk through `cdna serve`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cdna.vm.cpio import PROGRAM, Archive
from cdna.vm.machine import die_with_parent
from tests.support.lab import Serve

UML = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
DRIVER = ("failover", "net_failover", "virtio_net")  # in the order in which they are loaded
BUSYBOX = shutil.which("busybox")
DEADLINE = 120.0  # seconds, for what takes three
BOOTED = "Run /init as init process"

# A driver goes, its rings stay disabled, and the next one sets them up anew; then a machine pings the other.
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir /proc /sys
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in failover net_failover virtio_net; do $b insmod /$module.ko; done
$b rmmod virtio_net
$b insmod /virtio_net.ko
for word in $($b cat /proc/cmdline); do
    case $word in own=*) own=${word#own=};; other=*) other=${word#other=};; esac
done
$b ip addr add $own/24 dev eth0
$b ip link set eth0 up
echo "address $($b cat /sys/class/net/eth0/address)"
n=0
until $b ping -c 1 -W 1 $other; do n=$((n + 1)); [ $n -gt 90 ] && break; done
[ $n -gt 90 ] || echo "reached $other"
$b ping -c 3 -i 0.1 -s 1400 -W 5 $other
echo done
$b sleep 1000
"""

pytestmark = [
    pytest.mark.skipif(shutil.which(UML) is None, reason=f"needs {UML} (user-mode-linux)"),
    pytest.mark.skipif(BUSYBOX is None, reason="needs busybox (busybox-static)"),
]


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert BUSYBOX is not None
    archive = Archive()
    archive.add("init", INIT.encode(), PROGRAM)
    archive.add("bin/busybox", Path(BUSYBOX).read_bytes(), PROGRAM)
    for name in DRIVER:
        (module,) = MODULES.rglob(f"{name}.ko")
        archive.add(f"{name}.ko", module.read_bytes())
    path = tmp_path_factory.mktemp("uml") / "initrd.cpio"
    path.write_bytes(archive.finish())
    return path


class Machine:
    """A User-Mode Linux process with its console in a file."""

    def __init__(self, process: subprocess.Popen[bytes], console: Path) -> None:
        self.process = process
        self._console = console

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def wait_for(self, text: str) -> bool:
        """Waits until the console says it. False: the machine ended before."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.console:
            if self.process.poll() is not None:
                return text in self.console
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.console[-2000:]}"
            time.sleep(0.02)
        return True


@contextmanager
def machine(initrd: Path, folder: Path, *arguments: str) -> Iterator[Machine]:
    console = folder / "console"
    with console.open("wb") as output:
        process = subprocess.Popen(
            [UML, "mem=64M", "con=null", "con0=null,fd:1", f"initrd={initrd}", "panic=1", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(folder)},  # it keeps a folder for its management console there
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield Machine(process, console)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that its own processes run in
        process.wait()


def check_processor(initrd: Path, folder: Path) -> None:
    """Skips where User-Mode Linux cannot run at all: some know less processor state than there is."""
    with machine(initrd, folder, "own=10.0.0.3", "other=10.0.0.3") as alone:
        if not alone.wait_for(BOOTED):
            pytest.skip(f"{UML} does not boot on this processor: {alone.console.splitlines()[-1:]}")


def test_two_machines_reach_each_other(initrd: Path, tmp_path: Path) -> None:
    names = {"a": "10.0.0.1", "b": "10.0.0.2"}
    contexts = [f"--context=vhost-user:{tmp_path}/{name}.sock" for name in names]
    with Serve(tmp_path / "control", *contexts) as server, ExitStack() as stack:
        machines = {}
        for name, own in names.items():
            (other,) = set(names.values()) - {own}
            (tmp_path / name).mkdir()
            device = f"virtio_uml.device={tmp_path}/{name}.sock:1"
            guest = machine(initrd, tmp_path / name, device, f"own={own}", f"other={other}")
            machines[name] = stack.enter_context(guest)
        for name in names:
            if not machines[name].wait_for(BOOTED):
                check_processor(initrd, tmp_path)
            assert machines[name].wait_for("\ndone"), machines[name].console[-2000:]
        listed = {
            guest["guest"]: guest for guest in json.loads(server.ctl("list", "--json").stdout)["guests"]
        }
        for name, own in names.items():
            console = machines[name].console
            assert listed[name]["state"] == "running"
            assert listed[name]["peer"] == machines[name].process.pid
            assert f"address {listed[name]['mac']}" in console
            (other,) = set(names.values()) - {own}
            assert f"reached {other}" in console
            assert "3 packets received" in console
            assert listed[name]["last_error"] is None
