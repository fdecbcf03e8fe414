"""ATD-Real, the authors' network for real-world photos: the CVPR 2024 network with four differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from atd.models.atd_cvpr import CVPRLayer
from atd.models.base import ImageNormalisation
from atd.models.layers import initialise
from atd.models.super_resolution import SuperResolutionModel


class RealLayer(CVPRLayer):
    """A layer of ATD-Real: the attentions are averaged, and the dictionary arrives with rows of length 1."""

    attention_gain = 1 / math.sqrt(3)

    def incoming_dictionary(self, dictionary: Tensor) -> Tensor:
        """The dictionary (b, M, C), each entry of length 1."""
        return F.normalize(dictionary, dim=-1)


class ATDReal(SuperResolutionModel):
    """ATD-Real (architecture file of the authors' UPSR repository): super-resolution of real-world photos.

    The network of :class:`atd.ATDCVPR` with four differences: the sum of the three attentions is divided by √3; the
    token dictionary is L2-normalised over its channels before every layer; with ``patch_norm`` a LayerNorm follows the
    convolution of every residual group too; and the image enters as (x − 0.5)/0.5, without RGB mean and range.

    The keywords are the authors' and mean what they mean in :class:`atd.ATD`; the defaults are those of the published
    ATD-Real ×4.

    Raises:
        ValueError: an argument is impossible; the message says which.
    """

    def __init__(
        self,
        img_size: int = 64,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        category_size: int = 128,
        num_tokens: int = 64,
        reducted_dim: int = 8,
        convffn_kernel_size: int = 7,
        mlp_ratio: float = 1.0,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 4,
        upsampler: str | None = "pixelshuffledirect",
        resi_connection: str = "1conv",
    ) -> None:
        def make_layer(group: int, index: int) -> RealLayer:
            return RealLayer(
                embed_dim,
                num_heads=num_heads[group],
                window_size=window_size,
                shift=window_size // 2 if index % 2 else 0,
                category_size=category_size,
                num_tokens=num_tokens,
                reducted_dim=reducted_dim,
                convffn_kernel_size=convffn_kernel_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                refines=index < depths[group] - 1,
            )

        super().__init__(
            make_layer,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            num_tokens=num_tokens,
            upscale=upscale,
            normalisation=ImageNormalisation((0.5,) * in_chans, 2.0),
            upsampler=upsampler,
            resi_connection=resi_connection,
            patch_norm=patch_norm,
            use_checkpoint=use_checkpoint,
            group_patch_norm=patch_norm,
        )
        initialise(self)
