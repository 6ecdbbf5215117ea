"""The layouts and numbers that guests are compiled against, restated: whoever changes one breaks a guest."""

import pytest

from cdna import abi

LAYOUTS = {
    "DESC_DTYPE": (16, {"addr": ("<u8", 0), "len": ("<u2", 8), "flags": ("<u2", 10), "seq": ("<u4", 12)}),
    "OFFLOAD_DTYPE": (
        8,
        {"csum_start": ("<u2", 0), "csum_offset": ("<u2", 2), "mss": ("<u2", 4), "hdr_len": ("<u2", 6)},
    ),
    "COMPLETION_DTYPE": (
        8,
        {"len": ("<u2", 0), "flags": ("<u2", 2), "vlan": ("<u2", 4), "reserved": ("<u2", 6)},
    ),
    "VNET_HEADER_DTYPE": (
        12,
        {
            "flags": ("|u1", 0),
            "gso_type": ("|u1", 1),
            "hdr_len": ("<u2", 2),
            "gso_size": ("<u2", 4),
            "csum_start": ("<u2", 6),
            "csum_offset": ("<u2", 8),
            "num_buffers": ("<u2", 10),
        },
    ),
    "CONTEXT_PAGE_DTYPE": (
        4096,
        {
            "mailbox": ("<u4", 0),
            "doorbell": ("<u4", 96),
            "tx_consumer": ("<u4", 128),
            "rx_consumer": ("<u4", 192),
            "state": ("<u4", 256),
            "fault": ("<u4", 260),
            "link": ("<u4", 264),
            "shared": ("|u1", 512),
        },
    ),
}

ENUMS = {
    "Limits": {
        "MAX_CONTEXTS": 4096,
        "MIN_RING": 8,
        "MAX_RING": 32768,
        "MAX_FRAME": 9018,
        "MIN_FRAME": 14,
        "MAX_TSO_FRAME": 65553,
        "VNET_HEADER": 12,
        "MAX_FRAGMENTS": 32,
        "IO_PAGES_PER_SLOT": 4,
    },
    "Mailbox": {"MAILBOX_TX_PRODUCER": 0, "MAILBOX_RX_PRODUCER": 1, "MAILBOX_INTERRUPT_ENABLE": 2},
    "DescFlag": {"DESC_F_EOP": 1, "DESC_F_OFFLOAD": 2},
    "OffloadKind": {
        "OFFLOAD_TCP": 0,
        "OFFLOAD_UDP_SEGMENTS": 0x4000,
        "OFFLOAD_UDP_FRAGMENTS": 0x8000,
        "OFFLOAD_KIND": 0xC000,
    },
    "CompletionFlag": {"COMPLETION_F_EOP": 1, "COMPLETION_F_CSUM_OK": 2},
    "VnetFlag": {"VNET_F_NEEDS_CSUM": 1, "VNET_F_DATA_VALID": 2},
    "VnetGso": {
        "VNET_GSO_NONE": 0,
        "VNET_GSO_TCPV4": 1,
        "VNET_GSO_UDP": 3,
        "VNET_GSO_TCPV6": 4,
        "VNET_GSO_UDP_L4": 5,
        "VNET_GSO_ECN": 0x80,
    },
    "Takes": {
        "TAKES_CSUM": 1,
        "TAKES_TSO4": 2,
        "TAKES_TSO6": 4,
        "TAKES_ECN": 8,
        "TAKES_UFO": 16,
        "TAKES_USO4": 32,
        "TAKES_USO6": 64,
    },
    "Ring": {"RING_TX": 0, "RING_RX": 1, "RING_CONTROL": 2},
    "Protection": {
        "PROTECTION_VALIDATED": 0,
        "PROTECTION_IOMMU": 1,
        "PROTECTION_NONE": 2,
        "PROTECTION_TABLE": 3,
    },
    "IommuStrategy": {
        "IOMMU_SINGLE_USE": 0,
        "IOMMU_SHARED": 1,
        "IOMMU_PERSISTENT": 2,
        "IOMMU_DIRECT_MAP": 3,
    },
    "ContextState": {
        "CONTEXT_FREE": 0,
        "CONTEXT_ASSIGNED": 1,
        "CONTEXT_RUNNING": 2,
        "CONTEXT_FAULTED": 3,
    },
    "Fault": {
        "FAULT_NONE": 0,
        "FAULT_SEQUENCE": 1,
        "FAULT_PRODUCER": 2,
        "FAULT_LENGTH": 3,
        "FAULT_FLAGS": 4,
        "FAULT_FRAGMENTS": 5,
        "FAULT_OFFLOAD": 6,
        "FAULT_ADDRESS": 7,
        "FAULT_TRANSLATION": 8,
        "FAULT_AVAIL": 9,
        "FAULT_CHAIN": 10,
        "FAULT_INDIRECT": 11,
        "FAULT_DIRECTION": 12,
        "FAULT_HEADER": 13,
        "FAULT_MEMORY": 14,
        "FAULT_MEMORY_GONE": 15,
    },
    "Refusal": {
        "REFUSED_CONTEXT": -1,
        "REFUSED_OWNER": -2,
        "REFUSED_ADDRESS": -3,
        "REFUSED_LENGTH": -4,
        "REFUSED_FLAGS": -5,
        "REFUSED_RING_FULL": -6,
        "REFUSED_PINNED": -7,
        "REFUSED_MODE": -8,
        "REFUSED_MAPPED": -9,
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name):
    size, fields = LAYOUTS[name]
    dtype = getattr(abi, name)
    assert dtype.itemsize == size
    named = {field: dtype.fields[field] for field in dtype.names if not field.startswith("_pad")}
    assert {field: (kind.base.str, at) for field, (kind, at) in named.items()} == fields


def test_array_fields():
    assert abi.CONTEXT_PAGE_DTYPE["mailbox"].shape == (24,)
    assert abi.CONTEXT_PAGE_DTYPE["shared"].shape == (3584,)
    assert (abi.PAGE_BYTES, abi.MAILBOX_COUNT) == (4096, 24)


def test_there_are_no_other_layouts():
    assert {name for name in vars(abi) if name.endswith("_DTYPE")} == LAYOUTS.keys()


@pytest.mark.parametrize("name", ENUMS)
def test_enumeration(name):
    assert {member: int(value) for member, value in getattr(abi, name).__members__.items()} == ENUMS[name]
