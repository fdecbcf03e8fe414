"""Training pairs: aligned patches of clean and degraded images, degraded on the fly.

Every sample is a function of (seed, sample number) alone. So the order of the data does not depend on the number of
workers or processes, a resumed training sees exactly what an uninterrupted one would have seen, and no worker can
repeat another one's random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from atd import degrade
from atd.errors import ImageError, InputError, RecipeError
from atd.images import files, samples_to_tensor
from atd.images.gray import GrayFromColour, opencv_gray, rounded_gray
from atd.models import RestorationModel
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution, Task, make_task
from atd.training.interruption import leave_signals_to_the_main_process
from atd.training.recipes import Recipe, Stage

HELD_OUT_LEAST = 64
"""Pixels of the shorter side of an image that may be held out: smaller ones cannot be scored."""


@dataclass(frozen=True)
class PhotoFaults:
    """How the input of a network for real photos is made.

    faults   what can happen to a photo, and how likely it is
    context  pixels of the clean image around a patch that are degraded with it, as far as the image reaches; so a patch
             has no border but that of its image
    sharpen  the clean image is sharpened first
    """

    faults: degrade.RealWorld
    context: int
    sharpen: bool


@dataclass(frozen=True)
class Degradation:
    """How the input of a network is made: by `atd.degrade.for_task`, at a strength that is drawn for each patch.

    task    what the network undoes, whatever its strength
    levels  lower and upper end, both included, of its sigma or its quality; nothing for super-resolution
    choice  the levels are these and none between them
    photos  for the task of real photos: what is drawn for each patch
    """

    task: Task
    levels: tuple[float, ...] = (0,)
    choice: bool = False
    photos: PhotoFaults | None = None

    def draw(self, rng: np.random.Generator) -> Task:
        """The task at one of the levels, all of them equally likely."""
        if self.choice and not isinstance(self.task, SuperResolution | RealWorld):
            level = self.levels[int(rng.integers(len(self.levels)))]
            return Denoising(level) if isinstance(self.task, Denoising) else JpegArtefacts(int(level))
        low, high = self.levels[0], self.levels[-1]
        if isinstance(self.task, Denoising):
            return Denoising(rng.uniform(low, high))
        if isinstance(self.task, JpegArtefacts):
            return JpegArtefacts(int(rng.integers(int(low), int(high) + 1)))
        return self.task


def degradation_of(recipe: Recipe, model: RestorationModel) -> Degradation:
    """The recipe's degradation; a single sigma or quality is a range of one.

    Raises:
        RecipeError: `model` is a network for another task.
    """
    if recipe.task.key != model.task:
        raise RecipeError(
            f"recipe {recipe.id} trains {recipe.task.key}, but {recipe.model} is a network for {model.task}: "
            "set sigma for denoising, quality for JPEG artefacts, real=true for photos, none for super-resolution"
        )
    levels = recipe.sigma or recipe.quality or (0,)
    photos = None
    if recipe.real:
        photos = PhotoFaults(degrade.RealWorld(webp=recipe.webp), recipe.context, recipe.sharpen)
    return Degradation(make_task(recipe.task.key, scale=model.scale), levels, recipe.levels == "choice", photos)


def find_images(folder: Path) -> list[Path]:
    """The image files below `folder`, sorted by path; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in files.SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def check_output_names(images: Sequence[Path], names: Sequence[object]) -> None:
    """Refuse, with an `InputError`, images of which two would get the same name."""
    seen: dict[object, Path] = {}
    for path, name in zip(images, names, strict=True):
        if name in seen:
            raise InputError(f"{seen[name]} and {path} would get the same output name: rename one of them")
        seen[name] = path


def read_pixels(path: Path, channels: int, gray_from_colour: GrayFromColour = "standard") -> np.ndarray:
    """An 8-bit image as (h, w, channels) uint8, `channels` 1 (BT.601 luma) or 3; transparency is left out.

    Args:
        path: the file.
        channels: 1 or 3.
        gray_from_colour: how a colour file becomes gray, see `atd.images.gray`.

    Raises:
        ImageError: it cannot be read, or has more than 8 bits.
    """
    pixels = files.read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path} has {pixels.dtype} samples, training takes 8-bit images")
    if pixels.shape[2] < 3:
        return np.repeat(pixels[..., :1], channels, axis=2)
    if channels == 3:
        return pixels[..., :3]
    rgb = pixels[..., :3]
    return (opencv_gray(path, rgb) if gray_from_colour == "authors" else rounded_gray(rgb))[..., None]


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the file's header.

    Raises:
        ImageError: the file is no image.
    """
    return files.probe(path).shape[:2]


def lr_partners(images: Sequence[Path], hr_folder: Path, lr_folder: Path, scale: int) -> list[Path]:
    """The LR file of each HR image: same place in `lr_folder`, same stem or `<stem>x<scale>`; sizes are checked.

    Raises:
        InputError: some have none.
        ImageError: the size of one is not 1/scale of its image's.
    """
    by_place = {path.relative_to(lr_folder).with_suffix(""): path for path in find_images(lr_folder)}
    partners: list[Path] = []
    missing: list[Path] = []
    for path in images:
        key = path.relative_to(hr_folder).with_suffix("")
        partner = by_place.get(key) or by_place.get(key.with_name(f"{key.name}x{scale}"))
        if partner is None:
            missing.append(path)
        else:
            partners.append(partner)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(images)} images of {hr_folder} have no LR partner in {lr_folder}, the first is "
            f"{missing[0].name}: expected the same name, or the name with x{scale} behind it"
        )
    for path, partner, large, small in zip(images, partners, _sizes(images), _sizes(partners), strict=True):
        expected = (large[0] // scale, large[1] // scale)
        if small != expected:
            raise ImageError(
                f"{partner} has {small[1]}x{small[0]} pixels, expected {expected[1]}x{expected[0]}: "
                f"1/{scale} of {path}, which has {large[1]}x{large[0]}"
            )
    return partners


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(image_size, paths))


class ImageSource:
    """Clean images, with LR partners for super-resolution; decoded once when all fit in `cache_gb`, else on demand.

    An image smaller than a patch is continued at its bottom and right by its reflection, edge pixels included.

    Args:
        images: files of clean images.
        degradation: only its task and scale matter here.
        channels: 1 or 3.
        smallest: images with a side of fewer pixels are left out (`skipped` counts them), at least those of which no
            LR pixel can be made.
        lr_images: files of LR images in the order of `images`; None: MATLAB bicubic on the fly.
        cache_gb: most memory for decoded images, in GiB.
        gray_from_colour: how colour files become gray where `channels` is 1, see `atd.images.gray`.

    Raises:
        RecipeError: no image is large enough.
        ImageError: one cannot be read.
    """

    def __init__(
        self,
        images: Sequence[Path],
        degradation: Degradation,
        channels: int,
        smallest: int,
        lr_images: Sequence[Path] | None = None,
        cache_gb: float = 1.0,
        gray_from_colour: GrayFromColour = "standard",
    ):
        self.degradation = degradation
        self.gray_from_colour: GrayFromColour = gray_from_colour
        self.channels = channels
        sizes = _sizes(images)
        smallest = max(smallest, degradation.task.scale)
        keep = [i for i, size in enumerate(sizes) if min(size) >= smallest]
        self.skipped = len(images) - len(keep)
        if not keep:
            raise RecipeError(
                f"none of the {len(images)} training images has {smallest} pixels on both sides: "
                "give larger images or a smaller patch"
            )
        self.images = [images[i] for i in keep]
        self.lr_images = None if lr_images is None else [lr_images[i] for i in keep]
        pixels = sum(sizes[i][0] * sizes[i][1] for i in keep)
        self.cached = pixels * channels * (1 + 1 / degradation.task.scale**2) <= cache_gb * 2**30
        self._cache: list[tuple[np.ndarray, np.ndarray | None]] = []
        if self.cached:
            with ThreadPoolExecutor() as pool:
                self._cache = list(pool.map(self._load, range(len(self.images))))

    def __len__(self) -> int:
        return len(self.images)

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A random clean patch of `patch·scale` pixels a side and its LR patch of `patch` (None if not SR)."""
        clean, lr = self._cache[index] if self.cached else self._load(index, whole_lr=False)
        scale = self.degradation.task.scale
        if min(_height_and_width(clean)) < patch * scale:
            if lr is None and scale > 1:
                lr = degrade.bicubic_downscale(clean, scale)
            clean, lr = pad(clean, patch * scale), None if lr is None else pad(lr, patch)
        height, width = _height_and_width(clean)
        top = int(rng.integers(height // scale - patch + 1))
        left = int(rng.integers(width // scale - patch + 1))
        size = patch * scale
        target = clean[top * scale : top * scale + size, left * scale : left * scale + size]
        if not isinstance(self.degradation.task, SuperResolution):
            return target, None
        if lr is not None:
            return target, lr[top : top + patch, left : left + patch]
        return target, _downscale_patch(clean, top, left, patch, scale)

    def region(
        self, index: int, rng: np.random.Generator, patch: int, context: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """A random clean patch of `patch·scale` pixels a side with its surroundings.

        These are `context` pixels wide, rounded down to LR pixels, and end with the image.

        Returns:
            The pixels, and the LR pixels above the patch and to its left.
        """
        clean, _ = self._cache[index] if self.cached else self._load(index)
        scale = self.degradation.task.scale
        clean = pad(clean, patch * scale)
        height, width = _height_and_width(clean)
        rows, columns = height // scale, width // scale
        top, left = int(rng.integers(rows - patch + 1)), int(rng.integers(columns - patch + 1))
        first_row, first_column = max(top - context // scale, 0), max(left - context // scale, 0)
        end_row, end_column = top + patch + context // scale, left + patch + context // scale
        pixels = clean[first_row * scale : end_row * scale, first_column * scale : end_column * scale]
        return pixels, (top - first_row, left - first_column)

    def _load(self, index: int, whole_lr: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        clean = read_pixels(self.images[index], self.channels, self.gray_from_colour)
        task = self.degradation.task
        clean = degrade.crop_to_multiple(clean, task.scale)
        if not isinstance(task, SuperResolution):
            return clean, None
        if self.lr_images is not None:
            return clean, read_pixels(self.lr_images[index], self.channels, self.gray_from_colour)
        return clean, degrade.bicubic_downscale(clean, task.scale) if whole_lr else None


def _height_and_width(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def pad(image: np.ndarray, side: int) -> np.ndarray:
    """Continue (h, w, c) at the bottom and right to at least `side` pixels by reflection, edge pixels included.

    What OpenCV calls BORDER_REFLECT: dcba|abcd|dcba.
    """
    height, width = _height_and_width(image)
    return np.pad(image, ((0, max(side - height, 0)), (0, max(side - width, 0)), (0, 0)), mode="symmetric")


def open_source(
    recipe: Recipe,
    folder: Path,
    degradation: Degradation,
    channels: int,
    say: Callable[[str], None],
    hold_out: int = 0,
) -> tuple[ImageSource, list[Path]]:
    """The recipe's training images under `folder`, with LR partners where all their folders exist.

    Args:
        recipe: the training.
        folder: where its image folders lie.
        degradation: its task and scale matter here.
        channels: of the network's input.
        say: receives lines of the report.
        hold_out: how many images are kept out of the training, at most.

    Returns:
        The images that train, and those that are held out.

    Raises:
        RecipeError: there are none, or none is large enough, or some of the LR folders are missing.
        InputError: an LR image is missing.
        ImageError: an image cannot be read.
    """
    scale = degradation.task.scale
    images: list[Path] = []
    partners: list[Path] = []
    for position, name in enumerate(recipe.images):
        here = find_images(folder / name)
        if not here:
            raise RecipeError(
                f"no training images in {folder / name}: recipe {recipe.id} looks for "
                f"{', '.join(recipe.images)} under --data; images=FOLDER chooses another"
            )
        images += here
        if recipe.lr_images:
            lr_folder = folder / recipe.lr_images[position].replace("{scale}", str(scale))
            if lr_folder.is_dir():
                partners += lr_partners(here, folder / name, lr_folder, scale)
            else:
                say(f"no folder {lr_folder}: LR images are made from the HR images by MATLAB's bicubic reduction")
    if partners and len(partners) != len(images):
        raise RecipeError(f"some of the LR folders {', '.join(recipe.lr_images)} are missing under {folder}")
    held_out = choose_held_out(_sizes(images), hold_out) if hold_out else []
    validating = [images[i] for i in held_out]
    if held_out:
        say(f"{len(held_out)} of {len(images)} training images are held out, to validate")
        images = [path for i, path in enumerate(images) if i not in held_out]
        partners = [path for i, path in enumerate(partners) if i not in held_out]
    smallest = max(recipe.patch) * scale if recipe.small_images == "skip" else 0
    rule: GrayFromColour = "authors" if recipe.gray_from_colour == "authors" else "standard"
    source = ImageSource(images, degradation, channels, smallest, partners or None, recipe.cache_gb, rule)
    left_out = f", {source.skipped} smaller than {max(smallest, scale)} pixels left out" if source.skipped else ""
    say(f"{len(source)} training images, {'in memory' if source.cached else 'read on demand'}{left_out}")
    return source, validating


def choose_held_out(sizes: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Numbers of `count` images, an eighth of them at most, evenly spread; those under `HELD_OUT_LEAST` are no choice.

    A function of the sizes alone, so that a training that goes on holds out the same.
    """
    large = [i for i, size in enumerate(sizes) if min(size) >= HELD_OUT_LEAST]
    count = min(count, len(large) // 8)
    return [large[(2 * k + 1) * len(large) // (2 * count)] for k in range(count)]


def _downscale_patch(clean: np.ndarray, top: int, left: int, patch: int, scale: int) -> np.ndarray:
    """The LR patch of the whole image's reduction, from the pixels it depends on (the kernel reaches 2 LR pixels)."""
    margin = 3
    y0, x0 = max(top - margin, 0), max(left - margin, 0)
    region = clean[y0 * scale : (top + patch + margin) * scale, x0 * scale : (left + patch + margin) * scale]
    reduced = degrade.bicubic_downscale(region, scale)
    return reduced[top - y0 : top - y0 + patch, left - x0 : left - x0 + patch]


class Patches(Dataset[tuple[torch.Tensor, ...]]):
    """Sample number → (input, target), float32 (c, p, p) and (c, s·p, s·p) in [0, 1]; noise is not clipped.

    The images follow each other in a new random order every epoch, one patch of each. Of colour patches that get noise
    or JPEG artefacts, a share `gray_share` is made gray first: then all channels have the same noise or artefacts, as
    those of a gray image have when a colour network restores it.

    With `unsharpened`, a third tensor is the target as it was before sharpening: what a discriminator takes for real.
    """

    def __init__(self, source: ImageSource, patch: int, seed: int, gray_share: float = 0.0, unsharpened: bool = False):
        self.source = source
        self.patch = patch
        self.seed = seed
        self.gray_share = gray_share if source.channels == 3 else 0.0
        self.unsharpened = unsharpened
        self._order = (-1, np.empty(0))

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, ...]:
        epoch, position = divmod(sample, len(self.source))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.source))
        rng = np.random.default_rng([self.seed, 1, sample])
        if photos := self.source.degradation.photos:
            return self._photo(sample, int(self._order[1][position]), rng, photos)
        target, lr = self.source.crop(int(self._order[1][position]), rng, self.patch)
        symmetry = int(rng.integers(8))
        target = _turn(target, symmetry)
        if lr is not None:
            return samples_to_tensor(_turn(lr, symmetry)), samples_to_tensor(target)
        # Its own random numbers, so that the other draws of a sample are the same with and without gray patches.
        if self.gray_share and np.random.default_rng([self.seed, 2, sample]).random() < self.gray_share:
            target = rounded_gray(target)[..., None]
        degraded = degrade.for_task(target, self.source.degradation.draw(rng), rng)
        shape = (self.patch, self.patch, self.source.channels)
        return samples_to_tensor(np.broadcast_to(degraded, shape)), samples_to_tensor(np.broadcast_to(target, shape))

    def _photo(
        self, sample: int, index: int, rng: np.random.Generator, photos: PhotoFaults
    ) -> tuple[torch.Tensor, ...]:
        """A patch with the faults of a photo. All are cut from what surrounds them when all is done, then turned."""
        pixels, (top, left) = self.source.region(index, rng, self.patch, photos.context)
        plain = clean = samples_to_tensor(pixels)[None]
        if photos.sharpen:
            clean = degrade.sharpen(clean)
        scale, side = self.source.degradation.task.scale, self.patch
        draw = photos.faults.draw(np.random.default_rng([self.seed, 3, sample]))
        low = degrade.degrade_batch(clean, [draw], scale)[0, :, top : top + side, left : left + side]
        rows, columns = (slice(first * scale, (first + side) * scale) for first in (top, left))
        kept = (clean, plain) if self.unsharpened else (clean,)
        symmetry = int(rng.integers(8))
        return tuple(_turn_tensor(image, symmetry) for image in (low, *(image[0, :, rows, columns] for image in kept)))


def _turn_tensor(image: torch.Tensor, symmetry: int) -> torch.Tensor:
    """As `_turn`, of (c, h, w)."""
    return torch.as_tensor(_turn(image.movedim(0, 2).numpy(), symmetry)).movedim(2, 0).contiguous()


def _turn(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight flips and rotations of a square, copied into contiguous memory."""
    image = np.rot90(image, symmetry % 4)
    return np.ascontiguousarray(image[:, ::-1] if symmetry >= 4 else image)


class _Batches:
    """Sample numbers of each iteration; a process takes its share of every global batch."""

    def __init__(self, first: int, batch: int, iterations: int, rank: int, world: int):
        self.count = batch // world
        self.starts = [first + i * batch + rank * self.count for i in range(iterations)]

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self.count)) for start in self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def loader(
    dataset: Patches, first: int, batch: int, iterations: int, *, rank: int = 0, world: int = 1, workers: int = 0
) -> Iterator[list[torch.Tensor]]:
    """`iterations` batches from sample number `first` on; `batch` counts images over all `world` processes.

    Raises:
        ImageError: an image cannot be read any more, also when a worker process has met it.
    """
    batches = DataLoader(
        dataset,
        batch_sampler=_Batches(first, batch, iterations, rank, world),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=leave_signals_to_the_main_process,
    )
    try:
        yield from batches
    except (InputError, FileNotFoundError, PermissionError) as error:
        # Errors of a worker process come as its whole traceback, with "<type>: <message>" at the end.
        *traceback, sentence = str(error).strip().splitlines()
        raise ImageError(sentence.partition(": ")[2] if traceback else sentence) from None


def batches(
    source: ImageSource, recipe: Recipe, iteration: int, *, rank: int = 0, world: int = 1
) -> Iterator[tuple[Stage, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """The batches of all iterations from `iteration` on, this process's share of each.

    Returns:
        (stage, inputs, targets, reals): inputs are (n, c, p, p) and targets (n, c, s·p, s·p), float32, on the CPU;
        reals are targets before sharpening, where a discriminator needs them, else None.

    Raises:
        ImageError: an image cannot be read any more.
    """
    for stage in recipe.stages:
        done = max(iteration - stage.first, 0)
        if done < stage.iterations:
            unsharpened = recipe.real and recipe.sharpen and recipe.adversarial > 0
            samples = Patches(source, stage.patch, recipe.seed, recipe.gray_share, unsharpened)
            first, count = stage.sample + done * stage.batch, stage.iterations - done
            loaded = loader(samples, first, stage.batch, count, rank=rank, world=world, workers=recipe.workers)
            for inputs, targets, *reals in loaded:
                yield stage, inputs, targets, reals[0] if reals else None


def mix(
    inputs: torch.Tensor, targets: torch.Tensor, recipe: Recipe, iteration: int, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup as in Restormer: with the recipe's probability, λ · batch + (1 − λ) · shuffled batch, λ ~ Beta(1.2, 1.2).

    A function of seed, iteration and process, so that a resumed training mixes as an uninterrupted one.
    """
    rng = np.random.default_rng([recipe.seed, 2, iteration, rank])
    if rng.random() >= recipe.mixup:
        return inputs, targets
    share = rng.beta(1.2, 1.2)
    order = torch.as_tensor(rng.permutation(len(inputs))).to(inputs.device)
    return inputs.lerp(inputs[order], 1 - share), targets.lerp(targets[order], 1 - share)
