"""What the weights room asks of a network, without knowing any."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn


class StorableNetwork(Protocol):
    """What saving, loading and describing a network ask of it; `atd.models.RestorationModel` is one."""

    architecture: ClassVar[str]
    config: dict[str, object]
    name: str | None
    task: str
    scale: int
    in_channels: int

    def parameters(self) -> Iterator[nn.Parameter]:
        """All trainable tensors."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by the authors' keys."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> object:
        """Take over tensors."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation mode."""
        ...

    def to(self, *, device: torch.device | str | None) -> Self:
        """Move to a device."""
        ...
