"""What a program sees that `cdna exec` runs: names, name servers, /sys; and where it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdna
from tests.support.lab import CDNA, DEADLINE, Up, needs_namespaces, run, user_namespaces_work

pytestmark = needs_namespaces

STUB = "nameserver 127.0.0.53\n"
# A root directory of the host's directories, but for /tmp and /etc. $1: "mount" makes it a mount point. $2:
# the lab's socket, which is /lab.sock there. $3, $4: this Python's prefix and the package's folder, which may
# lie below /tmp, and are /python and /package there.
ROOT = """
set -e
mkdir root; if [ "$1" = mount ]; then mount --bind root root; fi
for d in /*; do
  if [ -L "$d" ]; then cp -P "$d" "root$d"
  elif [ -d "$d" ] && [ "$d" != /tmp ] && [ "$d" != /etc ]; then mkdir "root$d"; mount --rbind "$d" "root$d"
  fi
done
mkdir root/etc; cp /etc/passwd /etc/nsswitch.conf /etc/hosts root/etc || true
touch root/lab.sock; mount --bind "$2" root/lab.sock
mkdir root/python root/package; mount --bind "$3" root/python; mount --bind "$4" root/package
shift 4; exec chroot root env PYTHONPATH=/package "$@"
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    path = tmp_path_factory.mktemp("exec") / "lab.sock"
    with Up(path, "--guests", "plain,g2") as up:
        assert up.ctl("add", "g1", "--dns", "192.0.2.5,192.0.2.6").returncode == 0
        yield up


def aside(directory: Path, script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace of its own; `argv` are its arguments."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def inside(up: Up, guest: str, *command: str, socket: Path | None = None) -> list[str]:
    return [*CDNA, "exec", "--socket", str(socket or up.path), guest, "--", *command]


def test_sys_is_the_networks_own(up: Up) -> None:
    code = "ls /sys/class/net; cat /sys/class/net/eth0/address /sys/class/net/eth0/speed; ls /sys/fs/cgroup"
    eth0, lo, mac, speed, *groups = up.exec("g1", "sh", "-c", code).stdout.splitlines()
    assert (eth0, lo, speed) == ("eth0", "lo", "10000")
    assert mac == json.loads(up.ctl("show", "g1", "--json").stdout)["mac"]
    assert groups == sorted(os.listdir("/sys/fs/cgroup"), key=groups.index)


@pytest.mark.skipif(not user_namespaces_work(), reason="user namespaces are not allowed")
def test_sys_without_root(tmp_path: Path) -> None:
    with Up(tmp_path / "lab.sock", "--guests", "1", unprivileged=True) as up:
        assert up.exec("g1", "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]


def test_files_of_its_own_are_edited_in_place_or_not_at_all(up: Up) -> None:
    before = Path("/etc/hosts").read_text(), sorted(os.listdir("/etc"))
    code = "sed -i s/g2/x/ /etc/hosts; mv /etc/hosts /etc/hosts.b; echo 192.0.2.1 mine >> /etc/hosts; "
    done = up.exec("g1", "sh", "-c", code + "getent hosts mine")
    assert (done.stdout.split(), done.returncode) == (["192.0.2.1", "mine"], 0)
    assert (Path("/etc/hosts").read_text(), sorted(os.listdir("/etc"))) == before


def test_name_servers_that_are_given(up: Up) -> None:
    text = up.exec("g1", "cat", "/etc/resolv.conf").stdout
    assert [line for line in text.splitlines() if line[0] != "#"] == [
        "nameserver 192.0.2.5",
        "nameserver 192.0.2.6",
    ]


def servers(up: Up, tmp_path: Path, guest: str, before: str) -> list[str]:
    """Name servers of the guest where the host has a stub resolver. before: changes the host's ./etc."""
    (tmp_path / "stub").write_text(STUB)
    script = (
        "set -e; mkdir etc; cp /etc/hosts /etc/passwd etc; cp stub etc/resolv.conf; "
        "mount -t tmpfs none /run; mkdir -p /run/systemd/resolve; "
        f"echo nameserver 192.0.2.9 > /run/systemd/resolve/resolv.conf; {before}; "
        'mount --bind etc /etc; exec "$@"'
    )
    done = aside(tmp_path, script, *inside(up, guest, "cat", "/etc/resolv.conf"))
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("nameserver")]


def test_the_servers_behind_a_stub_resolver(up: Up, tmp_path: Path) -> None:
    assert servers(up, tmp_path, "plain", "true") == ["192.0.2.9"]


@pytest.mark.parametrize(("guest", "expected"), [("plain", "192.0.2.9"), ("g1", "192.0.2.5")])
def test_a_resolv_conf_that_is_a_link(up: Up, tmp_path: Path, guest: str, expected: str) -> None:
    stub = "/run/systemd/resolve/stub.conf"
    link = f"mv etc/resolv.conf {stub}; ln -s {stub} etc/resolv.conf"
    assert servers(up, tmp_path, guest, link)[0] == expected


def test_etc_netns(up: Up, tmp_path: Path) -> None:
    own = "mkdir -p etc/netns/plain; echo nameserver 192.0.2.77 > etc/netns/plain/resolv.conf"
    assert servers(up, tmp_path, "plain", own) == ["192.0.2.77"]


def test_dns_counts_more_than_etc_netns(up: Up, tmp_path: Path) -> None:
    own = "mkdir -p etc/netns/g1; echo nameserver 192.0.2.77 > etc/netns/g1/resolv.conf"
    assert servers(up, tmp_path, "g1", own) == ["192.0.2.5", "192.0.2.6"]


def chrooted(up: Up, tmp_path: Path, kind: str) -> subprocess.CompletedProcess[str]:
    command = inside(up, "plain", "getent", "hosts", "g2", socket=Path("/lab.sock"))
    command[0] = f"/python/bin/{Path(sys.executable).name}"
    return aside(
        tmp_path, ROOT, kind, str(up.path), sys.prefix, str(Path(cdna.__file__).parents[1]), *command
    )


def test_without_tmp(up: Up, tmp_path: Path) -> None:
    done = chrooted(up, tmp_path, "mount")
    assert (done.stdout.split()[1:], done.stderr, done.returncode) == (["g2"], "", 0)


def test_in_a_chroot(up: Up, tmp_path: Path) -> None:
    done = chrooted(up, tmp_path, "directory")
    assert (done.stdout, done.returncode, len(done.stderr.splitlines())) == ("", 2, 1)
    assert "chroot" in done.stderr
    assert "mount --bind" in done.stderr


def test_a_gateway_by_its_link_local_address(tmp_path: Path) -> None:
    with Up(tmp_path / "lab.sock", "--guests", "1", "--gateway", "10.77.0.254,fe80::1") as up:
        routes = up.exec("g1", "sh", "-c", "cat /proc/net/ipv6_route").stdout.splitlines()
    defaults = [line.split() for line in routes if line.startswith("0" * 32 + " 00 ") and "eth0" in line]
    assert [line[4] for line in defaults] == ["fe80" + "0" * 27 + "1"]


def test_a_stub_resolver_that_nothing_stands_behind_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text(STUB)
    script = 'mount --bind stub /etc/resolv.conf; mount -t tmpfs none /run; exec "$@"'
    argv = ["up", "--socket", f"{tmp_path}/s", "--guests", "1", "--gateway", "10.77.0.254", "--for", "0.1"]
    done = aside(tmp_path, script, *CDNA, *argv)
    assert done.returncode == 0
    assert "--dns" in done.stderr
    assert "--dns" not in aside(tmp_path, script, *CDNA, *argv, "--dns", "10.77.0.254").stderr


def test_names_that_hosts_files_have(tmp_path: Path) -> None:
    done = run("up", "--socket", f"{tmp_path}/s", "--guests", "a,ip6-localhost", "--for", "0.1")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "ip6-localhost" in done.stderr
