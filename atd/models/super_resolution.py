"""The frame that ATD and its CVPR 2024 predecessor share: embed, residual groups, reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from atd.models import blockwise, fused
from atd.models.base import ImageNormalisation, RestorationModel, run_layer
from atd.models.layer_events import layer_done
from atd.models.layers import (
    DictionaryLayer,
    Grid,
    PositionIndexState,
    dictionary_parameter,
    expand_dictionary,
    to_image,
    to_tokens,
)
from atd.models.reconstruction import ReconstructionHead, residual_conv


class PatchEmbedding(nn.Module):
    """Image to tokens, with the LayerNorm of ``patch_norm``."""

    def __init__(self, dim: int, patch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if patch_norm else None

    def forward(self, image: Tensor) -> Tensor:
        """(b, C, h, w) to (b, h·w, C)."""
        tokens = to_tokens(image)
        return tokens if self.norm is None else self.norm(tokens)


class DictionaryBlock(nn.Module):
    """Layers that work with one learned token dictionary ``td``, each handing it on to the next."""

    def __init__(self, dim: int, num_tokens: int, layers: Sequence[DictionaryLayer], checkpointed: bool) -> None:
        super().__init__()
        self.td = dictionary_parameter(num_tokens, dim)
        self.layers = nn.ModuleList(layers)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (b, n, C) to (b, n, C)."""
        layers = cast(Sequence[DictionaryLayer], self.layers)
        if blockwise.serves(layers, x):
            return blockwise.run(layers, x, self.td, grid)
        if fused.serves(layers, x):
            return fused.run(layers, x, self.td, grid)
        dictionary = expand_dictionary(self.td, x.shape[0])
        for layer in layers:
            x, dictionary = run_layer(layer, x, dictionary, grid, checkpointed=self.checkpointed)
            layer_done()
        return x


class ResidualGroup(nn.Module):
    """A :class:`DictionaryBlock`, a convolution and the shortcut; a LayerNorm closes it in TPAMI networks, and follows
    the convolution in ATD-Real."""

    def __init__(
        self, block: DictionaryBlock, dim: int, resi_connection: str, closing_norm: bool, patch_norm: bool
    ) -> None:
        super().__init__()
        self.residual_group = block
        self.conv = residual_conv(dim, resi_connection)
        self.patch_embed = PatchEmbedding(dim, patch_norm)
        self.norm = nn.LayerNorm(dim) if closing_norm else None

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (b, n, C) to (b, n, C)."""
        image = to_image(self.residual_group(x, grid), grid)
        x = self.patch_embed(self.conv(image)) + x
        return x if self.norm is None else self.norm(x)


class SuperResolutionModel(RestorationModel, PositionIndexState, ReconstructionHead):
    """Body of :class:`ATD` and :class:`ATDCVPR`; see there for the arguments."""

    def __init__(
        self,
        make_layer: Callable[[int, int], DictionaryLayer],
        *,
        in_chans: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        num_tokens: int,
        upscale: int,
        normalisation: ImageNormalisation,
        upsampler: str | None,
        resi_connection: str,
        patch_norm: bool,
        use_checkpoint: bool,
        closing_norm: bool = False,
        group_patch_norm: bool = False,
    ) -> None:
        """The frame around layers.

        Args:
            make_layer: ``make_layer(group, index)`` makes one layer.
            normalisation: of the image.
            closing_norm: a LayerNorm closes every residual group (TPAMI 2026).
            group_patch_norm: the convolution of every residual group is followed by a LayerNorm (ATD-Real).
            in_chans, embed_dim, depths, num_heads, window_size, num_tokens, upscale, upsampler, resi_connection,
                patch_norm, use_checkpoint: those of the networks.
        """
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} entries and num_heads {len(num_heads)}; expected as many.")
        for heads in num_heads:
            if embed_dim % heads:
                raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {heads}.")
        self.scale = upscale
        self.in_channels = in_chans
        self.window_size = self.size_multiple = self.position_index_window = window_size
        self.task = "sr" if upscale > 1 else "restoration"

        self.normalisation = normalisation
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = PatchEmbedding(embed_dim, patch_norm)
        self.layers = nn.ModuleList(
            ResidualGroup(
                DictionaryBlock(
                    embed_dim, num_tokens, [make_layer(group, i) for i in range(depth)], checkpointed=use_checkpoint
                ),
                embed_dim,
                resi_connection,
                closing_norm,
                group_patch_norm,
            )
            for group, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self.add_head(upsampler, embed_dim, in_chans, upscale)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge images (b, c, h, w) in [0, 1] of any size to (b, c, s·h, s·w); not clamped."""
        self.check_input(image)
        height, width = image.shape[-2:]
        padded = self.pad(image)
        normalised = self.normalise(padded, self.conv_first.weight.dtype)
        shallow = self.conv_first(normalised)
        grid = (shallow.shape[-2], shallow.shape[-1])
        tokens = self.patch_embed(shallow)
        for group in self.layers:
            tokens = group(tokens, grid)
        deep = self.conv_after_body(to_image(self.norm(tokens), grid))
        output = self.denormalise(self.reconstruct(deep + shallow, normalised), image.dtype)
        return output[..., : height * self.scale, : width * self.scale]

    def normalise(self, image: Tensor, dtype: Any) -> Tensor:
        """The image as the layers take it, in `dtype`."""
        return self.normalisation(image, dtype)

    def denormalise(self, image: Tensor, dtype: Any) -> Tensor:
        """The inverse of `normalise`, in `dtype`."""
        return self.normalisation.inverse(image, dtype)
