"""Scores under the published protocol: `evaluate` and `compare` in one call, and the pieces that they are made of.

`protocol` holds the measuring rules, `datasets` finds the images, `candidates` what is measured, `planning` puts the
three together, and `scoring` has the loop; `results` and `comparison` are what comes out, `report` shows it.
"""

from atd.evaluation.api import ImageProgress, compare, evaluate
from atd.evaluation.comparison import Comparison
from atd.evaluation.results import Evaluation, Score

__all__ = ["Comparison", "Evaluation", "ImageProgress", "Score", "compare", "evaluate"]
