"""ATD and ATD-light of TPAMI 2026: super-resolution with an adaptive token dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from atd.models.base import ImageNormalisation, published_mean
from atd.models.layers import ATDLayer, initialise
from atd.models.super_resolution import SuperResolutionModel


class ATD(SuperResolutionModel):
    """ATD and ATD-light (Zhang et al., "ATD: Improved Transformer with Adaptive Token Dictionary for Image
    Restoration", IEEE TPAMI 2026, arXiv 2603.02581).

    The keywords are the authors'. The defaults are those of the published ATD ×4.

    Args:
        img_size: accepted for the authors' option files; has no effect.
        in_chans: channels of input and output.
        embed_dim: channels C of the tokens.
        depths: layers of each residual group.
        num_heads: attention heads of each residual group.
        window_size: side w of the attention windows; the input is padded to its multiples.
        dim_ffn_td: category channels of the feed-forward network.
        category_size: rows g of an attention group of one category.
        num_tokens: dictionary entries M.
        reducted_dim: channels r of dictionary queries and keys.
        convffn_kernel_size: side of the feed-forward network's depthwise kernel, odd.
        mlp_ratio: the feed-forward network is int(C · mlp_ratio) wide.
        qkv_bias: biases of ``wqkv``, ``attn_atd.wq/wk/wv`` and ``attn_aca.proj``.
        patch_norm: LayerNorm after the embedding.
        use_checkpoint: recompute each layer's activations in the backward pass.
        upscale: scale factor s.
        img_range: range the normalised input is stretched to.
        upsampler: ``"pixelshuffle"``, ``"pixelshuffledirect"``, ``"nearest+conv"``, or ``""``/None for restoration.
        resi_connection: ``"1conv"`` or ``"3conv"``.

    Raises:
        ValueError: an argument is impossible; the message says which.
    """

    def __init__(
        self,
        img_size: int = 64,
        in_chans: int = 3,
        embed_dim: int = 216,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4, 4, 4),
        window_size: int = 16,
        dim_ffn_td: int = 16,
        category_size: int = 256,
        num_tokens: int = 512,
        reducted_dim: int = 16,
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 4,
        img_range: float = 1.0,
        upsampler: str | None = "pixelshuffle",
        resi_connection: str = "1conv",
    ) -> None:
        def make_layer(group: int, index: int) -> ATDLayer:
            return ATDLayer(
                embed_dim,
                num_heads=num_heads[group],
                window_size=window_size,
                shift=window_size // 2 if index % 2 else 0,
                category_size=category_size,
                num_tokens=num_tokens,
                reducted_dim=reducted_dim,
                dim_ffn_td=dim_ffn_td,
                convffn_kernel_size=convffn_kernel_size,
                mlp_ratio=mlp_ratio,
                attention_bias=qkv_bias,
                bias=True,
                ffn_bias=True,
                index_in_state=False,
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
            closing_norm=True,
        )
        initialise(self)
