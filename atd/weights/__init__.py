"""Weight files and where they come from; what a network is, this room learns from those that call it.

Nothing is imported here: `atd.weights.hub`, which the command line asks where weights lie, needs no torch.
"""
