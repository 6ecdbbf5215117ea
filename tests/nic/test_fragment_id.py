"""Identifications of IPv6 fragments: of a cipher that is published, under a secret of the NIC's own."""

from __future__ import annotations

import os
import struct
from contextlib import closing

import pytest
from tests.support.nic_parts import fragment_identifications

import cdna
from cdna.nic.loopback_wire import LoopbackWire
from tests.support.frames import mac, receive_all
from tests.support.large import KINDS, large, vnet_header

AT = 14 + 40 + 4  # of the identification: behind Ethernet, IPv6 and half of the fragment header
SECRET = 12


def identifications(datagrams: int) -> list[int]:
    """What a new NIC puts into the fragments of so many datagrams; all fragments of one have the same."""
    with closing(cdna.Machine(16 << 20, wire=LoopbackWire())) as machine:
        rings = {"tx_ring": 16, "rx_ring": 64}
        alice = machine.attach("alice", memory=4 << 20, buffer_size=16384, vnet_header=True, **rings)
        bob = machine.attach("bob", **rings)
        kind, seen = KINDS["ufo6"], []
        for _ in range(datagrams):
            frame, offload = large(kind, mac(bob), mac(alice))
            assert alice.send([vnet_header(kind, offload) + frame]) == 1
            machine.step(5)
            fragments = receive_all(bob)
            assert len(fragments) == 6
            (number,) = {struct.unpack_from("!I", data, AT)[0] for data in fragments}
            seen.append(number)
        return seen


def test_the_ciphers_published_example():
    """Speck32/64: key 1918 1110 0908 0100, plaintext 6574 694c (ePrint 2013/404, appendix C)."""
    secret = bytes.fromhex("0001080910111819") + (0x6574694C).to_bytes(4, "little")
    assert fragment_identifications(secret, 1) == [0xA86842F2]


@pytest.mark.parametrize("first", [0, 0xFFFFFF00])
def test_none_comes_twice_also_where_the_counter_begins_anew(first):
    numbers = fragment_identifications(b"the key!" + first.to_bytes(4, "little"), 100_000)
    assert len(set(numbers)) == len(numbers)


def test_a_nic_numbers_its_fragments_by_a_secret_of_the_kernels(monkeypatch):
    """Nothing else goes into them, no clock and no counter that others see."""
    secret = bytes(range(7, 7 + SECRET))
    kernels = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: secret if n == SECRET else kernels(n))
    assert identifications(4) == fragment_identifications(secret, 4)


def test_two_nics_have_two_secrets():
    assert not set(identifications(4)) & set(identifications(4))
