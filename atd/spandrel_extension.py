"""The networks of this library for spandrel, the model loader of chaiNNer, ComfyUI and others.

spandrel itself knows ATD of CVPR 2024. After ``atd.spandrel_extension.install()`` its ``ModelLoader`` also reads ATD of
TPAMI 2026, ATD-U and ATD-Real, in the authors' files and in ours, and runs CVPR 2024 by the operations of this library.
"""

from __future__ import annotations

from atd.errors import LoadError
from atd.models import ARCHITECTURES, RestorationModel
from atd.system import import_extra
from atd.weights.detection import detect

import_extra("spandrel", purpose="the extension of spandrel", extra="spandrel")

# spandrel has types and lacks the file that says so, py.typed.
from spandrel import (  # noqa: E402  # pyright: ignore[reportMissingTypeStubs]
    MAIN_REGISTRY,
    Architecture,
    ArchRegistry,
    ArchSupport,
    ImageModelDescriptor,
    ModelTiling,
    StateDict,
)
from spandrel.__helpers.model_descriptor import ArchId  # noqa: E402  # pyright: ignore[reportMissingTypeStubs]

IDS = {"ATD": "ATD-TPAMI", "ATDU": "ATD-U", "ATDReal": "ATD-Real", "ATDCVPR": "ATD-CVPR"}
"""How spandrel calls each network class; "ATD" there is its own network of CVPR 2024."""


class AtdArchitecture(Architecture[RestorationModel]):
    """One network class in spandrel's terms; files are told apart as :func:`atd.load` does.

    Args:
        family: name of the class in `atd.models`.
    """

    def __init__(self, family: str) -> None:
        super().__init__(id=IDS[family], name=IDS[family], detect=lambda state_dict: _family_of(state_dict) == family)
        self.family = family

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[RestorationModel]:
        """The network with these tensors, and what spandrel tells its callers of it."""
        _, config = detect(state_dict)
        model = ARCHITECTURES[self.family](**config).eval()
        size = "light" if config["embed_dim"] == 48 and self.family != "ATDU" else None
        return ImageModelDescriptor(
            model,
            state_dict,
            architecture=self,
            purpose="SR" if model.scale > 1 else "Restoration",
            tags=[*filter(None, [size]), f"{config['embed_dim']}dim", f"{model.window_size}w"],
            # Categories are decided in float32 whatever the precision is, but weights of others may overflow float16,
            # and nobody checks here.
            supports_half=False,
            supports_bfloat16=True,
            scale=model.scale,
            input_channels=model.in_channels,
            output_channels=model.in_channels,
            # Every pixel may attend to every other one. The network pads its input itself: there are no requirements.
            tiling=ModelTiling.DISCOURAGED,
        )


def _family_of(state_dict: StateDict) -> str | None:
    try:
        return detect(state_dict)[0]
    except LoadError:
        return None


def install(registry: ArchRegistry = MAIN_REGISTRY, *, cvpr: bool = True) -> None:
    """Add the networks to a registry of spandrel; what is there already stays.

    Args:
        registry: whose `ModelLoader`s learn them; spandrel's main one by default.
        cvpr: also read files of CVPR 2024, in front of spandrel's own network, which computes the same more slowly.
    """
    families = [family for family in IDS if cvpr or family != "ATDCVPR"]
    # ATD-Real has all keys of CVPR 2024, so that spandrel's own network would take its files.
    own = (ArchId("ATD"),) if "ATD" in registry else ()
    registry.add(
        *(ArchSupport.from_architecture(AtdArchitecture(family), before=own) for family in families),
        ignore_duplicates=True,
    )
