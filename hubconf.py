"""Entry points of torch.hub, one for each name of `atd.list_models()`.

>>> model = torch.hub.load("path/to/checkout", "atd_light_sr_x4", source="local", weights="bundled")
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

import atd as _atd
from atd import registry as _registry
from atd.models import RestorationModel as _RestorationModel

dependencies = ["PIL", "einops", "huggingface_hub", "numpy", "safetensors", "torch"]


def _entry(name: str) -> _Callable[..., _RestorationModel]:
    def load(weights: str = "official", **kwargs: _Any) -> _RestorationModel:
        return _atd.load(name, weights=weights, **kwargs)

    info = _registry.get(name)
    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"{info.architecture} from {info.paper}; the arguments after the name are those of `atd.load`."
    return load


globals().update({name: _entry(name) for name in _atd.list_models()})
