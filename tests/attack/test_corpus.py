"""The committed corpus of the fuzzer, replayed: every file is taken or refused by an error of ours."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("pyvips", reason="libvips is not installed")

from attacks.fuzz_targets import CORPUS, TARGETS

from atd.errors import AtdError


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken_or_refused_by_errors_of_ours(name):
    files = sorted((CORPUS / name).iterdir())
    taken, refused = [], []
    logging.disable(logging.CRITICAL)
    try:
        for file in files:
            for target in TARGETS[name]:
                try:
                    target(file.read_bytes())
                except AtdError:
                    refused.append((file.name, target))
                else:
                    taken.append((file.name, target))
    finally:
        logging.disable(logging.NOTSET)
    assert taken
    # The detection's files are networks, each of its own family.
    assert refused or name == "detection"


def test_the_corpus_is_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) <= 60
    assert sum(path.stat().st_size for path in files) <= 200_000
