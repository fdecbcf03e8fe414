"""ATD: image restoration with adaptive token dictionaries (CVPR 2024, TPAMI 2026).

>>> import atd
>>> image = atd.restore("atd_light_sr_x4", "photo.png", weights="bundled")

Names are imported when they are first used (PEP 562): ``import atd`` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atd import degrade, metrics, ops
    from atd.advice import Advice, advise
    from atd.errors import (
        AtdError,
        BackendError,
        DataNotFoundError,
        ExportError,
        ImageError,
        InputError,
        LoadError,
        MissingExtraError,
        NotEnoughDiskError,
        NotEnoughMemoryError,
        RecipeError,
        TrainingError,
    )
    from atd.evaluation import evaluate
    from atd.explanation import explain
    from atd.export import export_onnx
    from atd.images.image import SaveOptions
    from atd.loading import convert, create, download, load
    from atd.models import ATD, ATDCVPR, ATDU, ATDReal
    from atd.registry import list_models
    from atd.restoration.api import restore, restore_file
    from atd.restoration.progress import TileProgress

__version__ = "0.2.0"

# Where each public name is found; a module stands for itself.
_HOMES = {
    "atd.advice": ("Advice", "advise"),
    "atd.errors": (
        "AtdError",
        "BackendError",
        "DataNotFoundError",
        "ExportError",
        "ImageError",
        "InputError",
        "LoadError",
        "MissingExtraError",
        "NotEnoughDiskError",
        "NotEnoughMemoryError",
        "RecipeError",
        "TrainingError",
    ),
    "atd.evaluation": ("evaluate",),
    "atd.explanation": ("explain",),
    "atd.export": ("export_onnx",),
    "atd.images.image": ("SaveOptions",),
    "atd.loading": ("convert", "create", "download", "load"),
    "atd.models": ("ATD", "ATDCVPR", "ATDReal", "ATDU"),
    "atd.registry": ("list_models",),
    "atd.restoration.api": ("restore", "restore_file"),
    "atd.restoration.progress": ("TileProgress",),
}
_MODULES = ("degrade", "metrics", "ops")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ATD",
    "ATDCVPR",
    "ATDU",
    "ATDReal",
    "Advice",
    "AtdError",
    "BackendError",
    "DataNotFoundError",
    "ExportError",
    "ImageError",
    "InputError",
    "LoadError",
    "MissingExtraError",
    "NotEnoughDiskError",
    "NotEnoughMemoryError",
    "RecipeError",
    "SaveOptions",
    "TileProgress",
    "TrainingError",
    "__version__",
    "advise",
    "convert",
    "create",
    "degrade",
    "download",
    "evaluate",
    "explain",
    "export_onnx",
    "list_models",
    "load",
    "metrics",
    "ops",
    "restore",
    "restore_file",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"atd.{name}")
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'atd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
