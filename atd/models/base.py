"""What every network of this library tells its caller, and how it is loaded and saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atd.ops.precision import wide_dtype


class RestorationModel(nn.Module):
    """Base class of the networks: an image (b, c, h, w) in [0, 1] in, the restored image (b, c, s·h, s·w) out.

    ``forward`` takes every size from 1×1 on and every floating dtype; it computes in the dtype of the parameters and
    answers in the dtype of the input. The output is not clamped.

    Attributes:
        config: the constructor's keyword arguments, ready for JSON.
        name: registry name when the model was made by :func:`atd.load` or :func:`atd.create`, else None.
        task: ``"sr"``, ``"denoise"``, ``"jpeg"``, or ``"restoration"`` where only the weights could tell.
        scale: upscaling factor s, 1 for restoration at the same size.
        in_channels: channels c of input and output.
        window_size: side of the largest attention window, in pixels of the input.
        size_multiple: ``forward`` pads height and width to a multiple of this; tiles of such sizes waste nothing.
    """

    architecture: ClassVar[str]

    config: dict[str, Any]
    name: str | None = None
    task: str
    scale: int
    in_channels: int
    window_size: int
    size_multiple: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.architecture = cls.__name__
        _record_config(cls)

    def extra_repr(self) -> str:
        label = f"name={self.name!r}, " if self.name else ""
        return f"{label}task={self.task!r}, scale={self.scale}, in_channels={self.in_channels}"

    def pad(self, image: Tensor) -> Tensor:
        """Pad right and bottom to a multiple of :attr:`size_multiple` by mirroring with the edge pixel included."""
        return pad_symmetric(image, -image.shape[-2] % self.size_multiple, -image.shape[-1] % self.size_multiple)

    def check_input(self, image: Tensor) -> None:
        """Raise ValueError unless ``image`` is (b, c, h, w), floating, with this model's channels and h, w ≥ 1."""
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"{self.architecture} got an input of shape {tuple(image.shape)}; expected (batch, "
                f"{self.in_channels}, height, width)."
            )
        if not image.is_floating_point():
            raise ValueError(f"{self.architecture} got {image.dtype}; expected a floating dtype with values in [0, 1].")
        if 0 in image.shape[-2:]:
            raise ValueError(f"{self.architecture} got an empty image of {image.shape[-2]}×{image.shape[-1]} pixels.")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **kwargs: Any) -> Self:
        """:func:`atd.load`, with the check that the weights belong to this class. Same arguments, same errors."""
        from atd.loading import LoadError, load

        model = load(name_or_path, **kwargs)
        if not isinstance(model, cls):
            raise LoadError(
                f"{name_or_path} holds weights of {model.architecture}; use atd.{model.architecture}.from_pretrained "
                f"or atd.load."
            )
        return model

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``model.safetensors``, ``config.json`` and a model card into ``directory``, and return it."""
        from atd.loading import save

        return save(self, directory)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what :meth:`save_pretrained` writes to a Hugging Face repository and return the commit's URL."""
        from atd.loading import push

        return push(self, repo_id, **kwargs)


def _record_config(cls: type[RestorationModel]) -> None:
    """Make ``cls(...)`` keep its keyword arguments, defaults filled in, as ``self.config``."""
    construct = cls.__init__
    signature = inspect.signature(construct)

    def init(self: RestorationModel, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        nn.Module.__init__(self)
        self.config = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in bound.arguments.items()
            if name != "self"
        }
        construct(self, *args, **kwargs)

    init.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    init.__doc__ = construct.__doc__
    cls.__init__ = init  # pyright: ignore[reportAttributeAccessIssue]


def pad_symmetric(image: Tensor, bottom: int, right: int) -> Tensor:
    """``numpy.pad(mode="symmetric")`` of the last two axes, at their ends; periodic when the pad exceeds the image."""
    for axis, amount in ((-2, bottom), (-1, right)):
        if amount:
            size = image.shape[axis]
            index = torch.arange(size + amount, device=image.device) % (2 * size)
            index = torch.where(index < size, index, 2 * size - 1 - index)
            image = image.index_select(axis, index)
    return image


def run_layer(layer: Callable[..., Any], *args: Any, checkpointed: bool) -> Any:
    """``layer(*args)``, its activations recomputed in the backward pass when ``checkpointed`` and gradients are on."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


class ImageNormalisation(nn.Module):
    """``(image − mean) · img_range`` and back, in float32 or better; the mean of DIV2K for RGB, 0 otherwise."""

    def __init__(self, in_chans: int, img_range: float) -> None:
        super().__init__()
        self.img_range = img_range
        # A tuple of float32-rounded numbers, not a buffer: it is no part of the state dict and follows no dtype cast.
        rgb = torch.tensor((0.4488, 0.4371, 0.4040), device="cpu", dtype=torch.float32).tolist()
        self.mean = tuple(rgb) if in_chans == 3 else (0.0,) * in_chans

    def forward(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        return (self._add(image.to(wide_dtype(image)), [-mean for mean in self.mean]) * self.img_range).to(dtype)

    def inverse(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        return self._add(image / self.img_range, self.mean).to(dtype)

    def _add(self, image: Tensor, numbers: Sequence[float]) -> Tensor:
        """One number to each channel, without a tensor made of them: its copy to a card would break CUDA graphs."""
        return torch.stack([channel + number for channel, number in zip(image.unbind(1), numbers, strict=True)], dim=1)
