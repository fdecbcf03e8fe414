"""Three nodes: load a network, restore images with it, ask which network they need.

ComfyUI's images are floats (batch, height, width, channels).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

import atd
from atd import registry
from atd.models import RestorationModel

CATEGORY = "image/restoration"
MODEL = "ATD_MODEL"


class LoadNetwork:
    """A network by its name, or from a file, folder or hub repository."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("network",)
    DESCRIPTION = "Load an ATD network. The bundled ones need no download."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # ComfyUI's name
        """What the node shows: names with bundled weights first."""
        names = sorted(atd.list_models(), key=lambda name: not registry.get(name).bundled)
        return {
            "required": {
                "name": (names, {"default": "atd_light_sr_x4"}),
                "weights": (("bundled", "official"), {"default": "bundled"}),
            },
            "optional": {
                "file": (
                    "STRING",
                    {"default": "", "tooltip": "a weights file, folder or org/repo instead of the name"},
                ),
            },
        }

    def load(self, name: str, weights: str, file: str = "") -> tuple[RestorationModel]:
        """The network on ComfyUI's device."""
        management = _comfy("model_management")
        device = management.get_torch_device() if management else None
        if file.strip():
            return (atd.load(file.strip(), device=device),)
        return (atd.load(name, weights=weights, device=device),)


class RestoreImage:
    """Images through a network: whole where memory allows, else in tiles; with progress, and interruptible."""

    CATEGORY = CATEGORY
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    DESCRIPTION = "Enlarge, denoise or clean images. Tiles change the result a little, as ATD looks at whole images."

    TILE: ClassVar = {
        "default": 0,
        "min": 0,
        "max": 8192,
        "step": 16,
        "tooltip": "side of the tiles; 0: as memory allows",
    }
    OVERLAP: ClassVar = {"default": 32, "min": 0, "max": 512, "step": 4, "tooltip": "pixels that tiles share"}

    STRENGTH: ClassVar = {
        "default": 1.0,
        "min": 0.0,
        "max": 1.0,
        "step": 0.05,
        "tooltip": "of networks that keep the size: 0 gives the input, 1 all of the result, else a blend",
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # ComfyUI's name
        """What the node shows."""
        return {
            "required": {"network": (MODEL,), "image": ("IMAGE",)},
            "optional": {
                "tile": ("INT", cls.TILE),
                "overlap": ("INT", cls.OVERLAP),
                "self_ensemble": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "mean over eight flips, eight times the work"},
                ),
                "strength": ("FLOAT", cls.STRENGTH),
            },
        }

    def restore(
        self,
        network: RestorationModel,
        image: Tensor,
        tile: int = 0,
        overlap: int = 32,
        self_ensemble: bool = False,
        strength: float = 1.0,
    ) -> tuple[Tensor]:
        """(b, h, w, c) in [0, 1] to (b, s·h, s·w, c) in [0, 1], float32 on the CPU, as ComfyUI's nodes give images."""
        restored = atd.restore(
            network,
            image.movedim(-1, 1).to(torch.float32),
            tile=tile or "auto",
            overlap=overlap,
            self_ensemble=self_ensemble,
            strength=strength,
            progress=_progress(),
        )
        return (restored.movedim(1, -1).contiguous().cpu(),)


class AdviseOnImage:
    """Which network an image needs, in words: what was measured in it, and the networks in the order to try them."""

    CATEGORY = CATEGORY
    FUNCTION = "advise"
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("advice", "network")
    DESCRIPTION = "Measure noise, JPEG traces and earlier enlarging, and say which ATD network the image needs."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # ComfyUI's name
        """What the node shows."""
        return {"required": {"image": ("IMAGE",)}}

    def advise(self, image: Tensor) -> tuple[str, str]:
        """(b, h, w, c) in [0, 1] → the advice on the first image of the batch, and the first network's name or ""."""
        samples = image[0].to("cpu", torch.float32).clamp(0, 1).mul(255).round().byte().numpy()
        advice = atd.advise(samples)
        lines = [*advice.findings, f"=> {advice.summary}"]
        names = [item.network for item in advice.recommendations if item.network]
        for item in advice.recommendations:
            lines.append(f"{item.network} ({item.weights}): {item.reason}" if item.network else item.reason)
        return "\n".join(lines), names[0] if names else ""


def _progress() -> Callable[[atd.TileProgress], None]:
    """Moves ComfyUI's progress bar after every batch of tiles, and stops the work where its user has asked for it."""
    utils, management = _comfy("utils"), _comfy("model_management")
    bar = None

    def report(progress: atd.TileProgress) -> None:
        nonlocal bar
        if management:
            management.throw_exception_if_processing_interrupted()
        if utils:
            bar = bar or utils.ProgressBar(progress.total)
            bar.update_absolute(progress.done, progress.total)

    return report


def _comfy(name: str) -> ModuleType | None:
    """A module of ComfyUI; None outside of it."""
    try:
        return importlib.import_module(f"comfy.{name}")
    except ImportError:
        return None


NODE_CLASS_MAPPINGS = {
    "AtdLoadNetwork": LoadNetwork,
    "AtdRestoreImage": RestoreImage,
    "AtdAdviseOnImage": AdviseOnImage,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AtdLoadNetwork": "Load ATD network",
    "AtdRestoreImage": "Restore image (ATD)",
    "AtdAdviseOnImage": "Which ATD network?",
}
