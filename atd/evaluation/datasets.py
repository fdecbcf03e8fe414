"""Where the images of a benchmark lie: folder layouts, set names, and which degraded file belongs to a reference."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atd.degrade import Border
from atd.errors import DataNotFoundError, InputError
from atd.images import SUFFIXES
from atd.system import check_exists
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution, Task

PUBLISHED_COUNTS = {
    "Set5": 5,
    "Set14": 14,
    "B100": 100,
    "Urban100": 100,
    "Manga109": 109,
    "CBSD68": 68,
    "Kodak24": 24,
    "McMaster": 18,
    "Set12": 12,
    "BSD68": 68,
    "classic5": 5,
    "LIVE1": 29,
}
"""Images in each published set, under the name that results carry."""

_ALIASES = {"bsd100": "B100", "bsds100": "B100", "kodak": "Kodak24"}

# Folders of the references, in the order in which they are looked for, and of the degraded files that belong to them.
# {set}, {scale} and {variant} are filled in; every part is matched without regard to case. "{set}" alone comes last:
# a plain folder of images.
_SR_LAYOUTS = (
    ("{set}/HR", "{set}/{variant}/X{scale}"),
    ("sr/{set}/HR", "sr/{set}/{variant}/X{scale}"),
    ("HR/{set}/x{scale}", "LR/LRBI/{set}/x{scale}"),
    ("TestDataSR/HR/{set}/x{scale}", "TestDataSR/LR/LRBI/{set}/x{scale}"),
    ("{set}", None),
)
_CLEAN_LAYOUTS = {
    Denoising: ("denoise/{set}", "ColorDN/{set}HQ", "GrayDN/{set}"),
    JpegArtefacts: ("jpeg/{set}", "CAR/{set}/{set}_HQ"),
}
# As `atd degrade` writes pairs; without degraded files, the faults of photos are drawn for the references.
_REAL_LAYOUTS = (("{set}/HR", "{set}/LQ"), ("sr/{set}/HR", None), ("denoise/{set}", None), ("{set}", None))
# Urban100 is a set of every task, but lies with the super-resolution sets, or with the colour denoising sets.
_CLEAN_FALLBACKS = ("{set}/HR", "sr/{set}/HR", "ColorDN/{set}HQ", "{set}")

_VARIANTS = {"edge": "LR_bicubic", "symmetric": "LR_bicubic_symmetric"}


@dataclass(frozen=True)
class ImagePair:
    """A reference image, and the degraded file that belongs to it; None where the degraded image is to be made."""

    reference: Path
    degraded: Path | None

    @property
    def name(self) -> str:
        """The file name of the reference, under which the image is listed."""
        return self.reference.name


@dataclass(frozen=True)
class BenchmarkSet:
    """The images of one set, in the order of their names. `degraded` is the folder of the degraded files, if any."""

    name: str
    pairs: tuple[ImagePair, ...]
    folder: Path
    degraded: Path | None = None

    @property
    def published_count(self) -> int | None:
        """How many images the published set of this name has; None for a set of the user's own."""
        return PUBLISHED_COUNTS.get(self.name)


def canonical_name(name: str) -> str:
    """The usual spelling of a published set's name, whatever its case; any other name as it is."""
    known = {published.lower(): published for published in PUBLISHED_COUNTS} | _ALIASES
    return known.get(name.lower(), name)


def default_sets(task: Task, *, gray: bool = False) -> tuple[str, ...]:
    """The sets on which the papers report a task."""
    if isinstance(task, RealWorld):
        return ()
    if isinstance(task, SuperResolution):
        return ("Set5", "Set14", "B100", "Urban100", "Manga109")
    if isinstance(task, JpegArtefacts):
        return ("classic5", "LIVE1", "Urban100") if gray else ("LIVE1", "Urban100")
    return ("Set12", "BSD68", "Urban100") if gray else ("CBSD68", "Kodak24", "McMaster", "Urban100")


def find_sets(
    data: Path, names: Sequence[str] | None, task: Task, *, gray: bool = False, border: Border = "edge"
) -> tuple[list[BenchmarkSet], list[str]]:
    """The sets called `names` under `data`, and the names of the papers' sets that are not there.

    Args:
        data: a folder of sets in one of the known layouts, one set's folder, or a plain folder of images.
        names: sets that must be there. None takes the sets that the papers use and `data` has, or, where `data` is a
            plain folder of images or one set's folder, that one.
        task: what the sets are measured on; `gray` chooses between the papers' sets of it.
        border: which of the two published kinds of LR images is meant, "edge" or "symmetric" (see `atd.degrade`).

    Raises:
        DataNotFoundError: a set of `names` is missing, or there is nothing to evaluate.
        InputError: a reference has no degraded file beside the others.
    """
    check_exists(data)
    if not data.is_dir():
        raise DataNotFoundError(f"{data} is not a folder: expected the one that holds the test sets (--data)")
    if names is not None:
        unique = dict.fromkeys(canonical_name(name) for name in names)
        return [_named_set(data, name, task, border) for name in unique], []
    if isinstance(task, SuperResolution) and _resolve(data, "HR") and not _resolve(data, "LR/LRBI"):
        one = _find_set(data.resolve().parent, data.resolve().name, task, border)
        return ([one] if one else []), []
    if images := _images(data):
        return [BenchmarkSet(data.resolve().name, tuple(ImagePair(path, None) for path in images), data)], []
    by_name = {name: _find_set(data, name, task, border) for name in default_sets(task, gray=gray)}
    present = [benchmark for benchmark in by_name.values() if benchmark is not None]
    if not present:
        raise DataNotFoundError(
            f"{data} holds no images and none of the sets {', '.join(by_name)}: name the sets (--sets), or give a "
            "folder of images (--data)"
        )
    return present, [name for name, benchmark in by_name.items() if benchmark is None]


def _named_set(data: Path, name: str, task: Task, border: Border) -> BenchmarkSet:
    benchmark = _find_set(data, name, task, border)
    if benchmark is None:
        first_pattern, _ = next(_layouts(task))
        raise DataNotFoundError(
            f"there is no set {name!r} for task {task.key!r} in {data}: expected e.g. "
            f"{data / first_pattern.format(set=name)}, or a folder {data / name} of images"
        )
    return benchmark


def _find_set(data: Path, name: str, task: Task, border: Border) -> BenchmarkSet | None:
    # The authors' commands run beside a folder `datasets`; `data` may be that folder or the one around it.
    for root, spelling in itertools.product((data, data / "datasets"), _spellings(name)):
        fields = {"set": spelling, "scale": task.scale, "variant": _VARIANTS[border]}
        for pattern, degraded_pattern in _layouts(task) if root.is_dir() else ():
            folder = _resolve(root, pattern.format(**fields))
            references = _images(folder) if folder else []
            if folder is None or not references:
                continue
            degraded = _resolve(root, degraded_pattern.format(**fields)) if degraded_pattern else None
            return BenchmarkSet(name, _match(references, degraded, task.scale), folder, degraded)
    return None


def _spellings(name: str) -> Iterator[str]:
    yield name
    yield from (alias for alias, published in _ALIASES.items() if published == name)


def _layouts(task: Task) -> Iterator[tuple[str, str | None]]:
    if isinstance(task, SuperResolution):
        yield from _SR_LAYOUTS
    elif isinstance(task, RealWorld):
        yield from _REAL_LAYOUTS
    else:
        yield from ((pattern, None) for pattern in (*_CLEAN_LAYOUTS[type(task)], *_CLEAN_FALLBACKS))


def _resolve(folder: Path, relative: str) -> Path | None:
    """`folder / relative` if that folder exists, each part matched without regard to case."""
    for part in Path(relative).parts:
        if (folder / part).is_dir():
            folder = folder / part
            continue
        same = [entry for entry in folder.iterdir() if entry.name.lower() == part.lower() and entry.is_dir()]
        if not same:
            return None
        folder = same[0]
    return folder


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def _key(path: Path, scale: int) -> str:
    """What a reference and its degraded file share: the stem without the marks that published sets append."""
    marks = rf"(_(HR|LR|LRBI|LR_bicubic))?_?x{scale}$|_(HR|LR|LRBI)$"
    return re.sub(marks, "", path.stem, flags=re.IGNORECASE) or path.stem


def _match(references: list[Path], degraded: Path | None, scale: int) -> tuple[ImagePair, ...]:
    if degraded is None:
        return tuple(ImagePair(path, None) for path in references)
    files = {_key(path, scale): path for path in _images(degraded)}
    missing = [path.name for path in references if _key(path, scale) not in files]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(references)} references have no degraded file in {degraded}, the first is "
            f"{missing[0]}: expected the same name, or the name with x{scale} behind it"
        )
    return tuple(ImagePair(path, files[_key(path, scale)]) for path in references)
