"""Waiting for a descriptor of any number, and room for many."""

import os
import resource
import subprocess
import sys

import pytest

from cdna.base.descriptors import make_room, readable
from cdna.errors import ResourceError


def test_a_descriptor_that_select_does_not_take():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    read, write = os.pipe()
    high = 1500
    try:
        make_room(high, "this test")
        os.dup2(read, high)
        assert not readable(high)
        os.write(write, b"x")
        assert readable(high)
        assert readable(high, None)
    finally:
        for fd in (read, write, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_for_so_many():
    code = (
        "import resource, sys; from cdna.base.descriptors import make_room\n"
        "from cdna.lab import syscalls\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))\n"
        "make_room(100, '30 guests'); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100)\n"
        "syscalls.unshare(syscalls.CLONE_NEWUSER)\n"  # which leaves no right to raise the limit
        "make_room(1000, '300 guests')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if "CLONE_NEWUSER" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout == "True\n"
    assert f"{ResourceError.__name__}: 300 guests: 10" in done.stderr
    assert "and 200 allowed: ulimit -n" in done.stderr
