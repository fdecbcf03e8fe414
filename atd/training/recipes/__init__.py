"""Training recipes as data: one TOML file each, read into a `Recipe`.

The files `000` … `404` are the seventeen published trainings of TPAMI 2026, `cvpr_000` … `cvpr_103` the seven of
CVPR 2024; the others are sized for one machine.
`--show ID` prints a recipe with every key; any key can be overridden on the command line as `key=value`.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from atd.errors import RecipeError
from atd.system import is_list
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution
from atd.training.recipes import toml


class Stage(NamedTuple):
    """One stage of progressive training; iterations and samples are counted over all stages.

    iterations   how many it has, of which `first` is the first
    sample       number of its first training sample
    patch        side of the network's input in pixels
    batch        images of an iteration, over all processes
    micro_batch  most images in a process's forward pass; 0: no limit
    """

    first: int
    iterations: int
    sample: int
    patch: int
    batch: int
    micro_batch: int


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
    # Constructor keywords that differ from the registry's.
    config: dict[str, object] = field(default_factory=dict[str, object])
    finetune_from: str = ""  # output folder of a training, saved model folder, weights file or model name
    resample_upsampler: bool = False  # finetuning: make the new upsampler from the old one's sub-pixels, not at random
    bicubic_start: bool = False  # start near bicubic interpolation, not at random; for the upsampler pixelshuffledirect
    # Data
    images: tuple[str, ...] = (".",)  # folders of clean images under --data, searched with their subfolders
    lr_images: tuple[str, ...] = ()  # folders of their LR partners, as many; {scale} is filled in; made when absent
    small_images: str = "pad"  # pad | skip: images smaller than the (largest) patch are reflected, or left out
    gray_from_colour: str = "standard"  # standard | authors: rounded from all files, or as OpenCV decodes each kind
    gray_share: float = 0.0  # of the patches of a colour network for noise or JPEG: made gray, and degraded as gray
    validation: tuple[str, ...] = ()  # names of test sets, looked for as `atd evaluate` does
    validation_level: float = 0.0  # sigma or quality of the validation; 0: the (first) one of the training
    held_out: int = 8  # training images that only validate, where no set of `validation` is there; an eighth at most
    sigma: tuple[float, ...] = ()  # noise level on the 0–255 scale, or the two ends of a range (blind training)
    quality: tuple[int, ...] = ()  # JPEG quality, or the two ends of a range
    real: bool = False  # super-resolution of photos: their faults are drawn for each patch (`atd.degrade.RealWorld`)
    sharpen: bool = False  # real: the clean images are sharpened first, so that the network learns to
    webp: float = 0.0  # real: share of WebP among the compressions; the rest is JPEG
    context: int = 72  # real: pixels of the clean image around a patch that are degraded with it and then cut off
    levels: str = "range"  # range | choice: a patch has any level between the two ends, or one of those listed
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
    schedule: str = "multistep"  # multistep | cosine | cosine_restarts
    milestones: tuple[int, ...] = ()  # multistep: the rate is halved at these iterations
    periods: tuple[int, ...] = ()  # cosine_restarts: iterations from each start to the next; the last one repeats
    restart_weights: tuple[float, ...] = ()  # cosine_restarts: factor on the rate of each period; none: all 1
    lr_min: float = 0.0  # cosine, cosine_restarts: what lr falls to; the other rates in proportion
    warmup: int = 0  # iterations of a linear rise from 0
    ema: float = 0.999  # decay of the weight average; 0: none
    ema_warmup: bool = True  # the average forgets its random start: decay min(ema, (1 + n) / (10 + n)) after n updates
    loss: str = "l1"  # l1 | mse | charbonnier, of the pixels
    pixel: float = 1.0  # weight of that loss
    perceptual: float = 0.0  # weight of the distance of VGG19's features; 0: without
    perceptual_weights: str = ""  # file of VGG19's weights as torchvision has them; none: those in torch's cache
    lpips: float = 0.0  # weight of LPIPS, which needs the extra `metrics`; 0: without
    lpips_net: str = "vgg"  # alex | vgg | squeeze: its backbone
    adversarial: float = 0.0  # weight of what the network loses to a discriminator, trained beside it; 0: without
    adversarial_loss: str = "vanilla"  # vanilla | hinge
    discriminator_lr: float = 1e-4  # of its Adam, in the schedule of lr; betas are those of the network
    discriminator_channels: int = 64  # of its first features
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
    keep_every: int = 0  # iterations between two models that stay in models/; 0: as often as it validates
    keep: int = 0  # how many of them stay, the newest; 0: all
    save_minutes: float = 5.0  # at least this long between two checkpoints
    tensorboard: bool = False  # needs the extra `train`
    wandb: str = ""  # project at Weights & Biases; needs the extra `wandb`

    def __post_init__(self) -> None:
        stages = {len(self.patch), len(self.batch), len(self.iterations)}
        if len(stages) != 1 or 0 in stages:
            raise self._error(
                "patch, batch and iterations need one entry per stage, "
                f"got {len(self.patch)}, {len(self.batch)} and {len(self.iterations)}"
            )
        for key in _POSITIVE:
            if min(_entries(getattr(self, key)), default=1) < 1:
                raise self._error(f"{key} must be positive, got {_plain(getattr(self, key))}")
        for key in _NOT_NEGATIVE:
            if min(_entries(getattr(self, key)), default=0) < 0:
                raise self._error(f"{key} must not be negative, got {_plain(getattr(self, key))}")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise self._error(f"{key} must be one of {', '.join(allowed)}, got {getattr(self, key)!r}")
        if len(self.betas) != 2:
            raise self._error(f"betas must be two numbers, got {list(self.betas)}")
        if not self.micro_batch:
            raise self._error("micro_batch needs a number, 0 for no limit")
        if self.sigma and self.quality:
            raise self._error("sigma means denoising and quality JPEG artefact removal; give one")
        if self.real and (self.sigma or self.quality or self.lr_images):
            raise self._error(
                "real=true draws the input of each patch: it goes with neither sigma, quality nor lr_images"
            )
        if self.adversarial and self.parallel == "fsdp":
            raise self._error("adversarial goes with parallel=ddp; a sharded network has no discriminator beside it")
        if self.adversarial and self.mixup:
            raise self._error("adversarial does not go with mixup: mixed images do not look real")
        if not 0 <= self.webp <= 1:
            raise self._error(f"webp must be from 0 to 1, got {self.webp}")
        for key in ("sigma", "quality"):
            levels = getattr(self, key)
            if list(levels) != sorted(levels) or (len(levels) > 2 and self.levels == "range"):
                listed = "" if self.levels == "choice" else " (levels=choice makes it a list of levels)"
                raise self._error(
                    f"{key} must be one level, or the two ends of a range in order, got {list(levels)}{listed}"
                )
        if self.quality and not 1 <= self.quality[0] <= self.quality[-1] <= 100:
            raise self._error(f"quality must be from 1 to 100, got {list(self.quality)}")
        if self.schedule == "cosine_restarts" and not self.periods:
            raise self._error("schedule=cosine_restarts needs periods, the iterations from each start to the next")
        if self.restart_weights and len(self.restart_weights) != len(self.periods):
            raise self._error("restart_weights needs one factor for each of periods")
        if self.lr_min > self.lr:
            raise self._error(f"lr_min must not exceed lr, got {self.lr_min} and {self.lr}")
        if not 0 <= self.gray_share <= 1:
            raise self._error(f"gray_share must be from 0 to 1, got {self.gray_share}")
        if self.gray_share and not (self.sigma or self.quality):
            raise self._error("gray_share is for networks that take noise or JPEG artefacts away")
        if not 0 <= self.ema < 1:
            raise self._error(f"ema must be at least 0 and below 1, got {self.ema}")
        if self.lr_images and len(self.lr_images) != len(self.images):
            raise self._error("lr_images needs one folder for each folder of images")

    def _error(self, sentence: str) -> RecipeError:
        return RecipeError(f"recipe {self.id}: {sentence}")

    @property
    def total_iterations(self) -> int:
        """Iterations of all stages."""
        return sum(self.iterations)

    @property
    def stages(self) -> list[Stage]:
        """The stages in their order."""
        stages: list[Stage] = []
        first = sample = 0
        for number, (patch, batch, count) in enumerate(zip(self.patch, self.batch, self.iterations, strict=True)):
            micro_batch = self.micro_batch[min(number, len(self.micro_batch) - 1)]
            stages.append(Stage(first, count, sample, patch, batch, micro_batch))
            first += count
            sample += count * batch
        return stages

    @property
    def task(self) -> type[SuperResolution] | type[RealWorld] | type[Denoising] | type[JpegArtefacts]:
        """The kind of task: `real`, `sigma` (denoising) or `quality` (JPEG artefacts); else super-resolution."""
        if self.real:
            return RealWorld
        return Denoising if self.sigma else JpegArtefacts if self.quality else SuperResolution

    @property
    def level(self) -> float:
        """Noise level or quality of the validation; 0 for super-resolution."""
        return self.validation_level or next(iter(self.sigma or self.quality), 0.0)

    def override(self, assignments: list[str]) -> Recipe:
        """A copy with `key=value` strings applied; values are TOML (`lr=1e-4`, `batch=[8, 4]`), bare words are strings.

        `config.depths=[2, 2]` changes one constructor keyword of the network.

        Raises:
            RecipeError: an assignment is none, or its key or value is not one of a recipe.
        """
        values: dict[str, Any] = dataclasses.asdict(self)
        for assignment in assignments:
            key, separator, text = assignment.partition("=")
            key = _ALIASES.get(key, key)
            if not separator:
                raise RecipeError(f"an override looks like key=value, got {assignment!r}")
            value = text if _KINDS.get(key) is str else toml.read_value(text)
            if key.startswith("config."):
                values["config"] = {**values["config"], key.removeprefix("config."): value}
            else:
                values[key] = value
        return from_dict(values, f"recipe {self.id}")

    def to_toml(self) -> str:
        """All keys as TOML, in the order of the class."""
        values = dataclasses.asdict(self)
        lines = [f"{name} = {toml.write_value(value)}" for name, value in values.items() if name != "config"]
        if self.config:
            lines += ["", "[config]", *(f"{key} = {toml.write_value(value)}" for key, value in self.config.items())]
        return "\n".join(lines) + "\n"


_KINDS = typing.get_type_hints(Recipe)
_CHOICES = {
    "optimiser": ("adamw", "muon"),
    "small_images": ("pad", "skip"),
    "schedule": ("multistep", "cosine", "cosine_restarts"),
    "levels": ("range", "choice"),
    "gray_from_colour": ("standard", "authors"),
    "loss": ("l1", "mse", "charbonnier"),
    "lpips_net": ("alex", "vgg", "squeeze"),
    "adversarial_loss": ("vanilla", "hinge"),
    "amp": ("none", "bf16", "fp16"),
    "parallel": ("ddp", "fsdp"),
}


_POSITIVE = ("patch", "batch", "iterations", "log_every", "validate_every", "periods", "discriminator_channels")
_NOT_NEGATIVE = (
    "validation_level", "sigma", "minutes", "lr", "betas", "adam_lr", "weight_decay", "milestones", "warmup", "mixup",
    "clip", "seed", "micro_batch", "workers", "cache_gb", "save_minutes", "held_out", "keep_every", "keep",
    "restart_weights", "lr_min", "context", "pixel", "perceptual", "lpips", "adversarial", "discriminator_lr",
)  # fmt: skip
_ALIASES = {"optimizer": "optimiser"}
"""Other spellings of keys."""
_OFTEN_MEANT = {
    "batch_size": "batch",
    "epochs": "iterations",
    "learning_rate": "lr",
    "num_workers": "workers",
    "patch_size": "patch",
    "steps": "iterations",
    "total_iter": "iterations",
}
"""Keys of other programs, and the one of ours that comes nearest."""


def meant_key(word: str) -> str | None:
    """The key of a recipe that `word` is or often stands for; None where there is none."""
    key = _ALIASES.get(word, _OFTEN_MEANT.get(word, word))
    return key if key in _KINDS else None


def names() -> list[str]:
    """The ids of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def get(recipe: str) -> Recipe:
    """The recipe of an id (`"103"`, `"laptop_x4"`) or of a TOML file of the user.

    Raises:
        RecipeError: there is none, or it does not fit together.
    """
    if recipe.endswith(".toml"):
        path = Path(recipe)
        if not path.is_file():
            raise RecipeError(f"no recipe file {recipe}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{recipe}: not a text file in UTF-8 ({error.reason})") from None
        return _parse(text, path.stem, recipe)
    if recipe not in names():
        near = difflib.get_close_matches(recipe, names(), 3, 0.3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`atd train --list` shows all"
        raise RecipeError(f"no recipe {recipe!r}: {hint}")
    return _parse((_folder() / f"{recipe}.toml").read_text(encoding="utf-8"), recipe, f"recipe {recipe}")


def from_dict(values: Mapping[str, object], origin: str) -> Recipe:
    """Check keys and types. Where a key holds a list, a single value stands for a list of one.

    Args:
        values: keys of a recipe and what TOML gives for them.
        origin: whose keys they are, for errors.

    Raises:
        RecipeError: a key is unknown, missing or given twice, or a value is of another type or impossible.
    """
    checked: dict[str, Any] = {}
    for spelling, value in values.items():
        key = _ALIASES.get(spelling, spelling)
        if key not in _KINDS:
            near = _OFTEN_MEANT.get(key) or difflib.get_close_matches(key, _KINDS, 1, 0.0)[0]
            raise RecipeError(f"{origin}: unknown key {key!r}, the nearest one is {near!r}")
        if key in checked:
            other = next(alias for alias, meant in _ALIASES.items() if meant == key)
            raise RecipeError(f"{origin}: {key} is given twice, once as {other}")
        checked[key] = _check(value, _KINDS[key], key, origin)
    missing = {"id", "summary", "model"} - checked.keys()
    if missing:
        raise RecipeError(f"{origin}: {' and '.join(sorted(missing))} must be given")
    return Recipe(**checked)


def _entries(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _plain(value: float | tuple[float, ...]) -> object:
    return list(value) if isinstance(value, tuple) else value


def _folder():
    return resources.files(__name__)


def _parse(text: str, name: str, origin: str) -> Recipe:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin}: not valid TOML ({error})") from None
    return from_dict({"id": name, **values}, origin)


def _check(value: Any, kind: Any, key: str, origin: str) -> Any:
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        items: Sequence[object] = value if is_list(value) else [value]
        return tuple(_check(item, element, key, origin) for item in items)
    plain = typing.get_origin(kind) or kind
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise RecipeError(f"{origin}: {key} must be {plain.__name__}, got {value!r}")
    return value
