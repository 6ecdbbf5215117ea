"""A lab from a TOML file.

wire = "tap:cdna0"                        # what --wire takes; "null" when it is left out
net = ["10.77.0.0/24", "fd77::/64"]       # addresses are taken from here
host = ["10.77.0.254", "fd77::fe"]        # the host's on the tap
socket = "/run/cdna/lab.sock"
identity = "rack 3"                       # tells its MAC addresses from other labs'; default: the socket
guests = 4                                # g1 to g4; or a table for each:

[defaults]                                # for all guests
protection = "validated"

[[guest]]
name = "web"
mac = "02:00:00:00:00:01"
address = ["10.77.0.10", "fd77::10"]
gateway = "10.77.0.254"
vlan = 5
weight = 2
rate = "100M"

[[context]]                               # a guest of any kind; its settings are those of --context
kind = "vhost-user"
path = "/run/cdna/vm1.sock"
queues = 4

`cdna serve` also takes from here what it has options for: metrics, poll, cpu and sandbox.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from cdna.base import readers
from cdna.errors import ConfigError, ResourceError
from cdna.lab import values
from cdna.lab.guest_plans import guest_plan, kind_named
from cdna.lab.kinds import DEFAULT, KINDS
from cdna.lab.plan import (
    MAX_GUESTS,
    NETS,
    POLLS,
    SANDBOXES,
    WIRE,
    LabPlan,
    has_addressed,
    host_addresses,
    plain_guests,
    shared_keys,
    with_addresses,
)

LAB_KEYS = (
    "wire",
    "net",
    "host",
    "socket",
    "guests",
    "defaults",
    "guest",
    "context",
    "metrics",
    "poll",
    "cpu",
    "sandbox",
    "identity",
)
MAX_BYTES = 1 << 20


def read_plan(path: str) -> LabPlan:
    """The lab that the file at `path` describes. ResourceError: it cannot be read. ConfigError: all else."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ResourceError(f"--config {path}: {reason}; give a TOML file") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"--config {path}: more than {MAX_BYTES} bytes; give a lab's TOML file")
    try:
        table = tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; give a TOML file") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise ConfigError(f"{path}: no TOML: {_lower(str(error))}") from None
    return plan_from(os.path.basename(path), table)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def plan_from(file: str, table: Mapping[str, Any]) -> LabPlan:
    """The lab of a parsed file; `file` is its name, for what is wrong with it."""
    _known(file, table, LAB_KEYS)
    net = values.nets(f"{file}: net", table["net"]) if "net" in table else NETS
    shared = _table(f"{file}: [defaults]", table.get("defaults", {}), shared_keys())
    defaults = {key: (f"{file}: [defaults] {key}", value) for key, value in shared.items()}
    guests = [
        guest_plan(f"{file}: [[{what}]] {i}, ", settings, defaults, net)
        for what, given in (("guest", _guests(file, table)), ("context", _contexts(file, table)))
        for i, settings in enumerate(given, 1)
    ]
    wire = readers.text(f"{file}: wire", table.get("wire", WIRE))
    host = host_addresses(net)
    if "host" in table:
        host = values.addresses(f"{file}: host", table["host"], net)
    elif "net" not in table and "context" in table and not has_addressed(guests):
        host = ()  # nobody here has addresses of ours
    texts = {
        key: readers.text(f"{file}: {key}", table[key])
        for key in ("socket", "metrics", "identity")
        if key in table
    }
    poll = readers.one_of(f"{file}: poll", table.get("poll", POLLS[0]), POLLS)
    cpu = values.cpu(f"{file}: cpu", table["cpu"]) if "cpu" in table else None
    sandbox = readers.one_of(f"{file}: sandbox", table.get("sandbox", SANDBOXES[0]), SANDBOXES)
    try:
        return LabPlan(
            tuple(with_addresses(guests, net, host)),
            wire=wire,
            net=net,
            host=host,
            defaults=defaults,
            poll=poll,
            cpu=cpu,
            sandbox=sandbox,
            **texts,
        )
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _guests(file: str, table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "guests" in table and "guest" in table:
        raise ConfigError(
            f"{file}: guests and [[guest]]: give a number of them or a table for each, not both"
        )
    if "guests" in table:
        return list(plain_guests(readers.whole(f"{file}: guests", table["guests"], 0, MAX_GUESTS)))
    keys = KINDS[DEFAULT].keys
    tables = _tables(file, table, "guest")
    guests = [_table(f"{file}: [[guest]] {i}", guest, keys) for i, guest in enumerate(tables, 1)]
    for i, guest in enumerate(guests, 1):
        if "name" not in guest:
            raise ConfigError(f'{file}: [[guest]] {i}: no name; give it one, such as name = "g{i}"')
    return guests


def _contexts(file: str, table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tables = _tables(file, table, "context")
    for i, context in enumerate(tables, 1):
        where = f"{file}: [[context]] {i}"
        if not isinstance(context, dict) or "kind" not in context:
            raise ConfigError(f"{where}: give it a kind, one of {', '.join(KINDS.names())}")
        _known(where, context, ("kind", *kind_named(f"{where}, kind", context["kind"]).keys))
    return tables


def _tables(file: str, table: Mapping[str, Any], key: str) -> list[Any]:
    tables = table.get(key, [])
    if not isinstance(tables, list):
        raise ConfigError(f"{file}: [{key}]: give each {key} a table [[{key}]], in double brackets")
    return tables


def _table(where: str, table: object, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} {table!r:.80}: give a table of {', '.join(keys)}")
    _known(where, table, keys)
    return table


def _known(where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(f"{where}: unknown key {key!r:.80}; the known ones are {', '.join(keys)}")
