"""One copy in half precision of a network whose weights are float32, for all restorations of all threads.

Under autocast, every layer of every tile casts its weights anew and normalises into float32. A copy is cast once. It
lives as long as the network, takes half the network's memory again, and is made anew when the network's tensors are no
longer those that it was made from.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atd.models import RestorationModel
from atd.models.plain import are_untouched
from atd.models.weight_cache import tensor_state

_STAY_FLOAT32 = ("relative_position_bias_table", "attn_atd.scale", "logit_scale")
"""Parameters, by the ends of their names, that meet only float32 sums: rounding them would save nothing. What is
computed in float32 whatever the weights are, the networks see to themselves: categories, statistics of a LayerNorm, the
image."""


class _Copy(NamedTuple):
    origin: tuple[object, ...]
    """What the network's tensors were when the copy was made."""
    network: nn.Module


_copies: weakref.WeakKeyDictionary[nn.Module, dict[torch.dtype, _Copy]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def half_copy(network: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """`network` in `dtype`, on its device, to be called and not changed; None for one that autocast has to serve.

    That is any that is not plainly ours: its own forward may want float32 weights, and hooks, adapters and compiled
    parts belong to the module that they were put on.
    """
    if not _is_plain(network):
        return None
    with _lock:
        origin = _state(network)
        kept = _copies.setdefault(network, {})
        if dtype not in kept or kept[dtype].origin != origin:
            kept.pop(dtype, None)  # before the new one is made: both may not fit
            kept[dtype] = _Copy(origin, _cast(network, dtype))
        return kept[dtype].network


def _is_plain(network: nn.Module) -> bool:
    parts = list(network.modules())
    return (
        isinstance(network, RestorationModel)
        and all(type(part).__module__.startswith(("atd.models.", "torch.nn.modules.")) for part in parts)
        and are_untouched(parts)
    )


def _state(network: nn.Module) -> tuple[object, ...]:
    """What changes when a tensor of the network does, or its mode.

    Changes in place that autograd does not count, as those through ``.data``, the norms tell of.
    """
    tensors = [*network.parameters(), *network.buffers()]
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    # One kernel for many tensors, and one wait for the device.
    norms: Sequence[Tensor] = torch._foreach_norm(floating)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return network.training, *map(tensor_state, tensors), *(float(norm) for norm in torch.stack(list(norms)).cpu())


def _cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A deep copy whose tensors are made in `dtype` at once: at no time is there a second one in float32."""
    tensors: dict[int, object] = {}
    for name, parameter in network.named_parameters():
        kind = parameter.dtype if name.endswith(_STAY_FLOAT32) else dtype
        tensors[id(parameter)] = nn.Parameter(parameter.detach().to(kind, copy=True), requires_grad=False)
    for buffer in network.buffers():
        tensors[id(buffer)] = buffer.detach().to(dtype if buffer.is_floating_point() else buffer.dtype, copy=True)
    return copy.deepcopy(network, tensors)
