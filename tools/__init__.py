"""Maintainers' scripts, run from a checkout as ``python -m tools.NAME``; no part of the wheel."""
