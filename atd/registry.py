"""The table of published networks: what each name means, where its weights are, what its paper reports.

Everything that depends on a model's name reads this table: `atd.list_models`, `atd.create`, `atd.load`, the command
line, hubconf.py and the README's zoo.
Sources: Zhang et al., CVPR 2024 (arXiv 2401.08209) and IEEE TPAMI 2026 (arXiv 2603.02581).
"""

import copy
import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atd.errors import LoadError

if TYPE_CHECKING:
    from atd.models import RestorationModel

CVPR_PAPER = "Zhang et al., CVPR 2024, pp. 2856-2865 (arXiv 2401.08209)"
TPAMI_PAPER = "Zhang et al., IEEE TPAMI 2026 (arXiv 2603.02581)"
CVPR_DRIVE_FOLDER = "1D3BvTS1xBcaU1mp50k3pBzUWb7qjRvmB"
TPAMI_DRIVE_FOLDER = "1nz0I798GM8HkPYVZCLe8i9LAK31mpYQs"
BUNDLED_LICENCE = "LicenseRef-ATD-Bundled-Weights"
"""SPDX name of the notice atd/bundled/LICENSE: bundled weights were trained on images with research terms."""


@dataclass(frozen=True, kw_only=True)
class DriveFile:
    """A checkpoint in the authors' Google Drive: public folder id, name in it, and the file's own id where known."""

    folder: str
    name: str
    id: str | None = None

    @property
    def folder_url(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.folder}"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """The pinned copy in a hub repository: commit hash, and the SHA-256 of `<name>/model.safetensors` there."""

    revision: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the official weights of a network can be had, in the order in which `atd.load` tries them."""

    hub: HubFile | None = None
    drive: DriveFile | None = None


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of the table.

    name          registry name, such as "atd_light_sr_x4"
    architecture  class in `atd.models`: "ATD", "ATDU" or "ATDCVPR"
    task          "sr", "denoise" or "jpeg"
    scale         output side / input side (1 for restoration)
    in_channels   3 (RGB) or 1 (gray)
    sigma         standard deviation of the noise a denoiser was trained for, in units of 1/255; None: any
    quality       JPEG quality a JPEG network was trained for; None: any
    config        constructor keywords of the class (treat as read-only)
    parameters    number of trainable values (index buffers not counted)
    sources       where the official weights are
    scores        published results, {test set: (PSNR in dB, SSIM or None)}, under the protocol of `atd.evaluation`
    licence       SPDX name of the licence of the official weights
    paper         where the network was published
    """

    name: str
    architecture: str
    task: str
    config: dict[str, Any]
    parameters: int
    paper: str
    scale: int = 1
    in_channels: int = 3
    sigma: int | None = None
    quality: int | None = None
    sources: Sources = field(default_factory=Sources)
    scores: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    licence: str = "Apache-2.0"

    @property
    def bundled_path(self) -> Path:
        """Where the weights inside the package would be; the file exists for the few that are bundled."""
        return Path(str(resources.files("atd"))) / "bundled" / f"{self.name}.safetensors"

    @property
    def bundled(self) -> bool:
        """Whether `weights="bundled"` exists for this network."""
        return self.bundled_path.is_file()


_ATD = {
    "embed_dim": 216,
    "depths": [6] * 6,
    "num_heads": [4] * 6,
    "window_size": 16,
    "category_size": 256,
    "num_tokens": 512,
    "reducted_dim": 16,
    "dim_ffn_td": 16,
    "convffn_kernel_size": 5,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffle",
}
_ATD_LIGHT = {
    "embed_dim": 48,
    "depths": [6] * 4,
    "num_heads": [3] * 4,
    "window_size": 16,
    "category_size": 128,
    "num_tokens": 128,
    "reducted_dim": 12,
    "dim_ffn_td": 4,
    "convffn_kernel_size": 7,
    "mlp_ratio": 1,
    "upsampler": "pixelshuffledirect",
}
_CVPR = {
    "embed_dim": 210,
    "depths": [6] * 6,
    "num_heads": [6] * 6,
    "window_size": 16,
    "category_size": 256,
    "num_tokens": 128,
    "reducted_dim": 20,
    "convffn_kernel_size": 5,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffle",
}
_CVPR_LIGHT = {
    "embed_dim": 48,
    "depths": [6] * 4,
    "num_heads": [4] * 4,
    "window_size": 16,
    "category_size": 128,
    "num_tokens": 64,
    "reducted_dim": 8,
    "convffn_kernel_size": 7,
    "mlp_ratio": 1,
    "upsampler": "pixelshuffledirect",
}
_ATD_U = {
    "embed_dim": 48,
    "depths": [6, 8, 8, 6],
    "num_heads": [1, 2, 4, 8],
    "window_size": [16, 8, 8, 8],
    "category_size": [128] * 4,
    "num_tokens": [128] * 4,
    "reducted_dim": [6, 12, 24, 24],
    "dim_ffn_td": [6, 12, 12, 12],
    "convffn_kernel_size": 5,
    "mlp_ratio": 2.66,
    "bias": False,
}
# A small ATD-U of this project's own, without published weights: about 1 M parameters.
_ATD_U_TINY = {
    "embed_dim": 24,
    "depths": [3, 3, 4],
    "num_heads": [1, 2, 4],
    "window_size": [8, 8, 8],
    "category_size": [64] * 3,
    "num_tokens": [64] * 3,
    "reducted_dim": [6, 8, 12],
    "dim_ffn_td": [4, 6, 6],
    "convffn_kernel_size": 5,
    "mlp_ratio": 2,
    "bias": False,
}

_SR_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")

# family → (class, config, paper, Drive folder, {scale: (parameters, file, Drive id, published PSNR/SSIM on _SR_SETS)})
_SUPER_RESOLUTION = {
    "atd_sr": ("ATD", _ATD, TPAMI_PAPER, TPAMI_DRIVE_FOLDER, {
        2: (21_842_207, "001_ATD_SRx2_finetune", None, ""),
        3: (22_026_847, "002_ATD_SRx3_finetune", None, ""),
        4: (21_989_919, "003_ATD_SRx4_finetune", None, ""),
    }),
    "atd_light_sr": ("ATD", _ATD_LIGHT, TPAMI_PAPER, TPAMI_DRIVE_FOLDER, {
        2: (760_956, "101_ATD_light_SRx2_scratch", None, ""),
        3: (767_451, "102_ATD_light_SRx3_finetune", None, ""),
        4: (776_544, "103_ATD_light_SRx4_finetune", None, ""),
    }),
    "atd_cvpr_sr": ("ATDCVPR", _CVPR, CVPR_PAPER, CVPR_DRIVE_FOLDER, {
        2: (20_113_217, "001_ATD_SRx2_finetune", None, "38.61/.9629 34.92/.9275 32.64/.9054 34.73/.9476 40.35/.9810"),
        3: (20_297_857, "002_ATD_SRx3_finetune", None, "35.15/.9331 31.15/.8556 29.58/.8175 30.52/.8924 35.64/.9558"),
        4: (20_260_929, "003_ATD_SRx4_finetune", "1J9kR9OyrOxtJ5Ygbr_W116BLBwnD4VNL",
            "33.14/.9061 29.25/.7976 28.02/.7524 28.22/.8414 32.65/.9308"),
    }),
    "atd_cvpr_light_sr": ("ATDCVPR", _CVPR_LIGHT, CVPR_PAPER, CVPR_DRIVE_FOLDER, {
        2: (753_204, "101_ATD_light_SRx2_scratch", "1ZxK7gMJXgeyHgeOaKbzpXtoElDmRWKkU",
            "38.29/.9616 34.10/.9217 32.39/.9023 33.27/.9375 39.52/.9789"),
        3: (759_699, "102_ATD_light_SRx3_finetune", "1mPcWMyDO9lOUD6DrrmNxFR67sGqnOJxp",
            "34.74/.9300 30.68/.8485 29.32/.8109 29.17/.8709 34.60/.9506"),
        4: (768_792, "103_ATD_light_SRx4_finetune", "1CxzxLWMIHDHip2nDF6A2sLBTkpypI8GU",
            "32.63/.8998 28.89/.7886 27.79/.7440 26.97/.8107 31.48/.9198"),
    }),
}  # fmt: skip

# family → (task, channels, parameters, {level: file}); the level is a noise sigma or a JPEG quality
_RESTORATION = {
    "atd_u_color_dn": ("denoise", 3, 24_905_120, {
        15: "201_ATD_U_denoising_color_sigma15",
        25: "202_ATD_U_denoising_color_sigma25",
        50: "203_ATD_U_denoising_color_sigma50",
    }),
    "atd_u_gray_dn": ("denoise", 1, 24_903_392, {
        15: "301_ATD_U_denoising_gray_sigma15",
        25: "302_ATD_U_denoising_gray_sigma25",
        50: "303_ATD_U_denoising_gray_sigma50",
    }),
    "atd_u_gray_jpeg": ("jpeg", 1, 24_903_392, {
        10: "401_ATD_U_jpegcar_gray_q10",
        20: "402_ATD_U_jpegcar_gray_q20",
        30: "403_ATD_U_jpegcar_gray_q30",
        40: "404_ATD_U_jpegcar_gray_q40",
    }),
}  # fmt: skip


def _scores(cells: str) -> dict[str, tuple[float, float | None]]:
    """{set: (PSNR, SSIM)} of a row of "PSNR/SSIM" cells, one for each of `_SR_SETS`, or none at all."""
    table = {}
    for name, cell in zip(_SR_SETS, cells.split(), strict=bool(cells)):
        psnr, ssim = map(float, cell.split("/"))
        table[name] = (psnr, ssim)
    return table


def _rows() -> Iterator[ModelInfo]:
    for family, (architecture, config, paper, folder, scales) in _SUPER_RESOLUTION.items():
        for scale, (parameters, file, drive_id, scores) in scales.items():
            yield ModelInfo(
                name=f"{family}_x{scale}",
                architecture=architecture,
                task="sr",
                scale=scale,
                config={**config, "upscale": scale},
                parameters=parameters,
                sources=Sources(drive=DriveFile(folder=folder, name=f"{file}.pth", id=drive_id)),
                scores=_scores(scores),
                paper=paper,
            )
    for family, (task, channels, parameters, levels) in _RESTORATION.items():
        for level, file in levels.items():
            yield ModelInfo(
                name=f"{family}{level}",
                architecture="ATDU",
                task=task,
                in_channels=channels,
                sigma=level if task == "denoise" else None,
                quality=level if task == "jpeg" else None,
                config={**_ATD_U, "in_chans": channels},
                parameters=parameters,
                sources=Sources(drive=DriveFile(folder=TPAMI_DRIVE_FOLDER, name=f"{file}.pth")),
                paper=TPAMI_PAPER,
            )
    # Blind: one network for noise of sigma 0 to 55, one for JPEG qualities 10 to 95.
    for name, task in (("atd_u_tiny_color_dn", "denoise"), ("atd_u_tiny_color_jpeg", "jpeg")):
        yield ModelInfo(
            name=name,
            architecture="ATDU",
            task=task,
            config={**_ATD_U_TINY, "in_chans": 3},
            parameters=1_015_195,
            licence=BUNDLED_LICENCE,
            paper=TPAMI_PAPER,
        )


_TABLE: dict[str, ModelInfo] = {row.name: row for row in _rows()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the table that match a shell-style `pattern`, in the table's order."""
    return [name for name in _TABLE if fnmatch.fnmatchcase(name, pattern)]


def get(name: str) -> ModelInfo:
    """The row of `name`; `LoadError` names the nearest ones when there is none."""
    try:
        return _TABLE[name]
    except KeyError:
        raise unknown_name(name) from None


def unknown_name(name: str) -> LoadError:
    """The error for a name that is not in the table, with the nearest ones."""
    near = difflib.get_close_matches(name, _TABLE, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "atd.list_models() gives the names."
    return LoadError(f"There is no model named {name!r}; {hint}")


def create(name: str, **overrides: Any) -> "RestorationModel":
    """The network `name` with fresh parameters, in training mode; `overrides` replace constructor keywords."""
    info = get(name)
    from atd import models

    model = getattr(models, info.architecture)(**copy.deepcopy({**info.config, **overrides}))
    model.task = info.task
    # An override that changes the network makes it another network than the one the name stands for.
    model.name = name if all(overrides.get(key, value) == value for key, value in info.config.items()) else None
    return model
