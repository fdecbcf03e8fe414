"""A network as one program of torch operations for every size, without Python: what every format is made from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from atd import ops
from atd.errors import ExportError
from atd.models import RestorationModel

Size = tuple[int, int]
"""Height and width in pixels."""

OLDEST_EXPORTING_TORCH = (2, 11)
"""Of the releases that this library is tested with, the first whose programs serve every size."""


class Restored(nn.Module):
    """What is exported: the network with its result clamped to [0, 1]; image and result are float32."""

    def __init__(self, network: RestorationModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] to (b, c, s·h, s·w) in [0, 1]."""
        # Floats: for the integers 0 and 1 the exporter to ONNX looks for a cast that does not exist.
        return self.network(image).clamp(0.0, 1.0)


def on_cpu(network: RestorationModel, dtype: torch.dtype) -> RestorationModel:
    """A copy of `network` on the CPU with parameters in `dtype`, in evaluation mode."""
    # Parameters ask for gradients, although none are recorded: products with them are then traced in one form whatever
    # the sizes are.
    return copy.deepcopy(network).to("cpu", dtype).eval().requires_grad_(True)


def trace(network: RestorationModel, size: Size | None = None) -> ExportedProgram:
    """The program of :class:`Restored`, from the plain reference of every operation.

    Args:
        network: on the CPU, in evaluation mode.
        size: bind the program to one image of this size; None: every batch, height and width from 1 on.

    Raises:
        ExportError: this torch cannot trace networks for every size.
    """
    if size is not None:
        with torch.no_grad(), ops.use("reference"):
            image = torch.zeros(1, network.in_channels, *size)
            return torch.export.export(Restored(network), (image,), strict=False)
    require_exporting_torch()
    multiple = network.size_multiple
    # Any size will do, but no two symbols may look equal, nor a number of windows like 1.
    image = torch.zeros(2, network.in_channels, 2 * multiple + 1, 3 * multiple + 1)
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    # torch otherwise assumes that no size is 1, neither of the image nor of the grid of windows.
    # The module gets its `patch` while it is imported, where no type checker sees it.
    patch = cast(
        "Callable[..., AbstractContextManager[None]]",
        shapes.patch,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    )
    with torch.no_grad(), ops.use("reference"), patch(backed_size_oblivious=True):
        return torch.export.export(
            Restored(network),
            (image,),
            dynamic_shapes={"image": sizes},
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def require_exporting_torch() -> None:
    """Refuse, before any work, a torch whose programs are bound to sizes above 1.

    Raises:
        ExportError: it is older than `OLDEST_EXPORTING_TORCH`.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_EXPORTING_TORCH:
        oldest = ".".join(map(str, OLDEST_EXPORTING_TORCH))
        raise ExportError(
            f"a network that takes every size is exported by torch {oldest} and newer, and this is torch "
            f"{torch.__version__}: export it there, or for one size (--static HxW, size=(height, width))"
        )
