"""A parser of one command with two help texts: `--help` for the start, `--help-all` for everything."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from atd.cli.suggestions import flag_for, nearest

if TYPE_CHECKING:
    # argparse has no public name for what add_subparsers() returns.
    Subcommands = argparse._SubParsersAction["CommandParser"]  # pyright: ignore[reportPrivateUsage]


class CommandParser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose `--help` is short.

    Every command also takes ``--quiet``, ``--verbose`` and ``--traceback``, which the short help leaves out.

    Args:
        common: destinations of the options that `--help` shows, in this order; `--help-all` shows all, in their groups.
            Positional arguments are always shown.
        examples: pairs of a command line and what it does.
        rewrite: applied to the words of the command line before they are parsed.
        hint: what to do instead of an unknown flag or command, in words; None where it does not know either.
        options: as in `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        *,
        common: Sequence[str] = (),
        examples: Sequence[tuple[str, str]] = (),
        rewrite: Callable[[Sequence[str]], list[str]] | None = None,
        hint: Callable[[str], str | None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(formatter_class=_Formatter, **options)
        self._common = tuple(common)
        self._examples = tuple(examples)
        self._rewrite = rewrite
        self._hint = hint
        self._words: list[str] = []
        self.add_argument("--help-all", action=_HelpAll, help="show every option")
        messages = self.add_argument_group("messages")
        # No defaults here: they would undo what was said before the kind in `atd prepare --quiet sr`.
        absent = argparse.SUPPRESS
        messages.add_argument("--quiet", action="store_true", default=absent, help="print warnings and errors only")
        messages.add_argument("--verbose", action="store_true", default=absent, help="tell more of what is going on")
        messages.add_argument(
            "--traceback", action="store_true", default=absent, help="show where in the program an error came from"
        )

    @property
    def options(self) -> list[argparse.Action]:
        """The options that help may show: not the old spellings."""
        return [action for action in self._visible() if action.option_strings]

    @property
    def positionals(self) -> list[argparse.Action]:
        """What is given without a flag."""
        return [action for action in self._visible() if not action.option_strings]

    @property
    def commands(self) -> dict[str, CommandParser]:
        """The parsers of the commands below this one."""
        found: dict[str, CommandParser] = {}
        for action in self._actions:
            found.update(_commands_of(action))
        return found

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  (typeshed has further overloads)
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:
        """As in argparse, after the rewriting of the words; what is not known is an error of this command."""
        words = list(sys.argv[1:] if args is None else args)
        words = self._rewrite(words) if self._rewrite else words
        self._words = [self._hyphenated(word) for word in words]
        namespace, unknown = super().parse_known_args(self._words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Two lines on stderr, usage and error with what an unknown flag was meant as; exit status 2."""
        words = self._words
        if self.commands:  # what stands behind a command is none of this parser's
            words = list(itertools.takewhile(lambda word: word.startswith("-"), words))
        hints = [hint for word in words if (hint := self._hint_for(word))]
        if self.commands:
            hints.append(f"{self.prog} --help shows the commands")
        message = "; ".join([" ".join(message.split()), *dict.fromkeys(hints)])
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {message}\n")

    def format_usage(self) -> str:
        """One line: what must be given, and [options] for the rest."""
        formatter = _Formatter(self.prog, width=10_000)
        formatter.add_usage(self._usage(), [], [])
        return formatter.format_help()

    def format_help(self) -> str:
        """The short help: what must be given, the common options, the examples."""
        shown: dict[str, argparse.Action] = {}
        for action in self.options:
            shown.setdefault(action.dest, action)
        sections = [("options", [shown[dest] for dest in (*self._common, "help", "help_all")])]
        return self._help([("commands" if self.commands else "arguments", self.positionals), *sections])

    def format_whole_help(self) -> str:
        """The help with every option, in groups."""
        titles = {"positional arguments": "arguments", "options": "other"}
        groups = [
            (titles.get(group.title or "", group.title or ""), [a for a in group._group_actions if self._is_shown(a)])
            for group in self._action_groups
        ]
        # The groups that argparse makes itself come first there; "other" and the messages belong to the end.
        last = ("other", "messages")
        return self._help(sorted(groups, key=lambda group: last.index(group[0]) + 1 if group[0] in last else 0))

    def _help(self, sections: Sequence[tuple[str, Sequence[argparse.Action]]]) -> str:
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(self._usage(), [], [])
        formatter.add_text(self.description)
        for title, actions in sections:
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        text = formatter.format_help()
        if self._examples:
            lines = [line for command, what in self._examples for line in (f"  {command}", f"      {what}")]
            text += "\n".join(["", "examples:", *lines, ""])
        return text

    def _usage(self) -> str:
        if self.usage:
            return self.usage
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(None, self.positionals, [], prefix="")
        formatter.add_usage(None, [action for action in self.options if action.required], [], prefix="")
        parts = [
            " ".join(part.split()).removeprefix(self.prog).strip() for part in formatter.format_help().split("\n\n")
        ]
        return " ".join([self.prog, *filter(None, parts), "[options]"]).replace("%", "%%")

    def _hyphenated(self, word: str) -> str:
        """``--self_ensemble=…`` as ``--self-ensemble=…``, where this command has that."""
        flag, separator, value = word.partition("=")
        hyphenated = flag.replace("_", "-")
        known = flag.startswith("--") and hyphenated in self._option_string_actions
        return f"{hyphenated}{separator}{value}" if known else word

    def _hint_for(self, word: str) -> str | None:
        """What an unknown flag was meant as, in words; None for everything else."""
        flag = word.partition("=")[0]
        if not flag.startswith("-") or flag in ("-", "--") or flag[1:].replace(".", "").isdigit():
            return None
        flags = [string for action in self._visible() for string in action.option_strings]
        known = self._option_string_actions
        # "-i" may have its value behind it; long flags may be cut short as long as they are unique.
        if flag in known or (flag[:2] in known if flag[1] != "-" else any(k.startswith(flag) for k in known)):
            return None
        owner = next((command for command in self.commands.values() if flag in command._option_string_actions), None)
        if owner is not None:
            return f"{flag} is an option of {owner.prog}"
        if self._hint and (hint := self._hint(flag)):
            return hint
        meant = flag_for(flag, flags)
        return f"did you mean {meant} instead of {flag}?" if meant else None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As in argparse, with the nearest choice."""
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        near = nearest(str(value), names)
        meant = f", did you mean {near}?" if near else ""
        if _commands_of(action):
            hint = self._hint(str(value)) if self._hint else None
            meant = f": {hint}" if hint else meant or f": {', '.join(names)}"
            raise argparse.ArgumentError(None, f"there is no command {value!r}{meant}")
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant} (choose from {', '.join(names)})")

    def _visible(self) -> Iterator[argparse.Action]:
        return (action for action in self._actions if self._is_shown(action))

    @staticmethod
    def _is_shown(action: argparse.Action) -> bool:
        return action.help is not argparse.SUPPRESS


def _commands_of(action: argparse.Action) -> Mapping[str, CommandParser]:
    """The parsers of the commands among which `action` chooses; none where it stands for anything else."""
    choices = action.choices
    # argparse has no public name for it.
    if not isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
        return {}
    return cast("Mapping[str, CommandParser]", choices)


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.dest = dest

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, CommandParser)
        print(parser.format_whole_help(), end="")
        parser.exit()


class _Formatter(argparse.HelpFormatter):
    """One column for the flags, wide enough for most; a flag's value is named once: ``-o, --output PATH``."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=30, **options)

    def add_argument(self, action: argparse.Action) -> None:
        """Make room for the indent of the list of commands, which argparse forgets."""
        super().add_argument(action)
        if _commands_of(action):
            self._action_max_length += self._indent_increment

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"
