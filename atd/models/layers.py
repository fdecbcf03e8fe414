"""The layers that the three networks share; names of modules and parameters are the authors'."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from atd import ops
from atd.ops.geometry import relative_position_index
from atd.ops.precision import wide_dtype

Grid = tuple[int, int]
"""Height and width of a feature map whose tokens are laid out row by row, (b, h·w, C)."""


def to_tokens(image: Tensor) -> Tensor:
    return rearrange(image, "b c h w -> b (h w) c")


def to_image(tokens: Tensor, grid: Grid) -> Tensor:
    return rearrange(tokens, "b (h w) c -> b c h w", h=grid[0], w=grid[1])


class PositionIndexState(nn.Module):
    """Keeps the authors' index buffer in the state dict without holding it in memory.

    Published checkpoints carry ``relative_position_index_SA`` beside the weights. It depends on the window alone, so it
    is recomputed: written by ``state_dict()``, accepted present or absent by ``load_state_dict`` and checked when
    present.
    """

    INDEX_KEY = "relative_position_index_SA"
    position_index_window: int

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + self.INDEX_KEY] = relative_position_index(self.position_index_window)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
        index = state_dict.pop(prefix + self.INDEX_KEY, None)
        if index is not None and not index.is_meta:
            expected = relative_position_index(self.position_index_window)
            if index.shape != expected.shape or not torch.equal(index.cpu().long(), expected):
                errors.append(
                    f"{prefix}{self.INDEX_KEY} of shape {tuple(index.shape)} is not the index of a "
                    f"{self.position_index_window}×{self.position_index_window} window."
                )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)


class TokenDictionaryAttention(nn.Module):
    """Token-dictionary cross-attention with its projections (CVPR 2024, eq. 4 and 5; TPAMI 2026, section 3.2).

    ``scale`` has one entry, clamped to [0, 3] (TPAMI), or one per dictionary token, clamped to [0, 1] (CVPR).
    """

    def __init__(
        self, dim: int, reducted_dim: int, num_tokens: int, bias: bool, *, scales: int = 1, max_scale: float = 3.0
    ) -> None:
        super().__init__()
        self.wq = nn.Linear(dim, reducted_dim, bias=bias)
        self.wk = nn.Linear(dim, reducted_dim, bias=bias)
        self.wv = nn.Linear(dim, dim, bias=bias)
        self.scale = nn.Parameter(torch.full((scales,), 1.0 if scales == 1 else 0.5))
        self.max_scale = max_scale
        self.log_tokens = math.log(num_tokens)

    def project(self, tokens: Tensor, dictionary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """query (b, n, r), key (b, M, r), value (b, M, C) and logit scale (1,) or (M,)."""
        scale = self.scale.to(wide_dtype(self.scale))
        logit_scale = 1 + scale.clamp(0, self.max_scale) * self.log_tokens
        return self.wq(tokens), self.wk(dictionary), self.wv(dictionary), logit_scale


class WindowAttention(nn.Module):
    """Bias table and output projection of shifted-window attention (SW-MSA)."""

    def __init__(self, dim: int, window_size: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, qkv: Tensor, grid: Grid, shift: int) -> Tensor:
        table = self.relative_position_bias_table
        return self.proj(ops.window_attention(qkv, table, grid, self.window_size, shift, self.num_heads))


class IndexedWindowAttention(PositionIndexState, WindowAttention):
    """:class:`WindowAttention` whose state dict carries the index buffer itself, as in ATD-U."""

    def __init__(self, dim: int, window_size: int, num_heads: int, bias: bool) -> None:
        super().__init__(dim, window_size, num_heads, bias)
        self.position_index_window = window_size


class CategoryAttention(nn.Module):
    """Output projection, and learned logit scale where there is one, of adaptive category attention (AC-MSA)."""

    # ln 100 as the authors' checkpoints saw it: rounded to float32.
    MAX_LOGIT_SCALE = 4.605170249938965

    def __init__(self, dim: int, num_heads: int, category_size: int, bias: bool, *, learned_scale: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.category_size = category_size
        self.default_scale = (dim // num_heads) ** -0.5
        self.proj = nn.Linear(dim, dim, bias=bias)
        if learned_scale:
            self.logit_scale = nn.Parameter(torch.full((1, 1), math.log(10)))
        else:
            self.logit_scale = None

    def forward(self, qkv: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        scale = self.default_scale
        if self.logit_scale is not None:
            wide = self.logit_scale.to(wide_dtype(self.logit_scale))
            scale = wide.clamp(max=self.MAX_LOGIT_SCALE).exp().view(())
        return self.proj(ops.category_attention(qkv, order, inverse, self.category_size, self.num_heads, scale))


class DepthwiseConv(nn.Module):
    """Holds the depthwise kernel under the authors' name, ``depthwise_conv.0``."""

    def __init__(self, channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)
        self.depthwise_conv = nn.Sequential(conv)

    def kernel(self) -> tuple[Tensor, Tensor | None]:
        """Weight (C, 1, k, k) and bias (C,)."""
        conv = cast(nn.Conv2d, self.depthwise_conv[0])
        return conv.weight, conv.bias


class ConvFFN(nn.Module):
    """Feed-forward network with a depthwise convolution and, in TPAMI networks, channels of the token's category."""

    def __init__(self, dim: int, hidden: int, category_channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.dwconv = DepthwiseConv(hidden + category_channels, kernel_size, bias)
        self.fc2 = nn.Linear(hidden + category_channels, dim, bias=bias)

    def forward(
        self, tokens: Tensor, grid: Grid, features: Tensor | None = None, category: Tensor | None = None
    ) -> Tensor:
        weight, bias = self.dwconv.kernel()
        hidden = self.fc1(tokens)
        return self.fc2(ops.category_feedforward(hidden, grid, weight, bias, features, category))


class ATDLayer(nn.Module):
    """One layer of the TPAMI 2026 networks: three attentions in parallel, then the category-aware feed-forward.

    Args:
        dim: channels C.
        num_tokens: dictionary entries M.
        dim_ffn_td: category channels T of the feed-forward network.
        shift: shift of the windows, 0 on even layers and half a window on odd ones.
        attention_bias: biases of ``wqkv``, ``wq/wk/wv`` and ``attn_aca.proj``.
        bias: biases of ``attn_win.proj`` and ``fc_td``.
        ffn_bias: biases of ``convffn``.
        index_in_state: whether the state dict carries the window's index buffer (ATD-U).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shift: int,
        category_size: int,
        num_tokens: int,
        reducted_dim: int,
        dim_ffn_td: int,
        convffn_kernel_size: int,
        mlp_ratio: float,
        attention_bias: bool,
        bias: bool,
        ffn_bias: bool,
        index_in_state: bool,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.num_tokens = num_tokens
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.wqkv = nn.Linear(dim, 3 * dim, bias=attention_bias)
        self.attn_win = (IndexedWindowAttention if index_in_state else WindowAttention)(
            dim, window_size, num_heads, bias
        )
        self.attn_atd = TokenDictionaryAttention(dim, reducted_dim, num_tokens, attention_bias)
        self.attn_aca = CategoryAttention(dim, num_heads, category_size, attention_bias, learned_scale=False)
        self.fc_td = nn.Linear(dim, dim_ffn_td, bias=bias)
        self.convffn = ConvFFN(dim, int(dim * mlp_ratio), dim_ffn_td, convffn_kernel_size, ffn_bias)

    def forward(self, x: Tensor, dictionary: Tensor, grid: Grid) -> Tensor:
        u = self.norm1(x)
        qkv = self.wqkv(u)
        x_td, category = ops.dictionary_attention(*self.attn_atd.project(u, dictionary))
        order, inverse = ops.category_partition(category, self.num_tokens)
        x = x + x_td + self.attn_win(qkv, grid, self.shift) + self.attn_aca(qkv, order, inverse)
        return x + self.convffn(self.norm2(x), grid, self.fc_td(dictionary), category)


def dictionary_parameter(num_tokens: int, dim: int) -> nn.Parameter:
    """(M, C) learnable dictionary, standard normal."""
    return nn.Parameter(torch.randn(num_tokens, dim))


def expand_dictionary(dictionary: Tensor, batch: int) -> Tensor:
    return dictionary.expand(batch, -1, -1)


def initialise(module: nn.Module) -> None:
    """The papers' initialisation: truncated normal σ 0.02 for linears and bias tables; convolutions keep torch's."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, WindowAttention):
            nn.init.trunc_normal_(part.relative_position_bias_table, std=0.02)
