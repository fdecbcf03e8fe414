"""What every runtime gives: an exported file in the shape in which restoration takes a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atd.errors import InputError
from atd.runtime.metadata import Metadata


class ExportedNetwork(nn.Module, ABC):
    """An exported file as a module: images (b, c, h, w) in [0, 1] in, restored ones in [0, 1] out, on the CPU.

    It has no parameters; the runtime holds the weights.

    Attributes:
        metadata: what the file says of itself.
        name, task, scale, in_channels, size_multiple: as of :class:`atd.models.RestorationModel`.
        config: what distinguishes this network from others: the file's SHA-256.
        runtime: the program that runs it, with its version.
    """

    runtime: str

    def __init__(self, metadata: Metadata, sha256: str) -> None:
        super().__init__()
        self.metadata = metadata
        self.name = metadata.name
        self.task = metadata.task
        self.scale = metadata.scale
        self.in_channels = metadata.channels
        self.size_multiple = metadata.size_multiple
        self.config = {"sha256": sha256}

    @abstractmethod
    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """One call of the runtime, (b, c, h, w) float32 to (b, c, s·h, s·w) float32."""

    def forward(self, image: Tensor) -> Tensor:
        """Restored images in the dtype of ``image``, on the CPU.

        Raises:
            InputError: the file is bound to another size.
        """
        size = self.metadata.size
        if size is not None and (image.shape[0] != 1 or tuple(image.shape[-2:]) != size):
            raise InputError(
                f"this file takes one image of {size[1]}x{size[0]} pixels at a time and was given {image.shape[0]} of "
                f"{image.shape[-1]}x{image.shape[-2]}: export it without --static for every size"
            )
        array = image.detach().to("cpu", torch.float32).contiguous().numpy()
        return torch.as_tensor(self.run(array)).to(image.dtype)
