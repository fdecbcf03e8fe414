"""The help texts: short enough to read, whole when asked, and true."""

import re
import shlex

import pytest
from test_arguments import COMMANDS

from atd import registry
from atd.cli import build_parser, main
from atd.cli.command_parser import CommandParser


def parsers(parser: CommandParser) -> dict[str, CommandParser]:
    found = {parser.prog: parser}
    for command in parser.commands.values():
        found.update(parsers(command))
    return found


ALL = parsers(build_parser())
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ALL)
def test_help_fits_forty_lines_of_a_hundred_columns(name, capsys):
    text = shown(capsys, *name.split()[1:], "--help")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    assert "--help-all" in text


@pytest.mark.parametrize("name", ALL)
def test_help_shows_examples_which_parse(name, capsys):
    text = shown(capsys, *name.split()[1:], "--help")
    lines = re.findall(r"^  ((?:[A-Z_]+=\S+ )?atd .*)$", text.partition("\nexamples:\n")[2], re.MULTILINE)
    assert len(lines) >= (1 if name.startswith("atd prepare ") else 2)
    for line in lines:
        words = shlex.split(line.partition("atd ")[2])
        words = words[: next((i for i, word in enumerate(words) if word.startswith(">")), len(words))]
        build_parser().parse_args(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_all_shows_every_option_and_help_about_a_dozen(name, capsys):
    short, whole = (shown(capsys, *name.split()[1:], flag) for flag in ("--help", "--help-all"))
    flags = {action.option_strings[-1] for action in COMMANDS[name].options}
    assert flags <= set(FLAG.findall(whole))
    starts = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", short, re.MULTILINE)
    assert 2 <= len(starts) <= 14
    assert {"--quiet", "--verbose", "--traceback"} <= flags - set(starts)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_mentions_nothing_that_does_not_exist(name, capsys):
    text = shown(capsys, *name.split()[1:], "--help-all")
    own = {flag for action in COMMANDS[name].options for flag in action.option_strings}
    everywhere = {flag for parser in COMMANDS.values() for action in parser.options for flag in action.option_strings}
    prose = text.partition("\nexamples:\n")[0]
    assert set(FLAG.findall(prose)) <= own
    assert set(FLAG.findall(text)) <= everywhere
    for command in re.findall(r"\batd ([a-z]+)", text):
        assert command in build_parser().commands
    for model in re.findall(r"\batd_[a-z_0-9]+", text):
        assert registry.list_models(f"{model}*")


def test_help_of_a_choice_between_two_flags_shows_the_first(capsys):
    text = shown(capsys, "restore", "--help")
    assert "--device" in text
    assert "--gpu" not in text


def test_a_missing_option_is_told_with_one_line_of_usage(capsys):
    with pytest.raises(SystemExit):
        main(["restore", "-i", "a.png"])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: atd restore -i PATH [PATH ...] -o PATH [options]"
    assert "-o/--output" in error


def test_version_is_the_packages(capsys):
    import atd

    assert shown(capsys, "--version") == f"atd {atd.__version__}\n"
