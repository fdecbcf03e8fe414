"""Measurements: ``python -m benchmarks`` times ops, networks and a training step; the modules beside it do the rest."""
