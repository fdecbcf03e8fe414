"""Scores under the published protocol: `evaluate` in one call, and the pieces that it is made of.

`protocol` holds the measuring rules, `datasets` finds the images, `candidates` what is measured, `planning` puts the
three together, and `scoring` has the loop; `results` and `comparison` are what comes out, `report` shows it.
"""

from atd.evaluation.api import ImageProgress, evaluate
from atd.evaluation.results import Evaluation, Score

__all__ = ["Evaluation", "ImageProgress", "Score", "evaluate"]
