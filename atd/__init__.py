"""ATD: image restoration with adaptive token dictionaries (CVPR 2024, TPAMI 2026).

>>> import atd
>>> image = atd.restore("atd_light_sr_x4", "photo.png", weights="bundled")
"""

from atd.checkpoints import LoadError, load
from atd.models import ATD, ATDCVPR, ATDU
from atd.registry import create, list_models

__version__ = "0.1.0"
