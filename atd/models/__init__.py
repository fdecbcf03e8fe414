"""The networks: :class:`ATD`, :class:`ATDU`, :class:`ATDCVPR` and :class:`ATDReal`."""

from atd.models.atd import ATD
from atd.models.atd_cvpr import ATDCVPR
from atd.models.atd_real import ATDReal
from atd.models.atd_u import ATDU
from atd.models.base import RestorationModel

ARCHITECTURES: dict[str, type[RestorationModel]] = {cls.architecture: cls for cls in (ATD, ATDU, ATDCVPR, ATDReal)}

__all__ = ["ARCHITECTURES", "ATD", "ATDCVPR", "ATDU", "ATDReal", "RestorationModel"]
