"""Training recipes as data: one TOML file each, read into a `Recipe`.

The files `000` … `404` are the seventeen published trainings; the others are sized for one machine.
`--show ID` prints a recipe with every key; any key can be overridden on the command line as `key=value`.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, apart from where the images lie and where the results go.

    `patch`, `batch` and `iterations` have one entry per stage of progressive training. Sizes are in pixels of the
    network's input (LR pixels for super-resolution); `batch` counts images over all processes.
    """

    # What
    id: str
    summary: str  # one line for `atd train --list`
    model: str  # name in the registry
    note: str = ""  # where the sources disagree
    config: dict[str, Any] = field(default_factory=dict)  # constructor keywords that differ from the registry's
    finetune_from: str = ""  # output folder of a training, saved model folder, weights file or model name
    resample_upsampler: bool = False  # finetuning: make the new upsampler from the old one's sub-pixels, not at random
    bicubic_start: bool = False  # start near bicubic interpolation, not at random; for the upsampler pixelshuffledirect
    # Data
    images: tuple[str, ...] = (".",)  # folders of clean images under --data, searched with their subfolders
    lr_images: tuple[str, ...] = ()  # folders of their LR partners, as many; {scale} is filled in; made when absent
    validation: tuple[str, ...] = ()  # names of test sets, looked for as `atd evaluate` does
    validation_level: float = 0.0  # sigma or quality of the validation; 0: the (first) one of the training
    sigma: tuple[float, ...] = ()  # noise level on the 0–255 scale, or the two ends of a range (blind training)
    quality: tuple[int, ...] = ()  # JPEG quality, or the two ends of a range
    # Stages
    patch: tuple[int, ...] = (64,)
    batch: tuple[int, ...] = (16,)
    iterations: tuple[int, ...] = (1000,)
    minutes: float = 0.0  # > 0: also stop after this much training time; a cosine schedule then follows the clock
    # Optimisation
    optimiser: str = "adamw"  # adamw | muon
    lr: float = 2e-4  # of AdamW, or of Muon
    betas: tuple[float, ...] = (0.9, 0.9)  # of AdamW, or of the Adam half of Muon
    adam_lr: float = 2e-4  # of the Adam half of Muon
    weight_decay: float = 0.0
    schedule: str = "multistep"  # multistep | cosine
    milestones: tuple[int, ...] = ()  # multistep: the rate is halved at these iterations
    warmup: int = 0  # iterations of a linear rise from 0
    ema: float = 0.999  # decay of the weight average; 0: none
    loss: str = "l1"  # l1 | charbonnier
    mixup: float = 0.0  # probability of mixing a batch with itself, Beta(1.2, 1.2)
    clip: float = 0.0  # largest gradient norm; 0: no limit
    seed: int = 0
    # Machine
    amp: str = "none"  # none | bf16 | fp16
    micro_batch: tuple[int, ...] = (0,)  # most images in a process's forward pass, 0: no limit; gradients accumulate
    activation_checkpointing: bool = False
    compile: bool = False
    parallel: str = "ddp"  # ddp | fsdp, used under torchrun
    workers: int = 0  # loader processes per training process
    cache_gb: float = 1.0  # decoded images are kept in memory when all of them fit in this much
    # Reports
    log_every: int = 50  # iterations; the loss is checked to be finite, and the training saved, at these only
    validate_every: int = 1000
    save_minutes: float = 5.0  # at least this long between two checkpoints
    tensorboard: bool = False  # needs the extra `train`

    def __post_init__(self) -> None:
        stages = {len(self.patch), len(self.batch), len(self.iterations)}
        if len(stages) != 1 or 0 in stages:
            raise ValueError(
                f"recipe {self.id}: patch, batch and iterations need one entry per stage, "
                f"got {len(self.patch)}, {len(self.batch)} and {len(self.iterations)}"
            )
        for key in ("patch", "batch", "iterations"):
            if min(getattr(self, key)) < 1:
                raise ValueError(f"recipe {self.id}: {key} must be positive, got {list(getattr(self, key))}")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                given = getattr(self, key)
                raise ValueError(f"recipe {self.id}: {key} must be one of {', '.join(allowed)}, got {given!r}")
        if len(self.betas) != 2:
            raise ValueError(f"recipe {self.id}: betas must be two numbers, got {list(self.betas)}")
        if self.sigma and self.quality:
            raise ValueError(f"recipe {self.id}: sigma means denoising and quality JPEG artefact removal; give one")
        if self.lr_images and len(self.lr_images) != len(self.images):
            raise ValueError(f"recipe {self.id}: lr_images needs one folder for each folder of images")

    @property
    def total_iterations(self) -> int:
        return sum(self.iterations)

    @property
    def task(self) -> Literal["sr", "denoise", "jpeg"]:
        """As in the registry."""
        return "denoise" if self.sigma else "jpeg" if self.quality else "sr"

    @property
    def level(self) -> float:
        """Noise level or quality of the validation; 0 for super-resolution."""
        return self.validation_level or next(iter(self.sigma or self.quality), 0.0)

    def override(self, assignments: list[str]) -> Recipe:
        """A copy with `key=value` strings applied; values are TOML (`lr=1e-4`, `batch=[8, 4]`), bare words are strings.

        `config.depths=[2, 2]` changes one constructor keyword of the network.
        """
        values = dataclasses.asdict(self)
        for assignment in assignments:
            key, separator, text = assignment.partition("=")
            if not separator:
                raise ValueError(f"an override looks like key=value, got {assignment!r}")
            value = text if _KINDS.get(key) is str else _toml_value(text)
            if key.startswith("config."):
                values["config"] = {**values["config"], key.removeprefix("config."): value}
            else:
                values[key] = value
        return from_dict(values, f"recipe {self.id}")

    def to_toml(self) -> str:
        """All keys as TOML, in the order of the class."""
        values = dataclasses.asdict(self)
        lines = [f"{name} = {_to_toml(value)}" for name, value in values.items() if name != "config"]
        if self.config:
            lines += ["", "[config]", *(f"{key} = {_to_toml(value)}" for key, value in self.config.items())]
        return "\n".join(lines) + "\n"


_KINDS = typing.get_type_hints(Recipe)
_CHOICES = {
    "optimiser": ("adamw", "muon"),
    "schedule": ("multistep", "cosine"),
    "loss": ("l1", "charbonnier"),
    "amp": ("none", "bf16", "fp16"),
    "parallel": ("ddp", "fsdp"),
}


def names() -> list[str]:
    """The ids of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def get(recipe: str) -> Recipe:
    """The recipe of an id (`"103"`, `"laptop_x4"`) or of a TOML file of the user."""
    if recipe.endswith(".toml"):
        path = Path(recipe)
        if not path.is_file():
            raise ValueError(f"no recipe file {recipe}")
        return _parse(path.read_text(encoding="utf-8"), path.stem, recipe)
    if recipe not in names():
        near = difflib.get_close_matches(recipe, names(), 3, 0.3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`atd train --list` shows all"
        raise ValueError(f"no recipe {recipe!r}: {hint}")
    return _parse((_folder() / f"{recipe}.toml").read_text(encoding="utf-8"), recipe, f"recipe {recipe}")


def from_dict(values: dict[str, Any], origin: str) -> Recipe:
    """Check keys and types. Where a key holds a list, a single value stands for a list of one."""
    checked = {}
    for key, value in values.items():
        if key not in _KINDS:
            near = difflib.get_close_matches(key, _KINDS, 1, 0.0)[0]
            raise ValueError(f"{origin}: unknown key {key!r}, the nearest one is {near!r}")
        checked[key] = _check(value, _KINDS[key], key, origin)
    missing = {"id", "summary", "model"} - checked.keys()
    if missing:
        raise ValueError(f"{origin}: {' and '.join(sorted(missing))} must be given")
    return Recipe(**checked)


def _folder():
    return resources.files(__name__)


def _parse(text: str, name: str, origin: str) -> Recipe:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{origin}: not valid TOML ({error})") from None
    return from_dict({"id": name, **values}, origin)


def _check(value: Any, kind: Any, key: str, origin: str) -> Any:
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_check(item, element, key, origin) for item in items)
    plain = typing.get_origin(kind) or kind
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise ValueError(f"{origin}: {key} must be {plain.__name__}, got {value!r}")
    return value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("["):
            raise ValueError(f"the override {text} is no TOML list: words in it need quotes, as {['a', 'b']}") from None
        return text


def _to_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_to_toml(item) for item in value)}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
