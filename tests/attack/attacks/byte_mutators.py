"""Damage to bytes of any meaning."""

from __future__ import annotations

from random import Random

INTERESTING = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 4095, 32_767, 32_768, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers at which sizes, signs and types end."""


def cut(data: bytes, random: Random) -> bytes:
    """Lose the end: up to everything, or only a few bytes."""
    return data[: random.choice([random.randrange(len(data)), len(data) - random.randint(1, min(16, len(data)))])]


def zero_tail(data: bytes, random: Random) -> bytes:
    """What a file system leaves of a file whose last blocks were never written."""
    kept = random.randrange(len(data) // 4, len(data))
    return data[:kept] + bytes(len(data) - kept)


def change_bytes(data: bytes, random: Random) -> bytes:
    """Other values at a few places, near the start more often than not."""
    damaged = bytearray(data)
    span = random.choice([min(64, len(data)), min(512, len(data)), len(data)])
    for _ in range(random.randint(1, 8)):
        damaged[random.randrange(span)] = random.choice([0, 1, 127, 128, 255, random.randrange(256)])
    return bytes(damaged)


def flip_bit(data: bytes, random: Random) -> bytes:
    """One bit, anywhere."""
    damaged = bytearray(data)
    damaged[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def insert(data: bytes, random: Random) -> bytes:
    """Bytes that nobody asked for."""
    place = random.randrange(len(data))
    return data[:place] + random.randbytes(random.randint(1, 40)) + data[place:]


def remove(data: bytes, random: Random) -> bytes:
    """A hole."""
    place = random.randrange(len(data))
    return data[:place] + data[place + random.randint(1, 40) :]


def repeat(data: bytes, random: Random) -> bytes:
    """A part twice."""
    place = random.randrange(len(data))
    part = data[place : place + random.randint(1, 200)]
    return data[:place] + part + data[place:]


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one file, the end of another."""
    return data[: random.randrange(1, len(data))] + other[random.randrange(len(other)) :]


ANYWHERE = (change_bytes, flip_bit, insert, remove, repeat)
"""Those after which a file may be whole or broken: nobody knows before a reader has looked."""
