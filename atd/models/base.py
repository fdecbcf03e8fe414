"""What every network of this library tells its caller, and how it is loaded and saved."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from atd.ops.backend import keep_choice
from atd.ops.precision import wide_dtype
from atd.ops.tracing import is_exporting
from atd.weights.build import load_network
from atd.weights.format import Params
from atd.weights.publish import push
from atd.weights.saving import write_weights


class RestorationModel(nn.Module):
    """Base class of the networks: an image (b, c, h, w) in [0, 1] in, the restored image (b, c, s·h, s·w) out.

    ``forward`` takes every size from 1×1 on and every floating dtype; it computes in the dtype of the parameters and
    answers in the dtype of the input. The output is not clamped.

    Attributes:
        config: the arguments of the constructor by name, defaults filled in, ready for JSON: ``type(model)(**config)``
            makes the same network again. A subclass with a constructor of its own has that one's arguments.
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
        if "__init__" in vars(cls):
            cls.__init__ = _keep_arguments(cls.__init__)

    def extra_repr(self) -> str:
        """What ``repr`` says of the network before its layers."""
        label = f"name={self.name!r}, " if self.name else ""
        return f"{label}task={self.task!r}, scale={self.scale}, in_channels={self.in_channels}"

    def pad(self, image: Tensor) -> Tensor:
        """Pad right and bottom to a multiple of :attr:`size_multiple` by mirroring with the edge pixel included."""
        multiple = self.size_multiple
        height, width = ((side + multiple - 1) // multiple * multiple for side in image.shape[-2:])
        return pad_symmetric(image, height - image.shape[-2], width - image.shape[-1])

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
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        weights: str | Path = "official",
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        params: Params = "auto",
        **overrides: object,
    ) -> Self:
        """:func:`atd.load`, with the check that the weights belong to this class. Same arguments, same errors."""
        return load_network(
            {cls.architecture: cls},
            name_or_path,
            weights,
            device,
            dtype,
            revision,
            local_files_only,
            params,
            **overrides,
        )

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``model.safetensors``, ``config.json`` and a model card into ``directory``, and return it."""
        return write_weights(self, Path(directory))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload weights with atd",
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to a Hugging Face repository and return the commit's URL."""
        return push(self, repo_id, private=private, token=token, commit_message=commit_message)


def _keep_arguments(construct: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a network, made to leave its arguments in ``self.config``.

    Constructors call those of their bases; the outermost one, which the network can be made again by, is the one whose
    arguments are kept.
    """
    signature = inspect.signature(construct)

    @functools.wraps(construct)
    def init(self: RestorationModel, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        if type(self).__init__ is not init:
            return
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *named = bound.arguments.items()
        config: dict[str, Any] = {}
        value: Any
        for name, value in named:
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                config.update(value)
            else:
                config[name] = value
        self.config = {
            name: list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value
            for name, value in config.items()
        }

    return init


def pad_symmetric(image: Tensor, bottom: int, right: int) -> Tensor:
    """``numpy.pad(mode="symmetric")`` of the last two axes, at their ends; periodic when the pad exceeds the image."""
    for axis, amount in ((-2, bottom), (-1, right)):
        if not is_exporting() and amount == 0:  # in an exported program it is no number yet
            continue
        size = image.shape[axis]
        index = torch.arange(size + amount, device=image.device)
        index = index % index.new_full((), 2 * size)  # a number that is no constant has no remainder in ONNX
        index = torch.where(index < size, index, 2 * size - 1 - index)
        image = image.index_select(axis, index)
    return image


def run_layer(layer: Callable[..., Any], *args: Any, checkpointed: bool) -> Any:
    """``layer(*args)``, its activations recomputed in the backward pass when ``checkpointed`` and gradients are on."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(layer if torch.compiler.is_compiling() else keep_choice(layer), *args, use_reentrant=False)
    return layer(*args)


def published_mean(in_chans: int) -> tuple[float, ...]:
    """The mean of DIV2K for RGB, rounded to float32 as the authors' networks have it; 0 for other images."""
    rgb = torch.tensor((0.4488, 0.4371, 0.4040), device="cpu", dtype=torch.float32)
    return tuple(float(value) for value in rgb) if in_chans == 3 else (0.0,) * in_chans


class ImageNormalisation(nn.Module):
    """``(image − mean) · img_range`` and back, in float32 or better; ``mean`` has one number for each channel."""

    def __init__(self, mean: Sequence[float], img_range: float) -> None:
        super().__init__()
        self.img_range = img_range
        # Numbers, not a buffer: they are no part of the state dict and follow no dtype cast.
        self.mean = tuple(mean)

    def forward(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalise an image (b, c, h, w) in [0, 1], and cast it to `dtype`."""
        return (self._add(image.to(wide_dtype(image)), [-mean for mean in self.mean]) * self.img_range).to(dtype)

    def inverse(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Undo `forward`, in float32 or better, and cast to `dtype`."""
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        return self._add(image / self.img_range, self.mean).to(dtype)

    def _add(self, image: Tensor, numbers: Sequence[float]) -> Tensor:
        """One number to each channel, without a tensor made of them: its copy to a card would break CUDA graphs."""
        return torch.stack([channel + number for channel, number in zip(image.unbind(1), numbers, strict=True)], dim=1)
