"""`atd completion`: a script that completes commands, options and names in a shell.

The script is made from the parser of `atd` and holds all words itself: completing starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atd.cli.command_parser import CommandParser, Subcommands

FILES = "<files>"
"""Stands among the words for every file and folder."""


@dataclass(frozen=True)
class Option:
    """One option of a command; `words` complete its value, None where it takes none."""

    flags: tuple[str, ...]
    words: tuple[str, ...] | None
    help: str


@dataclass(frozen=True)
class Command:
    """A command, such as ("restore",) or ("prepare", "sr"), and what may follow it beside options."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description="Print a script that completes commands, options and the names of networks and recipes with the "
        "Tab key. Print it anew after an upgrade.",
        examples=(
            ("atd completion bash >> ~/.bashrc", "for bash; fits zsh too: atd completion zsh >> ~/.zshrc"),
            ("atd completion fish > ~/.config/fish/completions/atd.fish", "for fish"),
        ),
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd.cli import build_parser

    commands = list(describe(build_parser()))
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[args.shell](commands), end="")
    return 0


def describe(parser: CommandParser, path: tuple[str, ...] = (), help: str = "") -> Iterator[Command]:
    """`parser` and the commands below it."""
    options = tuple(
        Option(tuple(action.option_strings), None if action.nargs == 0 else _words(action), _one_line(action.help))
        for action in parser.options
    )
    # The second file of `-i FILE FILE` stands where a positional argument would.
    several = [action for action in parser.options if action.nargs in ("+", "*")]
    words = [word for action in (*parser.positionals, *several) for word in _words(action)]
    yield Command(path, help, options, tuple(dict.fromkeys(words)))
    for name, command in parser.commands.items():
        yield from describe(command, (*path, name), _one_line(command.description))


def bash_script(commands: list[Command]) -> str:
    """The script for bash."""
    options: list[str] = []
    values: list[str] = []
    follow: list[str] = []
    for command in commands:
        key = " ".join(command.path)
        flags = " ".join(flag for option in command.options for flag in option.flags)
        options.append(f'        "{key}") words="{flags}" ;;')
        follow.append(f'        "{key}") words="{" ".join(command.words)}" ;;')
        for option in command.options:
            if option.words is not None:
                patterns = "|".join(f'"{key} {flag}"' for flag in option.flags)
                values.append(f'        {patterns}) words="{" ".join(option.words)}"; found=1 ;;')
    kinds = "|".join(f'"{" ".join(command.path)}"' for command in commands if command.path)
    return _BASH.format(
        options="\n".join(options), values="\n".join(values), follow="\n".join(follow), kinds=kinds, files=FILES
    )


def zsh_script(commands: list[Command]) -> str:
    """The script for zsh: that of bash, which zsh reads by a function of its own."""
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script(commands)


def fish_script(commands: list[Command]) -> str:
    """The script for fish."""
    lines = ["complete -c atd -f"]
    names = {command.path: [c for c in commands if c.path[:-1] == command.path and c.path] for command in commands}
    for command in commands:
        below = names[command.path]
        seen = [f"__fish_seen_subcommand_from {name}" for name in command.path]
        if below:
            seen.append(f"not __fish_seen_subcommand_from {' '.join(c.path[-1] for c in below)}")
        start = f"complete -c atd -n {_quoted('; and '.join(seen))}"
        lines += [f"{start} -a {c.path[-1]} -d {_quoted(c.help)}" for c in below]
        if not below and command.words:
            lines.append(f"{start}{_fish_words(command.words)}")
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            value = "" if option.words is None else f" -x{_fish_words(option.words)}"
            lines.append(f"{start} {flags}{value} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _fish_words(words: tuple[str, ...]) -> str:
    plain = " ".join(word for word in words if word != FILES)
    if FILES in words:
        return f" -a {_quoted(plain + ' (__fish_complete_path (commandline -ct))')}"
    return f" -a {_quoted(plain)}" if plain else ""


def _words(action: argparse.Action) -> tuple[str, ...]:
    """What completes the value of an option, or a positional argument."""
    from atd import registry

    if action.choices is not None:
        return tuple(str(choice) for choice in action.choices)
    if action.type is Path:
        return (FILES,)
    if action.dest in ("recipe", "show"):
        from atd.training import recipes

        return (*recipes.names(), FILES)
    return {
        "model": (*registry.list_models(), FILES),
        "a": tuple(registry.list_models()),
        "b": tuple(registry.list_models()),
        "name": tuple(registry.list_models()),
        "source": (*registry.list_models(), FILES),
        "names": ("all", *registry.list_models()),
        "pattern": (*registry.list_models(), FILES),
        "weights": ("official", "bundled", FILES),
        "device": ("cpu", "cuda"),
        "tile": ("auto", "0"),
    }.get(action.dest, ())


def _one_line(text: str | None) -> str:
    """The first sentence, or what stands before the first semicolon."""
    return (text or "").partition(". ")[0].partition(";")[0].rstrip(".")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_BASH = """\
_atd_complete() {{
    local cur prev command word words found i
    cur="${{COMP_WORDS[COMP_CWORD]}}"
    prev="${{COMP_WORDS[COMP_CWORD-1]}}"
    command=""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        case "${{command:+$command }}$word" in
        {kinds}) command="${{command:+$command }}$word" ;;
        esac
    done
    words="" found=""
    if [[ "$cur" == -* ]]; then
        case "$command" in
{options}
        esac
    else
        case "$command $prev" in
{values}
        esac
        if [[ -z "$found" ]]; then
            case "$command" in
{follow}
            esac
        fi
    fi
    COMPREPLY=( $(compgen -W "${{words//{files}/}}" -- "$cur") )
    if [[ "$words" == *"{files}"* ]]; then
        local IFS=$'\\n'
        COMPREPLY+=( $(compgen -f -- "$cur") )
        type compopt >/dev/null 2>&1 && compopt -o filenames 2>/dev/null
    fi
}}
complete -F _atd_complete atd
"""
