"""Guests as options or a file plan them. Nothing here needs a compiled module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdna.base import readers
from cdna.errors import ConfigError
from cdna.lab import values
from cdna.lab.kinds import DEFAULT, KINDS, GuestKind, GuestPlan

if TYPE_CHECKING:
    from cdna.lab.values import Network


def kind_named(where: str, name: object) -> GuestKind:
    """The kind of this name. ConfigError: there is none."""
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise readers.bad(where, name, f"give one of {', '.join(KINDS.names())}")
    return kind


def guest_plan(
    where: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], net: Sequence[Network]
) -> GuestPlan:
    """A guest from the settings that options or a file give it. `where` is followed by a setting's name.

    It has the addresses that it was given; `with_addresses` gives it some when that is none.
    """
    kind = kind_named(f"{where}kind", settings.get("kind", DEFAULT))
    for key in settings:
        if key not in kind.keys and key != "kind":
            raise ConfigError(
                f"{where}unknown setting {key!r:.80}; a {kind.name} guest has {', '.join(kind.keys)}"
            )
    given = {key: (f"{where}{key}", value) for key, value in settings.items() if key != "kind"}
    for key, value in defaults.items():
        if key in kind.keys:
            given.setdefault(key, value)
    if kind.target not in given:
        raise ConfigError(f"{where}a {kind.name} guest without {kind.target}: give one")
    if "name" not in given:
        path = given[kind.target][1]
        given["name"] = (f"{where}no name is given, and that of its socket,", name_of(path))
    changes = {s.field or s.name: s.read(*given[s.name]) for s in kind.settings if s.name in given}
    changes |= kind.read_networked(given, net)
    return replace(kind.plan(name=values.name(*given["name"])), **changes)


def name_of(path: object) -> object:
    """What a guest at this socket is called unless somebody says otherwise: web, of /run/web.sock."""
    return os.path.splitext(os.path.basename(path))[0] if isinstance(path, str) else path


def form_of(kind: str) -> str:
    """How a context of this kind is written, its settings aside."""
    return f"{kind}:{KINDS[kind].target.upper()}"


def context_settings(where: str, text: str) -> dict[str, Any]:
    """The settings in KIND:TARGET,KEY=VALUE,... which `guest_plan` takes."""
    target, *pairs = text.split(",")
    kind, colon, value = target.partition(":")
    known = KINDS.get(kind)
    if not colon or known is None or not value:
        forms = ", ".join(map(form_of, KINDS.names()))
        raise ConfigError(f"{where} {text!r:.80}: give one of {forms}, settings such as rate=1G behind it")
    several = [setting.name for setting in known.all_settings if setting.several]
    settings: dict[str, Any] = {"kind": kind, known.target: value}
    key = ""
    for pair in pairs:
        if key == "features" and pair[:1] in ("+", "-"):
            settings[key].append(pair)
            continue
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{where} {text!r:.80}: {pair!r:.40} has no value; give KEY=VALUE")
        if key in several:
            settings.setdefault(key, []).append(value)
        elif key in settings:
            raise ConfigError(f"{where} {text!r:.80}: {key!r:.40} is given twice")
        else:
            settings[key] = value
    return settings
