"""ATD and ATD-light of CVPR 2024, the first generation: the dictionary is refined from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atd import ops
from atd.models.base import ImageNormalisation, published_mean
from atd.models.layers import DictionaryLayer, Lookup, TokenDictionaryAttention, initialise
from atd.models.super_resolution import SuperResolutionModel


class CVPRLayer(DictionaryLayer):
    """A layer of the CVPR 2024 networks; all but the last of a block hand a refined dictionary on.

    Args:
        num_tokens: dictionary entries M.
        reducted_dim: channels r of dictionary queries and keys.
        qkv_bias: biases of ``wqkv``, ``wq/wk/wv`` and ``attn_aca.proj``.
        refines: whether the layer refines the dictionary.
        rest: as in :class:`DictionaryLayer`.
    """

    def __init__(
        self, dim: int, *, num_tokens: int, reducted_dim: int, qkv_bias: bool, refines: bool, **rest: Any
    ) -> None:
        super().__init__(
            dim,
            dictionary_attention=TokenDictionaryAttention(
                dim, reducted_dim, num_tokens, qkv_bias, scales=num_tokens, max_scale=1.0
            ),
            category_channels=0,
            learned_scale=True,
            qkv_bias=qkv_bias,
            bias=True,
            ffn_bias=True,
            index_in_state=False,
            **rest,
        )
        self.refines = refines
        if refines:
            self.norm3 = nn.InstanceNorm1d(num_tokens, affine=True)
            self.sigma = nn.Parameter(torch.zeros(num_tokens, 1))

    def next_dictionary(self, lookup: Lookup, x: Tensor, dictionary: Tensor) -> Tensor:
        """The refined dictionary (b, M, C), or the same one after a block's last layer."""
        if not self.refines:
            return dictionary
        norm = self.norm3
        return ops.dictionary_refinement(
            lookup.query, lookup.key, lookup.logit_scale, x, dictionary, norm.weight, norm.bias, self.sigma
        )


class ATDCVPR(SuperResolutionModel):
    """ATD and ATD-light of CVPR 2024 (Zhang et al., pp. 2856–2865, arXiv 2401.08209).

    The keywords are the authors' and mean what they mean in :class:`atd.ATD`; the defaults are those of the published
    ATD ×4. ``no_norm`` is for community checkpoints trained without mean and range: neither is applied.

    Raises:
        ValueError: an argument is impossible; the message says which.
    """

    def __init__(
        self,
        img_size: int = 64,
        in_chans: int = 3,
        embed_dim: int = 210,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 16,
        category_size: int = 256,
        num_tokens: int = 128,
        reducted_dim: int = 20,
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 4,
        img_range: float = 1.0,
        upsampler: str | None = "pixelshuffle",
        resi_connection: str = "1conv",
        no_norm: bool = False,
    ) -> None:
        def make_layer(group: int, index: int) -> CVPRLayer:
            return CVPRLayer(
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
            normalisation=ImageNormalisation(published_mean(in_chans), img_range),
            upsampler=upsampler,
            resi_connection=resi_connection,
            patch_norm=patch_norm,
            use_checkpoint=use_checkpoint,
        )
        self.no_norm: Tensor | None
        self.register_buffer("no_norm", torch.zeros(1) if no_norm else None)
        initialise(self)

    def normalise(self, image: Tensor, dtype: Any) -> Tensor:
        """As in the base class; with ``no_norm``, only the cast."""
        return image.to(dtype) if self.no_norm is not None else super().normalise(image, dtype)

    def denormalise(self, image: Tensor, dtype: Any) -> Tensor:
        """As in the base class; with ``no_norm``, only the cast."""
        return image.to(dtype) if self.no_norm is not None else super().denormalise(image, dtype)
