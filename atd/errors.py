"""The exception of everything that finds, reads, checks or saves weights."""


class LoadError(RuntimeError):
    """A model or its weights could not be had; the message says what happened, why, and what mends it."""
