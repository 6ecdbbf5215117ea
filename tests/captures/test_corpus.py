"""The corpus of frames: the file is what the script makes, and any tool reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdna.nic.capture import read_capture
from tests.captures import corpus


def test_the_script_makes_the_file_byte_for_byte(tmp_path):
    """In another process, whose hashes are seeded otherwise, and from another directory."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import corpus; "
    code += "open('new', 'wb').write(corpus.pcapng(corpus.build()))"
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    here = str(Path(corpus.__file__).parent)
    subprocess.run([sys.executable, "-c", code, here], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "new").read_bytes() == corpus.FILE.read_bytes()


def test_the_file_is_read_back_with_names_and_times():
    frames = corpus.load()
    assert frames == corpus.build()
    captured = read_capture(corpus.FILE)
    assert [frame.data for frame in captured] == list(frames.values())
    assert [frame.timestamp_ns for frame in captured[:2]] == [
        corpus.FIRST_NS,
        corpus.FIRST_NS + corpus.STEP_NS,
    ]


def test_every_frame_is_from_alice_and_of_a_possible_length():
    for name, frame in corpus.load().items():
        assert 14 <= len(frame) <= 9018, name
        assert frame[6:12].hex(":") == corpus.ALICE, name
        assert frame[:6].hex(":") == corpus.BOB or frame[0] & 1, name


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_finds_the_protocols_that_the_corpus_is_for():
    command = ["tshark", "-r", str(corpus.FILE), "-T", "fields", "-e", "frame.protocols"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    protocols = set(found.replace("\n", ":").split(":"))
    assert protocols >= {
        *("arp", "vlan", "ieee8021ad", "ipv6", "icmp", "icmpv6", "tcp", "udp", "sctp", "mpls", "lldp", "stp"),
        *("pppoed", "pppoes", "gre", "vxlan", "dhcp", "dns", "mdns", "ntp", "igmp", "llc", "esp", "macc"),
        *("ipv6.hopopts", "ipv6.dstopts", "ipv6.routing", "ipv6.fraghdr"),
    }
