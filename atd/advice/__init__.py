"""Which network for my picture: what can be measured in an image file, and what follows from it."""

from atd.advice.api import advise
from atd.advice.measurements import Measurements
from atd.advice.results import Advice, Recommendation

__all__ = ["Advice", "Measurements", "Recommendation", "advise"]
