"""The perceptual loss: distances of features of VGG19 (Johnson et al., ECCV 2016; as weighted by Real-ESRGAN)."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  (of a path's type)
from torch import Tensor, nn

from atd.errors import RecipeError

LAYER_WEIGHTS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
"""What the features of each convolution, before its activation, weigh."""

TORCHVISION_FILE = "vgg19-dcbb9e9d.pth"
"""The weights that `torchvision.models.vgg19(weights="IMAGENET1K_V1")` leaves in torch's cache."""

_CONVOLUTIONS, _WIDTHS = (2, 2, 4, 4, 4), (64, 128, 256, 512, 512)
_ALL_LAYERS = [
    name
    for block, count in enumerate(_CONVOLUTIONS, 1)
    for name in (*(name for number in range(1, count + 1) for name in (f"conv{block}_{number}", "relu")), "pool")
]
_NAMES = _ALL_LAYERS[: _ALL_LAYERS.index("conv5_4") + 1]


class PerceptualLoss(nn.Module):
    """Weighted sum of the mean absolute differences of VGG19's features, of RGB images in [0, 1].

    Args:
        weights: file of VGG19's weights with torchvision's names; None: torchvision's own file in torch's cache.

    Raises:
        RecipeError: there is none, or it holds another network.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.features = vgg19_features()
        self.features.load_state_dict(_read(weights))
        self.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar; `target` gets no gradient."""
        with torch.no_grad():
            wanted = self._features_of(target)
        total = output.new_zeros(())
        for name, features in self._features_of(output).items():
            total = total + LAYER_WEIGHTS[name] * nn.functional.l1_loss(features, wanted[name])
        return total

    def _features_of(self, image: Tensor) -> dict[str, Tensor]:
        x = (image - self.get_buffer("mean")) / self.get_buffer("deviation")
        kept: dict[str, Tensor] = {}
        for layer, name in zip(self.features, _NAMES, strict=True):
            x = layer(x)
            if name in LAYER_WEIGHTS:
                kept[name] = x
        return kept


def vgg19_features() -> nn.Sequential:
    """VGG19's convolutions up to conv5_4, numbered as in torchvision, with random weights."""
    layers: list[nn.Module] = []
    before = 3
    for name in _NAMES:
        if name == "relu":
            layers.append(nn.ReLU())
        elif name == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            width = _WIDTHS[int(name[4]) - 1]
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            before = width
    return nn.Sequential(*layers)


def _read(weights: Path | None) -> dict[str, Tensor]:
    file = weights or Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION_FILE
    if not file.is_file():
        raise RecipeError(
            f"the perceptual loss compares features of VGG19, whose weights are not at {file}: "
            f'torchvision.models.vgg19(weights="IMAGENET1K_V1") puts them there once, '
            "perceptual_weights=FILE names another file, and perceptual=0 trains without this loss"
        )
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        expected = vgg19_features().state_dict()
        chosen = {key: state[f"features.{key}"] for key in expected}
        if any(chosen[key].shape != expected[key].shape for key in expected):
            raise KeyError("another shape")
    except (KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise RecipeError(f"{file} does not hold the weights of torchvision's VGG19: {error}") from error
    return chosen
