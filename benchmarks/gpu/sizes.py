"""How large everything is, on a card and in a rehearsal without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Overrides = Mapping[str, object]
"""Arguments of a network's constructor in place of the published ones."""


@dataclass(frozen=True)
class Sizes:
    """The inputs of all calls. Networks are named as in `benchmarks.cases.NETWORKS`."""

    goals: tuple[tuple[str, int, int], ...]
    """Networks that the goals are about, with height and width."""
    further: tuple[tuple[str, int, int], ...]
    profiles: tuple[tuple[str, int], ...]
    """Networks and the side of the image in a forward."""
    training: tuple[tuple[str, int, int], ...]
    """Networks, batch and side of a patch."""
    op_side: int
    memory_sides: tuple[int, ...]
    largest: tuple[str, ...]
    largest_sides: tuple[int, int, int]
    """First side that is tried, the step, and the last."""
    goldens: tuple[str, ...]
    """Patterns of files in tests/golden."""
    seconds: float
    """Time for the samples of one figure."""
    overrides: Mapping[str, Overrides] = field(default_factory=dict[str, Overrides])
    """By the architecture of the network."""


CARD = Sizes(
    goals=(("ATD x4", 256, 256), ("ATD-light x4", 256, 256), ("ATD-light x4", 180, 320)),
    further=(
        ("ATD x4", 128, 128),
        ("ATD-light x4", 128, 128),
        ("CVPR ATD x4", 256, 256),
        ("ATD-U colour", 256, 256),
        ("ATD x4", 512, 512),
        ("ATD-light x4", 512, 512),
        ("ATD-U colour", 512, 512),
    ),
    profiles=(("ATD x4", 256), ("ATD-light x4", 256), ("ATD-U colour", 256), ("CVPR ATD x4", 256)),
    training=(("ATD x4", 4, 64), ("ATD-light x4", 8, 64), ("ATD-U colour", 2, 128), ("CVPR ATD x4", 4, 64)),
    op_side=256,
    memory_sides=(128, 256),
    largest=("ATD x4", "ATD-light x4"),
    largest_sides=(512, 128, 16384),
    goldens=("*",),
    seconds=1.0,
)

_ONE_LEVEL: Overrides = {
    "embed_dim": 12,
    "depths": [1],
    "num_heads": [2],
    "window_size": 4,
    "category_size": 16,
    "num_tokens": 9,
    "reducted_dim": 5,
    "convffn_kernel_size": 3,
}
REHEARSAL = Sizes(
    goals=(("ATD x4", 4, 8),),
    further=(("CVPR ATD x4", 4, 4),),
    profiles=(("ATD x4", 4),),
    training=(("ATD x4", 1, 4),),
    op_side=4,
    memory_sides=(4,),
    largest=("ATD x4",),
    largest_sides=(4, 4, 4),
    goldens=("atd_light_sr_x4",),
    seconds=0.0,
    overrides={
        "ATD": {**_ONE_LEVEL, "dim_ffn_td": 3},
        "ATDCVPR": _ONE_LEVEL,
        "ATDReal": _ONE_LEVEL,
        "ATDU": {
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": [4, 4],
            "dim_ffn_td": [3, 5],
            "category_size": [16, 8],
            "num_tokens": [9, 7],
            "reducted_dim": [4, 6],
            "convffn_kernel_size": 3,
        },
    },
)
