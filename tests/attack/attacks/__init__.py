"""Attacks on the library: each module is one area, an endless stream of cases that do their own judging.

A case is a function. It returns when the library did as it should with something good, raises what the library raised
when it refused something, and raises `Wrong` when it finds that the library has done wrong. Pixels are judged by
readers that are not ours (`independent_readers`), weights by what was written into them.

``python tests/attack --help`` runs them for a time; `tests/attack/test_attack.py` runs the first ones of each area.
"""
