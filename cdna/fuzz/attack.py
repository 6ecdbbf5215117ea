"""Campaign "attack": a hostile guest that a user has written, in a few lines of Python.

    class Mine:
        settings = {"protection": "iommu:shared"}      # of its context, if it wants others than the defaults

        def attack(self, guest, random): ...           # once a step; guest: cdna.guests.hostile.Hostile

Each schedule has a machine and an instance of its own; the machine moves after each step, and then the
neighbours talk and all memory is looked at.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any, Protocol

from cdna import abi
from cdna.errors import ConfigError, known
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.neighbours import Harm, Scene
from cdna.fuzz.patience import Endless, limit
from cdna.fuzz.schedules import ScheduleCampaign
from cdna.guests.hostile import Hostile
from cdna.nic.queue_wire import QueueWire
from cdna.settings import ContextSettings, Settings

LENGTH = 40  # steps of a schedule
PAGES = 32  # of the hostile guest
ROUNDS = 3  # of the NIC after each step
PROTECTIONS = ("validated", "validated", "iommu:direct-map", "iommu:shared")


PATIENCE = 3.0  # seconds that the user's code has; a step takes less than a millisecond

# Of `settings`. The guest is always a remote one: the NIC finds its doorbells by looking.
SETTINGS = tuple(name for name in Settings.__annotations__ if name != "remote")


class Attack(Protocol):
    def attack(self, guest: Hostile, random: Random) -> object: ...


def resolve(text: str) -> str:
    """ "FILE:CLASS" with the whole path, of "FILE" or "FILE:CLASS". ConfigError: there is no attack in it."""
    path, _, name = text.rpartition(":") if ":" in text else (text, "", "")
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except OSError as error:
        raise ConfigError(f"--attack {text}: cannot be read ({error.strerror}); give a Python file") from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"--attack {text}: {error}; give a Python file") from None
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and _attacks(node)]
    if name and name not in found:
        raise ConfigError(f"--attack {text}: no class {name} with a method attack(self, guest, random)")
    if not name and len(found) != 1:
        there = f"{len(found)} classes with" if found else "no class with"
        advice = f"give FILE:CLASS, of {', '.join(found)}" if found else "write one"
        raise ConfigError(f"--attack {text}: {there} a method attack(self, guest, random); {advice}")
    whole = f"{path}:{name or found[0]}"
    attack_class(whole)
    return whole


def _attacks(node: ast.ClassDef) -> bool:
    return any(isinstance(part, ast.FunctionDef) and part.name == "attack" for part in node.body)


@cache
def attack_class(whole: str) -> type[Attack]:
    """The class of "FILE:CLASS". ConfigError: the file cannot be run, or its settings cannot be."""
    path, _, name = whole.rpartition(":")
    spec = importlib.util.spec_from_file_location("cdna_attack", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cdna_attack"] = module
    try:
        with limit(PATIENCE):
            spec.loader.exec_module(module)
        found: type[Attack] = getattr(module, name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--attack {path}: {type(error).__name__}: {error}") from None
    except Endless:
        raise ConfigError(f"--attack {path}: it was not imported within {PATIENCE:g} s") from None
    try:
        _check(settings_of(found))
    except ConfigError as error:
        raise ConfigError(f"--attack {os.path.basename(path)}: settings of {name}: {error}") from None
    return found


def settings_of(kind: type[Attack]) -> dict[str, Any]:
    """The settings that a class asks for. ConfigError: they are no dict."""
    settings = getattr(kind, "settings", {})
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{settings!r:.80}: give a dict, such as {{'protection': 'none'}}")
    return dict(settings)


def _check(settings: dict[str, Any]) -> None:
    known("context setting", settings, SETTINGS)
    ContextSettings.of(**settings).options()


class AttackCampaign(ScheduleCampaign):
    """Schedules of LENGTH steps; a step is the seed of what the attack draws from."""

    name = "attack"
    options = ("attack",)

    @classmethod
    def expand(cls, case: Case) -> Case:
        random = Random(case["seed"])
        drawn = random.choice(PROTECTIONS)
        protection = settings_of(attack_class(case["attack"])).get("protection", drawn)
        steps = [random.getrandbits(32) for _ in range(LENGTH)]
        return {**case, "protection": protection, "steps": steps}

    def play(self, case: Case, tally: Tally) -> None:
        schedule, done = _Schedule(case, tally), 0
        try:
            for seed in case["steps"]:
                schedule.step(seed)
                done += 1
            schedule.finish()
        except Harm as harm:
            steps = case["steps"][: done + 1]
            raise Breach(harm.kind, f"step {done}: {harm.text}", {**case, "steps": steps}) from None
        finally:
            schedule.scene.close()


class _Schedule:
    """A scene with one hostile guest in it, which comes back when its context was stopped."""

    def __init__(self, case: Case, tally: Tally) -> None:
        kind = attack_class(case["attack"])
        self._path = case["attack"].rpartition(":")[0]
        self._file = os.path.basename(self._path)
        self.settings = {**settings_of(kind), "protection": case["protection"]}
        try:
            with self._users_code():
                self.attack = kind()
        except Endless:
            raise ConfigError(f"--attack {kind.__name__}(): not made within {PATIENCE:g} s") from None
        self.tally = tally
        self.wire = QueueWire(4096)
        self.scene = Scene(case["seed"], self.wire, room=PAGES)
        self.guest = self._come()

    def _come(self) -> Hostile:
        try:
            guest = Hostile(self.scene.machine, pages=PAGES, **self.settings)
        except ConfigError as error:  # only the NIC knows, such as of a MAC address that is taken
            raise ConfigError(f"--attack {self._file}: settings: {error}") from None
        guest.heir = self.scene.taker
        return guest

    def step(self, seed: int) -> None:
        scene, machine = self.scene, self.scene.machine
        self.tally.attempts += 1
        self._attack(seed)
        scene.seal()
        machine.step(ROUNDS)
        for frame in self.wire.get():
            scene.look_for_secret("a frame on the wire", frame)
        scene.talk(self.tally, machine.step, 2)
        scene.check(self.tally)
        if self.guest.context.state == abi.ContextState.CONTEXT_FAULTED:
            self._count_fault()
            self._leave()
            self.guest = self._come()

    def _attack(self, seed: int) -> None:
        """One step of the user's. Harm "hang": it does not return."""
        try:
            with self._users_code():
                self.attack.attack(self.guest, Random(seed))
        except Endless as endless:
            text = f"attack() has not returned within {PATIENCE:g} s ({self._at(endless)})"
            raise Harm("hang", text) from None

    @contextmanager
    def _users_code(self) -> Iterator[None]:
        """ConfigError: it raises. Endless: it takes longer than PATIENCE."""
        try:
            with limit(PATIENCE):
                yield
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--attack {self._at(error)}: {type(error).__name__}: {error}") from None

    def _at(self, error: BaseException) -> str:
        """The line of the user's file that an exception comes from."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == self._path]
        return f"{self._file}:{lines[-1]}" if lines else self._file

    def _count_fault(self) -> None:
        self.scene.machine.vmm.collect_faults()
        fault = self.guest.context.fault
        if fault is not None:
            self.tally.faults[fault.reason.name] = self.tally.faults.get(fault.reason.name, 0) + 1

    def _leave(self) -> None:
        """Ends the guest, and looks at what it has read and at what is left of it."""
        guest, scene = self.guest, self.scene
        self.tally.add(Tally(descriptors=guest.descriptors, refusals=dict(guest.refusals)))
        scene.look_for_secret("the guest's memory", scene.own_memory(guest.guest.domain))
        scene.machine.vmm.destroy_guest(guest.guest)
        scene.take_back()
        scene.check_held()

    def finish(self) -> None:
        self._leave()
