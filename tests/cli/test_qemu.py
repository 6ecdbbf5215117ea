"""`cdna qemu`: arguments that QEMU takes, and XML that says the same."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cdna.errors import ConfigError
from cdna.lab.kinds.vhost_user.qemu import libvirt_xml, parse_size, qemu_arguments
from tests.support.lab import Serve, run, wait_for

QEMU = "qemu-system-x86_64"

GUEST = {
    "guest": "web",
    "kind": "vhost-user",
    "socket": "/run/cdna/web.sock",
    "mode": "server",
    "queues": 1,
    "mac": "02:00:00:00:00:01",
    "mtu": 1500,
}


def test_arguments() -> None:
    assert qemu_arguments([GUEST], 512, (7, 2)) == [
        *("-m", "512M"),
        *("-object", "memory-backend-memfd,id=mem,size=512M,share=on"),
        *("-numa", "node,memdev=mem"),
        *("-chardev", "socket,id=char-web,path=/run/cdna/web.sock,reconnect=1"),
        *("-netdev", "vhost-user,id=net-web,chardev=char-web"),
        *(
            "-device",
            "virtio-net-pci,netdev=net-web,mac=02:00:00:00:00:01,rx_queue_size=1024,tx_queue_size=1024",
        ),
    ]


def test_queues_mtu_and_a_comma_in_the_path() -> None:
    guest = {**GUEST, "queues": 4, "mtu": 9000, "socket": "/run/a,b.sock"}
    arguments = qemu_arguments([guest], 512, (9, 2))
    assert "socket,id=char-web,path=/run/a,,b.sock,reconnect-ms=1000" in arguments
    assert "vhost-user,id=net-web,chardev=char-web,queues=4" in arguments
    assert arguments[-1].endswith(",mq=on,vectors=10,host_mtu=9000")


@pytest.mark.parametrize("text", [libvirt_xml, lambda guests: qemu_arguments(guests, 512, (7, 2))])
def test_a_path_that_a_terminal_would_obey_is_refused(
    text: Callable[[list[dict[str, object]]], object],
) -> None:
    with pytest.raises(
        ConfigError, match=r"guest web: the path of its socket, '/run/\\x1b\[2J', is not printable"
    ):
        text([{**GUEST, "socket": "/run/\x1b[2J"}])


def test_an_emulated_machine_has_vectors_where_its_qemu_bears_them() -> None:
    for guest, many in ((GUEST, ""), ({**GUEST, "queues": 4}, ",mq=on")):
        old = qemu_arguments([guest], 512, (7, 2), tcg=True)
        assert old[-1].endswith(f"tx_queue_size=1024{many},vectors=0")
        new = qemu_arguments([guest], 512, (11, 1), tcg=True)
        assert new == qemu_arguments([guest], 512, (11, 1))
        assert "vectors=0" not in new[-1]


def test_where_we_connect_qemu_listens() -> None:
    arguments = qemu_arguments([{**GUEST, "mode": "client"}], 512, (7, 2))
    assert "socket,id=char-web,path=/run/cdna/web.sock,server=on,wait=off" in arguments


def test_xml() -> None:
    text = libvirt_xml([{**GUEST, "queues": 2}, {**GUEST, "mode": "client", "mtu": 9000}])
    memory, first, second = ElementTree.fromstring(f"<domain>{text}</domain>")
    assert [(e.tag, e.attrib) for e in memory] == [
        ("source", {"type": "memfd"}),
        ("access", {"mode": "shared"}),
    ]
    assert first.attrib == {"type": "vhostuser"}
    assert [(e.tag, e.attrib) for e in first] == [
        ("mac", {"address": "02:00:00:00:00:01"}),
        ("source", {"type": "unix", "path": "/run/cdna/web.sock", "mode": "client"}),
        ("model", {"type": "virtio"}),
        ("driver", {"rx_queue_size": "1024", "tx_queue_size": "1024", "queues": "2"}),
    ]
    assert [e.attrib for e in first.iter("reconnect")] == [{"enabled": "yes", "timeout": "1"}]
    assert [e.attrib["mode"] for e in second.iter("source")] == ["server"]
    assert [e.attrib for e in second.iter("mtu")] == [{"size": "9000"}]
    assert list(second.iter("reconnect")) == []


@pytest.mark.parametrize(("text", "mib"), [("512M", 512), ("4g", 4096), ("1T", 1 << 20)])
def test_sizes(text: str, mib: int) -> None:
    assert parse_size("--size", text) == mib


@pytest.mark.parametrize("text", ["", "0M", "512", "1.5G", "G", "-1G", "1K"])
def test_sizes_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--size .*give a size such as 512M or 4G"):
        parse_size("--size", text)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serve]:
    contexts = (f"--context=vhost-user:{tmp_path}/vm.sock,queues=2", "--context=synthetic:gen")
    with Serve(tmp_path / "control", *contexts) as server:
        yield server


def test_text_json_and_xml(server: Serve) -> None:
    socket = ("--socket", str(server.path))
    words = json.loads(run("qemu", "vm", "--json", "--version", "7.2", *socket).stdout)
    text = run("qemu", "vm", "--version", "7.2", *socket).stdout
    split = subprocess.run(["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True).stdout
    assert split.splitlines() == words
    assert "vhostuser" in run("qemu", "vm", "--libvirt", *socket).stdout
    assert ",vectors=0" in run("qemu", "vm", "--version", "7.2", "--tcg", *socket).stdout
    assert ",reconnect-ms=1000" in run("qemu", "vm", "--version", "11.1", *socket).stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["gen"], "guest gen: a synthetic guest; machines attach to vhost-user contexts only"),
        (["gen", "--libvirt"], "guest gen: a synthetic guest; machines attach to vhost-user contexts only"),
        (["who"], "no guest 'who'"),
        (["vm", "--version", "new"], "--version 'new': give a version such as 7.2"),
        (["vm", "--size", "9"], "--size '9': give a size"),
        (["vm", "--json", "--libvirt"], "give one of the two"),
        (["vm", "--tcg", "--libvirt"], "--libvirt and --tcg: libvirt knows its QEMU; give one of the two"),
    ],
)
def test_mistakes(server: Serve, argv: list[str], said: str) -> None:
    done = run("qemu", *argv, "--socket", str(server.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cdna qemu: ")
    assert said in done.stderr


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
def test_qemu_takes_them(server: Serve) -> None:
    """A machine without a disk: its firmware starts, and the device attaches."""
    done = run("qemu", "vm", "--size", "64M", "--json", "--socket", str(server.path))
    machine = ["-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-S"]
    with subprocess.Popen(
        [QEMU, *machine, *json.loads(done.stdout)], stderr=subprocess.PIPE, text=True
    ) as qemu:
        try:

            def attached() -> bool:
                assert qemu.poll() is None, qemu.stderr and qemu.stderr.read()
                (vm, _) = json.loads(server.ctl("list", "--json").stdout)["guests"]
                return bool(vm["connected"] and vm["peer"] == qemu.pid)

            wait_for(attached)
        finally:
            qemu.kill()
