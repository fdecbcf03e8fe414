"""One meaning per word: the same flag is the same thing in every command, and old spellings still work."""

import argparse
import shlex
import typing
from pathlib import Path

import pytest

from atd.cli import build_parser
from atd.cli.arguments import DTYPES
from atd.cli.command_parser import CommandParser
from atd.degrade import Border
from atd.evaluation import candidates
from atd.images.gray import GrayFromColour
from atd.metrics import Channel
from atd.ops import backend
from atd.restoration.channels import AlphaUpsampler
from atd.training import recipes
from atd.weights.format import Params


def parse(line: str) -> argparse.Namespace:
    return build_parser().parse_args(shlex.split(line))


def leaves(parser: CommandParser) -> dict[str, CommandParser]:
    """Every command that does something, by its whole name."""
    below = parser.commands
    if not below:
        return {parser.prog: parser}
    return {name: leaf for command in below.values() for name, leaf in leaves(command).items()}


COMMANDS = leaves(build_parser())
NETWORK_COMMANDS = ("atd restore", "atd evaluate", "atd compare")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("restore -i a -o b --jobs 3", "restore -i a -o b --workers 3"),
        ("evaluate bicubic --data d --out r", "evaluate bicubic --data d --output r"),
        ("evaluate bicubic --data d --out r", "evaluate bicubic --data d -o r"),
        ("compare a b --data d --out r", "compare a b --data d -o r"),
        ("train 103 --data d --out r", "train 103 --data d -o r"),
        ("train 103 --data d -o r batch=8", "train 103 --data d -o r --set batch=8"),
        ("train 103 batch=8 --data d -o r config.bias=1", "train 103 --data d -o r --set batch=8 --set config.bias=1"),
        ("train --show 103 batch=8", "train --show 103 --set batch=8"),
        ("train --show 103 batch=8 --set lr=1 seed=2", "train --show 103 --set batch=8 --set lr=1 --set seed=2"),
    ],
)  # fmt: skip
def test_an_old_spelling_means_what_it_meant(old, new):
    assert parse(old) == parse(new)


def test_old_spellings_are_in_no_help_and_no_completion():
    for parser in COMMANDS.values():
        flags = {flag for action in parser.options for flag in action.option_strings}
        assert not flags & {"--out", "--jobs"}
        assert not {"--out", "--jobs"} & set(parser.format_whole_help().replace(",", " ").split())


def test_an_unset_alias_leaves_the_default():
    assert parse("restore -i a -o b").workers == 1
    assert parse("evaluate bicubic --data d").output is None
    assert parse("train --list").overrides == []


def test_set_reaches_the_recipe():
    overrides = parse("train --show 103 --set lr=1e-4 --set 'batch=[8]'").overrides
    changed = recipes.get("103").override(overrides)
    assert (changed.lr, changed.batch) == (1e-4, (8,))


@pytest.mark.parametrize("command", NETWORK_COMMANDS)
@pytest.mark.parametrize(
    "flag", ["--device", "--dtype", "--backend", "--tile", "--overlap", "--self-ensemble", "--weights"]
)
def test_how_a_network_runs_is_said_alike_wherever_one_runs(command, flag):
    actions = [
        next(action for action in COMMANDS[name].options if flag in action.option_strings) for name in NETWORK_COMMANDS
    ]
    this = actions[NETWORK_COMMANDS.index(command)]
    assert this.dest == flag[2:].replace("-", "_")
    assert {action.type for action in actions} == {this.type}
    assert {action.metavar for action in actions} == {this.metavar}


def test_every_command_that_writes_takes_output():
    for name in ("restore", "convert", "evaluate", "compare", "train", "prepare sr", "prepare dfwb", "degrade"):
        (action,) = [action for action in COMMANDS[f"atd {name}"].options if "--output" in action.option_strings]
        assert action.option_strings == ["-o", "--output"]
        assert action.type is Path


def test_choices_are_those_of_the_rooms_that_use_them():
    for name in NETWORK_COMMANDS:
        chosen = {action.dest: action.choices for action in COMMANDS[name].options}
        assert tuple(chosen["backend"] or ()) == tuple(backend.BACKENDS)
        assert set(chosen["dtype"] or ()) <= set(DTYPES)
    assert candidates.DTYPES is DTYPES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("restore -i a -o b --tile big", "expected auto, 0 or a number of pixels, got 'big'"),
        ("restore -i a -o b --tile -3", "expected auto, 0 or a number of pixels, got '-3'"),
        ("restore -i a -o b --workers 0", "expected a number of at least 1, got '0'"),
        ("prepare dfwb -i a -o b --workers -1", "expected a number of at least 1, got '-1'"),
        ("restore -i a -o b --backend cuda", "invalid choice: 'cuda'"),
        ("restore -i a -o b --gpu 0,1", "torchrun"),
        ("restore -i a -o b --gpu 0 --device cpu", "not allowed with"),
        ("restore -i a -o b --dtype flaot32", "did you mean float32?"),
        ("evaluate identity --data d --sigma loud", "expected a number, got 'loud'"),
    ],
)
def test_a_value_that_is_none_is_told_with_a_short_usage(capsys, line, message):
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("restroe -i a -o b", "there is no command 'restroe', did you mean restore?"),
        ("prepare srr", "did you mean sr?"),
        ("-i a -o b", "-i is an option of atd restore"),
        ("", "atd --help shows the commands"),
        (str(Path(__file__)), f"to restore it, atd restore -i {Path(__file__)} -o OUTPUT"),
        ("restore --inptu a -o b", "did you mean --input instead of --inptu?"),
        ("restore -i a -o b --ouscale=2", "did you mean --outscale instead of --ouscale?"),
        ("restore -i a -o b --self_ensembel", "did you mean --self-ensemble instead of --self_ensembel?"),
        ("restore -i a -o b --half", "did you mean --dtype fp16 instead of --half?"),
        ("restore -i a -o b --tile_pad 10", "did you mean --overlap (twice the pad) instead of --tile_pad?"),
        ("restore -i a -o b -dn 0.5", "did you mean --denoise instead of -dn?"),
        ("evaluate a --dat d", None),
        ("evaluate a --dta d", "did you mean --data instead of --dta?"),
        ("train 103 --data d -o r --learning_rate 1e-3", "--set lr=VALUE"),
        ("train 103 --data d -o r --lr 1e-3", "--set lr=VALUE"),
        ("train 103 --data d -o r --batch-size 4", "--set batch=VALUE"),
        ("restore -i a -o b stray", "unrecognized arguments: stray"),
    ],
)
def test_what_a_mistyped_word_was_meant_as(capsys, line, meant):
    if meant is None:  # a flag cut short is none
        assert parse(line)
        return
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: atd ")
    assert meant in error


def test_dtypes_by_their_short_names():
    for short, name in (("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"), ("torch.float16", "float16")):
        assert parse(f"restore -i a -o b --dtype {short}").dtype == name
        assert parse(f"evaluate a --data d --dtype {short}").dtype == name


def test_quiet_verbose_and_traceback_are_taken_by_every_command_and_before_it():
    lines = {
        "restore": "-i a -o b", "convert": "a", "download": "a", "export": "a -o b", "evaluate": "a --data d",
        "compare": "a b --data d", "explain": "a -o b",
        "prepare sr": "-i a -o b --name n", "prepare dfwb": "-i a -o b", "completion": "bash",
        "degrade": "-i a -o b", "advise": "a",
    }  # fmt: skip
    for name in COMMANDS:
        name = name.removeprefix("atd ")
        words = f"{name} {lines.get(name, '')}"
        for flag in ("quiet", "verbose", "traceback"):
            assert getattr(parse(f"{words} --{flag}"), flag) is True
            assert getattr(parse(f"--{flag} {words}"), flag) is True
            assert getattr(parse(words), flag) is False


@pytest.mark.parametrize(
    ("command", "option", "type_"),
    [
        ("evaluate", "--border", Border),
        ("evaluate", "--channel", Channel),
        ("evaluate", "--gray-from-colour", GrayFromColour),
        ("evaluate", "--params", Params),
        ("restore", "--alpha-upsampler", AlphaUpsampler),
        ("restore", "--params", Params),
        ("convert", "--params", Params),
    ],
)
def test_choices_are_those_of_the_functions(command, option, type_):
    """The command line is built without torch, which the modules of these types import: it writes them once more."""
    (action,) = [action for action in build_parser().commands[command].options if option in action.option_strings]
    assert tuple(action.choices) == typing.get_args(type_)
