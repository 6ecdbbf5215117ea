"""What the arguments of a step may be: drawn from a seed here, and by hypothesis in the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Whole:
    """A whole number, both ends included."""

    least: int
    most: int

    def draw(self, random: Random) -> int:
        return random.randint(self.least, self.most)


class OneOf:
    """One of these values; what is given twice comes twice as often."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def draw(self, random: Random) -> Any:
        return random.choice(self.values)


class Either:
    """As one of these has it."""

    def __init__(self, *specs: Spec) -> None:
        self.specs = specs

    def draw(self, random: Random) -> Any:
        return random.choice(self.specs).draw(random)


class Together:
    """One of each, in a list."""

    def __init__(self, *specs: Spec) -> None:
        self.specs = specs

    def draw(self, random: Random) -> list[Any]:
        return [spec.draw(random) for spec in self.specs]


@dataclass(frozen=True)
class Several:
    """A list of them."""

    spec: Spec
    least: int
    most: int

    def draw(self, random: Random) -> list[Any]:
        return [self.spec.draw(random) for _ in range(random.randint(self.least, self.most))]


Spec = Whole | OneOf | Either | Together | Several
Step = list[Any]  # [name, {argument: value}], as JSON has it


class Steps:
    """The steps of a machine by name, each with what its arguments may be.

    steps = Steps()

    @steps.step(count=Whole(1, 4))
    def send(machine, count): ...

    random_step = steps.draw(random)        # ["send", {"count": 3}]
    """

    def __init__(self) -> None:
        self.arguments: dict[str, dict[str, Spec]] = {}

    def step(self, **arguments: Spec) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def register(function: Callable[..., None]) -> Callable[..., None]:
            self.arguments[function.__name__] = arguments
            return function

        return register

    def draw(self, random: Random) -> Step:
        name = random.choice([*self.arguments])
        return [name, {key: spec.draw(random) for key, spec in self.arguments[name].items()}]

    def do(self, machine: object, step: Step) -> None:
        """Carries a step out. ValueError: it is none of these."""
        name, arguments = step
        if name not in self.arguments or arguments.keys() != self.arguments[name].keys():
            raise ValueError(f"step {name!r}: give one of {', '.join(self.arguments)}, with its arguments")
        getattr(machine, name)(**arguments)
