"""The parts of the sandbox beside the filter: threads, Landlock, privileges, and what a plan needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdna.base.sockets import may_connect
from cdna.errors import ConfigError
from cdna.extend.permits import Access, Capability
from cdna.lab.guest_plans import context_settings, guest_plan
from cdna.lab.kinds import KINDS
from cdna.lab.needs import check_room, needs_of
from cdna.lab.plan import NETS, LabPlan
from cdna.lab.plan_file import plan_from
from cdna.nic.wires import WIRES
from cdna.sandbox import Needs, landlock
from cdna.sandbox.privileges import user_of

NAMES = """
import ctypes, json, os, threading
from cdna.sandbox.threads import NUMBERS, every_thread
hold = threading.Event()
threads = [threading.Thread(target=hold.wait) for _ in range(20)]
for thread in threads:
    thread.start()
name = ctypes.create_string_buffer(b"marked")
every_thread([(NUMBERS["prctl"], 15, ctypes.addressof(name))])  # PR_SET_NAME
found = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
try:
    every_thread([(NUMBERS["prctl"], 15, ctypes.addressof(name)), (NUMBERS["prctl"], -1)])
except OSError as error:
    refused = [error.errno, error.filename]
hold.set()
print(json.dumps([found, refused]))
"""
FILES = """
import ctypes, json, os, socket, sys, threading
from cdna.extend.permits import Access
from cdna.sandbox import landlock
from cdna.sandbox.threads import NUMBERS, every_thread
inside, outside, version = *sys.argv[1:3], landlock.abi()[0]
go, from_before = threading.Event(), []
libc = ctypes.CDLL(None)

def attempt(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0

def trials():
    return {
        "socket inside": attempt(lambda: socket.socket(socket.AF_UNIX).bind(f"{inside}/socket")),
        "socket outside": attempt(lambda: socket.socket(socket.AF_UNIX).bind(f"{outside}/socket")),
        "file inside": attempt(lambda: open(f"{inside}/file", "w")),
        "read outside": attempt(lambda: open("/etc/passwd")),
        "bind": attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
        "connect": attempt(lambda: socket.socket().connect(("127.0.0.1", 9))),
        "signal": attempt(lambda: os.kill(os.getppid(), 0)),
        "own signal": attempt(lambda: os.kill(os.getpid(), 0)),
    }

before = threading.Thread(target=lambda: (go.wait(), from_before.append(trials())))
before.start()
allowed = {inside: Access.MAKE_SOCK | Access.REMOVE_FILE, "/nowhere": Access.READ_FILE}
rules = landlock.ruleset(version, allowed)
every_thread([(NUMBERS["prctl"], 38, 1, 0, 0, 0), (NUMBERS["landlock_restrict_self"], rules, 0)])
mine = trials()
os.unlink(f"{inside}/socket")
go.set()
before.join()
print(json.dumps([mine, *from_before]))
"""


def run(code: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_thread_makes_the_calls() -> None:
    found, refused = run(NAMES)
    assert set(found) == {"marked"}
    assert len(found) >= 21
    assert refused == [22, 1]  # EINVAL, of the second


@pytest.mark.skipif(landlock.abi()[0] < 6, reason="needs Landlock 6")
def test_files_ports_and_signals_outside_are_refused(tmp_path: Path) -> None:
    """To the threads that were there before, too."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    denied, refused = 13, 1  # EACCES, EPERM
    for found in run(FILES, str(tmp_path / "inside"), str(tmp_path / "outside")):
        assert found == {
            "socket inside": 0,
            "socket outside": denied,
            "file inside": denied,
            "read outside": denied,
            "bind": denied,
            "connect": denied,
            "signal": refused,
            "own signal": 0,
        }


def test_older_kernels_deny_what_they_know() -> None:
    assert Access.TRUNCATE not in landlock.handled_access(1)
    assert landlock.handled_access(7) == ~Access(0)
    assert landlock.lacks(7) == []
    assert landlock.lacks(3) == ["TCP ports", "ioctl of devices", "signals, abstract sockets"]


def plan(*contexts: str, **settings: Any) -> LabPlan:
    guests = [guest_plan("", context_settings("", text), {}, NETS) for text in contexts]
    return LabPlan(tuple(guests), **settings)


def test_a_plan_needs_no_more_than_it_says(tmp_path: Path) -> None:
    needs = needs_of(plan(f"vhost-user:{tmp_path}/a.sock"), f"{tmp_path}/control")
    assert needs == Needs(
        allowed={str(tmp_path): Access.MAKE_SOCK | Access.REMOVE_FILE | Access.READ_DIR},
        listens=[f"{tmp_path}/a.sock", f"{tmp_path}/control"],
    )


@pytest.mark.parametrize(
    ("context", "wire", "keep"),
    [
        ("synthetic:s", "tap:x", {Capability.CAP_NET_ADMIN}),
        ("synthetic:s", "packet:x", set()),
        ("namespace:n", "null", {Capability.CAP_NET_ADMIN, Capability.CAP_SYS_ADMIN}),
        ("vhost-user:/tmp/x.sock,mode=client", "null", {Capability.CAP_DAC_OVERRIDE}),
    ],
)
def test_what_a_wire_and_guests_need(tmp_path: Path, context: str, wire: str, keep: set[Capability]) -> None:
    needs = needs_of(plan(context, wire=wire), f"{tmp_path}/control")
    entries = (WIRES[wire.partition(":")[0]], KINDS[context.partition(":")[0]])
    assert needs.calls == [call for entry in entries for call in entry.permits().calls]
    assert needs.keep == keep


def test_guests_that_come_later(tmp_path: Path) -> None:
    (tmp_path / "later" / "deeper").mkdir(parents=True)
    needs = needs_of(plan("synthetic:s"), f"{tmp_path}/control", paths=[f"{tmp_path}/later"])
    for text in (
        "synthetic:t",
        f"vhost-user:{tmp_path}/later/deeper/x.sock",
        "vhost-user:/x.sock,mode=client",
    ):
        check_room(needs, plan(text).guests[0])
    for text, said in (
        ("namespace:n", "no room"),
        ("vhost-user:/x.sock", "/ is outside this server's sandbox"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_room(needs, plan(text).guests[0])


@pytest.mark.parametrize("text", ["nobody9", "0", "root", "nobody:nogroup9", "99999999999999999999"])
def test_users_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--user '?{text}"):
        user_of("--user", text)


def test_a_user() -> None:
    uid = os.geteuid() or 65534
    assert user_of("--user", str(uid)).uid == uid


def test_whose_processes_may_connect() -> None:
    own = os.geteuid()
    assert may_connect(0)
    assert may_connect(own)
    assert not may_connect(own + 1)
    assert may_connect(own + 1, (own + 1,))
    assert not may_connect(own + 1, (own + 2,))


def test_a_file_may_turn_it_off() -> None:
    assert plan_from("lab.toml", {}).sandbox == "on"
    assert plan_from("lab.toml", {"sandbox": "off"}).sandbox == "off"
    with pytest.raises(ConfigError, match="sandbox maybe: give one of on, log, off"):
        plan_from("lab.toml", {"sandbox": "maybe"})
