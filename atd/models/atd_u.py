"""ATD-U of TPAMI 2026: a U-shaped network for denoising and JPEG artefact removal at the input's own size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atd.models.base import RestorationModel
from atd.models.layers import ATDLayer, Grid, initialise, to_image, to_tokens
from atd.models.super_resolution import DictionaryBlock


class Stage(nn.Module):
    """A :class:`DictionaryBlock` under the authors' name ``block``; it takes and gives images (b, C, h, w)."""

    def __init__(self, block: DictionaryBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, image: Tensor) -> Tensor:
        """Features of the same shape."""
        grid: Grid = (image.shape[-2], image.shape[-1])
        return to_image(self.block(to_tokens(image), grid), grid)


class Downsample(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        """(b, C, h, w) to (b, 2·C, h/2, w/2)."""
        return self.down(image)


class Upsample(nn.Module):
    """Twice the size, half the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        """(b, C, h, w) to (b, C/2, 2·h, 2·w)."""
        return self.up(image)


class ATDU(RestorationModel):
    """ATD-U (Zhang et al., TPAMI 2026, arXiv 2603.02581): encoder, middle, decoder and refinement of ATD layers.

    The keywords are the authors'; lists have one entry per level, the finest first. The defaults are those of the
    published networks. Level i works on a grid 2ⁱ times coarser with embed_dim·2ⁱ channels; the decoder's finest level
    and the refinement work at 2·embed_dim channels, as the skip connection is not reduced there.

    Args:
        in_chans: channels of input and output, 3 for colour and 1 for gray.
        embed_dim: channels of the finest level.
        depths, num_heads, window_size, dim_ffn_td, category_size, num_tokens, reducted_dim: per level, as in
            :class:`atd.ATD`.
        convffn_kernel_size: side of the feed-forward network's depthwise kernel, odd.
        mlp_ratio: a feed-forward network is int(channels · mlp_ratio) wide.
        bias: biases of linear layers and of ``conv_first``, ``conv_after_body``, ``conv_last``; the feed-forward
            networks, ``ups`` and ``downs`` never have one.
        use_checkpoint: recompute each layer's activations in the backward pass.
        img_size: accepted for the authors' option files; has no effect.

    Raises:
        ValueError: the lists differ in length, heads do not divide channels, or windows do not fit the levels.
    """

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 48,
        depths: Sequence[int] = (6, 8, 8, 6),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        window_size: Sequence[int] = (16, 8, 8, 8),
        dim_ffn_td: Sequence[int] = (6, 12, 12, 12),
        category_size: Sequence[int] = (128, 128, 128, 128),
        num_tokens: Sequence[int] = (128, 128, 128, 128),
        reducted_dim: Sequence[int] = (6, 12, 24, 24),
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.66,
        bias: bool = False,
        use_checkpoint: bool = False,
        img_size: int = 64,
    ) -> None:
        super().__init__()
        levels = len(depths)
        lists = {
            "num_heads": num_heads,
            "window_size": window_size,
            "dim_ffn_td": dim_ffn_td,
            "category_size": category_size,
            "num_tokens": num_tokens,
            "reducted_dim": reducted_dim,
        }
        for keyword, values in lists.items():
            if len(values) != levels:
                raise ValueError(f"{keyword} has {len(values)} entries and depths {levels}; expected one per level.")
        self.size_multiple = window_size[-1] * 2 ** (levels - 1)
        for level, window in enumerate(window_size):
            if self.size_multiple % (window * 2**level):
                raise ValueError(
                    f"window_size {list(window_size)} does not fit: windows of {window} at level {level} do not divide "
                    f"the {self.size_multiple} pixels that the last level asks for."
                )
            if embed_dim * 2**level % num_heads[level]:
                raise ValueError(
                    f"num_heads {num_heads[level]} of level {level} does not divide {embed_dim * 2**level} channels."
                )
        self.scale = 1
        self.in_channels = in_chans
        self.window_size = max(window_size)
        self.task = "restoration"

        def stage(level: int, dim: int, heads: int) -> Stage:
            layers = [
                ATDLayer(
                    dim,
                    num_heads=heads,
                    window_size=window_size[level],
                    shift=window_size[level] // 2 if index % 2 else 0,
                    category_size=category_size[level],
                    num_tokens=num_tokens[level],
                    reducted_dim=reducted_dim[level],
                    dim_ffn_td=dim_ffn_td[level],
                    convffn_kernel_size=convffn_kernel_size,
                    mlp_ratio=mlp_ratio,
                    attention_bias=bias,
                    bias=bias,
                    ffn_bias=False,
                    index_in_state=True,
                )
                for index in range(depths[level])
            ]
            return Stage(DictionaryBlock(dim, num_tokens[level], layers, checkpointed=use_checkpoint))

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1, bias=bias)
        finer = range(levels - 1)
        self.encoders = nn.ModuleList(stage(i, embed_dim * 2**i, num_heads[i]) for i in finer)
        self.downs = nn.ModuleList(Downsample(embed_dim * 2**i) for i in finer)
        self.middle_blks = stage(levels - 1, embed_dim * 2 ** (levels - 1), num_heads[-1])
        # Decoders count upwards from the deepest; level 0 keeps the doubled channels of its skip connection.
        self.ups = nn.ModuleList(Upsample(embed_dim * 2 ** (i + 1)) for i in reversed(finer))
        self.reduces = nn.ModuleList(
            nn.Linear(embed_dim * 2 ** (i + 1), embed_dim * 2**i, bias=bias) for i in reversed(finer) if i > 0
        )
        self.decoders = nn.ModuleList(
            stage(i, embed_dim * 2**i if i > 0 else 2 * embed_dim, num_heads[i]) for i in reversed(finer)
        )
        self.refine_blks = stage(0, 2 * embed_dim, 2 * num_heads[0])
        self.conv_after_body = nn.Conv2d(2 * embed_dim, embed_dim, 3, padding=1, bias=bias)
        self.conv_last = nn.Conv2d(embed_dim, in_chans, 3, padding=1, bias=bias)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Restore images (b, c, h, w) in [0, 1] of any size; the same shape and dtype, not clamped."""
        self.check_input(image)
        height, width = image.shape[-2:]
        padded = self.pad(image)
        shallow = self.conv_first(padded.to(self.conv_first.weight.dtype))

        x = shallow
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for index, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            x = torch.cat([up(x), skips.pop()], dim=1)
            if index < len(self.reduces):
                x = self.reduces[index](x.movedim(1, -1)).movedim(-1, 1)
            x = decoder(x)
        x = self.conv_after_body(self.refine_blks(x)) + shallow
        # The global shortcut adds the input itself, not its rounding to half precision.
        output = padded + self.conv_last(x).to(torch.promote_types(padded.dtype, x.dtype))
        return output.to(image.dtype)[..., :height, :width]
