"""A registry: entries of this package by a table of modules, those of other packages by entry points.

An entry is imported when it is asked for. This package's are found without a look at what is installed, which
takes some 50 ms.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from cdna import logs
from cdna.errors import ConfigError

log = logs.logger("cdna.extend")


class Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries of one type by name.

    what: the name for one, in errors. group: of entry points, NAME = "MODULE:ATTRIBUTE". own: this package's,
    by name, in the same form. An entry point with the name of one of them is ignored.
    """

    def __init__(self, what: str, group: str, entry_type: type[Entry], own: Mapping[str, str]) -> None:
        self.own = tuple(own)
        self._what, self._group, self._type = what, group, entry_type
        self._places = dict(own)
        self._searched = False
        self._loaded: dict[str, Entry] = {}

    def names(self) -> tuple[str, ...]:
        """The names of all entries, this package's first."""
        if not self._searched:
            from importlib.metadata import entry_points

            for point in sorted(entry_points(group=self._group)):
                self._places.setdefault(point.name, point.value)
            self._searched = True
        return tuple(self._places)

    def get(self, name: str) -> Entry | None:
        """The entry of this name; None: there is none. ConfigError: another package's cannot be loaded."""
        if name not in self._places and name not in self.names():
            return None
        if name not in self._loaded:
            self._loaded[name] = self._load(name, self._places[name])
        return self._loaded[name]

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name that there is."""
        entry = self.get(name)
        if entry is None:
            raise KeyError(name)
        return entry

    def _load(self, name: str, place: str) -> Entry:
        module, _, attribute = place.partition(":")
        try:
            entry = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            if name in self.own:
                raise
            raise ConfigError(f"{self._what} {name}: {place} cannot be loaded: {error}") from error
        if not isinstance(entry, self._type) or entry.name != name:
            raise ConfigError(f"{self._what} {name}: {place} is no {self._what} of this name")
        return entry

    def all(self) -> tuple[Entry, ...]:
        """All entries that can be loaded, this package's first; the log has why another cannot."""
        found = []
        for name in self.names():
            try:
                found.append(self[name])
            except ConfigError as error:
                log.warning("%s", error)
        return tuple(found)
