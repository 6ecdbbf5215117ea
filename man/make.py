"""Writes the man pages: cdna.1, and a page a command.

Name, synopsis and options are those of the command line itself; what else a page says is in more/NAME.man, in
man(7). `make man` runs this, and a test compares its result with the pages that are here.
"""

import sys
from pathlib import Path
from typing import Any

import typer

from cdna.cli.program import COMMANDS, command_line

HERE = Path(__file__).parent
PAGES = HERE / "man1"  # where `man -M man` looks
STATUS = """\
.TP
.B 0
Done.
.TP
.B 2
Bad arguments, or something that this machine does not have.
One line on standard error says what would be right.
"""
# What a page says where it is not what every command has.
STATUSES = {
    "compare": ".TP\n.B 1\nMeasured, but frames went missing.\n",
    "fuzz": ".TP\n.B 1\nProtection has failed; the case is in a file, or still fails (\\-\\-replay).\n",
    "exec": ".TP\n.I any\nThat of the program.\n",
}


def escaped(text: str) -> str:
    """Text as man(7) shows it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in text.splitlines())


def first_sentence(text: str) -> str:
    line = text.strip().splitlines()[0].strip()
    sentence = line.split(". ")[0].split(": ")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def options_of(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option" and not param.hidden]


def synopsis(path: str, command: Any) -> str:
    words = [f"\\fB{escaped(path)}\\fR"]
    if options_of(command):
        words.append("[\\fIoptions\\fR]")
    for param in command.params:
        if param.param_type_name == "argument":
            name = escaped((param.metavar or param.name).strip("[]"))
            words.append(f"\\fI{name}\\fR" if param.required else f"[\\fI{name}\\fR]")
    return " ".join(words) + "\n"


def option_list(command: Any) -> str:
    text = ""
    for param in options_of(command):
        names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in (*param.opts, *param.secondary_opts))
        value = "" if param.is_flag else f" \\fI{escaped(param.metavar or param.name.upper())}\\fR"
        text += f".TP\n{names}{value}\n{escaped(param.help or '')}\n"
    return text


def page(name: str, command: Any) -> str:
    """The page of a command; of cdna itself if the name is empty."""
    title = f"cdna-{name}" if name else "cdna"
    path = title.replace("-", " ", 1)
    help = command.help.strip()
    more = HERE / "more" / f"{name or 'cdna'}.man"
    parts = [
        f".\\\" Written by man/make.py; what is not the command line's own is in man/more/{more.name}.\n",
        f'.TH {escaped(title).upper()} 1 "" "cdna" "User Commands"\n',
        f".SH NAME\n{escaped(title)} \\- {escaped(first_sentence(help))}\n",
    ]
    commands = getattr(command, "commands", {})
    if commands:
        parts.append(f".SH SYNOPSIS\n\\fB{escaped(path)}\\fR \\fIcommand\\fR ...\n")
    else:
        parts.append(".SH SYNOPSIS\n" + synopsis(path, command))
    parts.append(f".SH DESCRIPTION\n{escaped(' '.join(help.split()))}\n")
    if options_of(command):
        parts.append(".SH OPTIONS\n" + option_list(command))
    if name and commands:
        parts.append(".SH COMMANDS\n")
        for sub, what in commands.items():
            parts.append(f".SS {escaped(sub)}\n" + synopsis(f"{path} {sub}", what))
            parts.append(f".PP\n{escaped(what.help)}\n" + option_list(what))
    elif commands:
        parts.append(".SH COMMANDS\n")
        for sub, what in commands.items():
            parts.append(f".TP\n.BR cdna\\-{sub} (1)\n{escaped(first_sentence(what.help))}\n")
    if more.exists():
        parts.append(more.read_text())
    parts.append(".SH EXIT STATUS\n" + STATUS + STATUSES.get(name, ""))
    others = ["cdna", *(f"cdna-{other}" for other in COMMANDS)]
    near = [f".BR {escaped(other)} (1)" for other in others if other != title]
    parts.append(".SH SEE ALSO\n" + ",\n".join(near) + "\n")
    return "".join(parts)


def pages() -> dict[str, str]:
    """Each page by its file's name."""
    whole = typer.main.get_command(command_line(COMMANDS))
    made = {"cdna.1": page("", whole)}
    for name, command in whole.commands.items():  # type: ignore[attr-defined]
        made[f"cdna-{name}.1"] = page(name, command)
    return made


def main() -> int:
    made = pages()
    for old in PAGES.glob("*.1"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (PAGES / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
