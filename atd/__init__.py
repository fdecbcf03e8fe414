"""ATD: image restoration with adaptive token dictionaries (CVPR 2024, TPAMI 2026).

>>> import atd
>>> image = atd.restore("atd_light_sr_x4", "photo.png", weights="bundled")
"""

from atd.loading import LoadError, load
from atd.models import ATD, ATDCVPR, ATDU
from atd.registry import create, list_models
from atd.restoration.api import restore, restore_file

__version__ = "0.1.0"

__all__ = [
    "ATD",
    "ATDCVPR",
    "ATDU",
    "LoadError",
    "__version__",
    "create",
    "list_models",
    "load",
    "restore",
    "restore_file",
]
