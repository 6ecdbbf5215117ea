"""Options of a command for the settings of a guest, from their declarations (`cdna.extend.setting`)."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import typer

from cdna.lab.kinds import DEFAULT, KINDS

Command = Callable[..., int]
NONE: Mapping[str, str] = MappingProxyType({})


def default_settings(*, shared: bool) -> tuple[str, ...]:
    """The settings of a guest of the default kind that are options; shared: of all guests of a lab alike."""
    return tuple(s.name for s in KINDS[DEFAULT].all_settings if s.form and (s.shared or not shared))


def live_settings() -> str:
    """The settings that guests which run can change, whatever their kinds."""
    return ", ".join(dict.fromkeys(name for kind in KINDS.own for name in KINDS[kind].live))


def with_settings(*, shared: bool) -> Callable[[Command], Command]:
    """Gives a command an option for each setting, in place of `settings`, which has those that are given."""
    names = default_settings(shared=shared)

    def add(command: Command) -> Command:
        def run(**arguments: Any) -> int:
            given = {name: arguments.pop(name) for name in names}
            return command(settings={k: v for k, v in given.items() if v is not None}, **arguments)

        hints = get_type_hints(command, include_extras=True)
        options = {s.name: _option(s.form, s.help) for s in KINDS[DEFAULT].all_settings if s.name in names}
        parameters = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name != "settings":
                parameters.append(parameter.replace(annotation=hints[parameter.name]))
                continue
            keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters += [
                inspect.Parameter(name, keyword, default=None, annotation=options[name]) for name in names
            ]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return add


def _option(form: str, help: str) -> Any:
    return Annotated[str | None, typer.Option(metavar=form, help=help)]
