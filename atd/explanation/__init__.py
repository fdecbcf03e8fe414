"""What a network looked up in its token dictionary, layer by layer: as arrays, as images, as a page."""

from atd.explanation.api import explain
from atd.explanation.maps import Explanation, LayerMaps

__all__ = ["Explanation", "LayerMaps", "explain"]
