"""What a mistyped word was meant as: the nearest flag or command, and the flags that other programs have instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OTHER_PROGRAMS = {
    "--batch": "--batch-size",
    "--bf16": "--dtype bf16",
    "--denoise-strength": "--denoise",
    "-dn": "--denoise",
    "--dst": "--output",
    "--ext": "--format",
    "--fp16": "--dtype fp16",
    "--fp32": "--dtype fp32",
    "--half": "--dtype fp16",
    "--in-path": "--input",
    "--jobs": "--workers",
    "--model-path": "--model",
    "--num-workers": "--workers",
    "--out-path": "--output",
    "--out-scale": "--outscale",
    "--precision": "--dtype",
    "--src": "--input",
    "--tile-overlap": "--overlap",
    "--tile-pad": "--overlap (twice the pad)",
    "--tile-size": "--tile",
    "--tta": "--self-ensemble",
    "--upscale": "--outscale",
    "-b": "--batch-size",
    "-f": "--format",
    "-j": "--workers",
    "-m": "--model",
    "-r": "--recursive",
    "-x": "--self-ensemble",
}
"""Flags of other restoration programs, and what means the same here, in the commands that have it."""


def flag_for(word: str, flags: Iterable[str]) -> str | None:
    """The one of `flags` that was probably meant by the unknown flag `word`; None where nothing is near."""
    flags = list(flags)
    name = word.partition("=")[0].lower().replace("_", "-")
    meant = OTHER_PROGRAMS.get(name)
    if meant is not None and meant.split()[0] in flags:
        return meant
    long = {flag.lstrip("-"): flag for flag in flags if flag.startswith("--")}
    near = nearest(name.lstrip("-"), long)
    return long[near] if near is not None else None


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The one of `choices` that is written most like `word`; None where none is."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return near[0] if near else None
