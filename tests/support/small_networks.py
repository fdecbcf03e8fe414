"""Small networks of every family with random parameters, for tests that are about files rather than images."""

import numpy as np
import torch

from atd import ATD, ATDCVPR, ATDU, ATDReal
from atd.models import RestorationModel

_BODY = {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "window_size": 4, "category_size": 16}
_TOKENS = {"num_tokens": 6, "reducted_dim": 3, "convffn_kernel_size": 3, "mlp_ratio": 1}
_LEVELS = {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": [4, 2], "category_size": [8, 16]}
_LEVEL_TOKENS = {"num_tokens": [5, 6], "reducted_dim": [2, 2], "dim_ffn_td": [1, 2], "convffn_kernel_size": 3}

FAMILIES = ("ATD", "ATDCVPR", "ATDReal", "ATDU")


def small(family: str, seed: int = 0, **overrides) -> RestorationModel:
    """A network of `family` in evaluation mode, ×2 where it upscales; the same one for the same `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "ATDU":
            model = ATDU(**{**_LEVELS, **_LEVEL_TOKENS, **overrides})
        else:
            make = {"ATD": ATD, "ATDCVPR": ATDCVPR, "ATDReal": ATDReal}[family]
            model = make(**{**_BODY, **_TOKENS, "upscale": 2, "upsampler": "pixelshuffledirect", **overrides})
    return model.eval()


def image(model: RestorationModel, height: int = 9, width: int = 14) -> torch.Tensor:
    """A batch of one random image for `model`."""
    return torch.rand(1, model.in_channels, height, width, generator=torch.Generator().manual_seed(1))


def photo(height=9, width=14):
    """A small picture with edges and slopes, (h, w, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 20 % 256, columns * 15 % 256, (rows // 3 + columns // 4) % 2 * 200]
    return np.stack(channels, axis=2).astype(np.uint8)


def output(model: RestorationModel) -> torch.Tensor:
    with torch.no_grad():
        return model(image(model).to(next(model.parameters()).dtype))


def same_weights(a: RestorationModel, b: RestorationModel) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
