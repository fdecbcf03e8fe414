"""The layers that the three networks share; names of modules and parameters are the authors'."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from atd import ops
from atd.models.layer_events import looked_up
from atd.models.weight_cache import WeightCache
from atd.ops.geometry import relative_position_index
from atd.ops.precision import wide_dtype
from atd.ops.tracing import fixed_layout

Grid = tuple[int, int]
"""Height and width of a feature map whose tokens are laid out row by row, (b, h·w, C)."""


PREPARED_WEIGHTS: WeightCache[object] = WeightCache()
"""What :mod:`atd.models.fused` makes of the weights of a layer."""


def to_tokens(image: Tensor) -> Tensor:
    """(b, C, h, w) to (b, h·w, C), row by row."""
    return fixed_layout(image.flatten(2).transpose(1, 2))


def to_image(tokens: Tensor, grid: Grid) -> Tensor:
    """(b, h·w, C) to (b, C, h, w); the inverse of `to_tokens`."""
    return torch.unflatten(tokens.transpose(1, 2), 2, grid)


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
        super()._save_to_state_dict(destination, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        index = state_dict.pop(prefix + self.INDEX_KEY, None)
        if index is not None and not index.is_meta:
            expected = relative_position_index(self.position_index_window)
            if index.shape != expected.shape or not torch.equal(index.cpu().long(), expected):
                error_msgs.append(
                    f"{prefix}{self.INDEX_KEY} of shape {tuple(index.shape)} is not the index of a "
                    f"{self.position_index_window}×{self.position_index_window} window."
                )
        super()._load_from_state_dict(  # pyright: ignore[reportUnknownMemberType]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class Lookup(NamedTuple):
    """The arguments of :func:`atd.ops.dictionary_attention`."""

    query: Tensor
    """(b, n, r)"""
    key: Tensor
    """(b, M, r)"""
    value: Tensor
    """(b, M, C)"""
    logit_scale: Tensor
    """(1,) or (M,)"""


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

    def project(self, tokens: Tensor, dictionary: Tensor) -> Lookup:
        """Query, key, value and logit scale, from tokens (b, n, C) and a dictionary (b, M, C)."""
        return Lookup(self.wq(tokens), *self.entries(dictionary))

    def entries(self, dictionary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What does not depend on the tokens: key, value and logit scale of a :class:`Lookup`."""
        scale = self.scale.to(wide_dtype(self.scale))
        logit_scale = 1 + scale.clamp(0.0, self.max_scale) * self.log_tokens
        return self.wk(dictionary), self.wv(dictionary), logit_scale


class WindowAttention(nn.Module):
    """Bias table and output projection of shifted-window attention (SW-MSA)."""

    def __init__(self, dim: int, window_size: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, qkv: Tensor, grid: Grid, shift: int) -> Tensor:
        """Attention in windows that are shifted by `shift`, from (b, n, 3·C) to (b, n, C)."""
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

    def scale(self) -> float | Tensor:
        """Factor of the logits; a tensor without axes, in float32 or better, where it is learned."""
        if self.logit_scale is None:
            return self.default_scale
        wide = self.logit_scale.to(wide_dtype(self.logit_scale))
        return wide.clamp(max=self.MAX_LOGIT_SCALE).exp().view(())

    def forward(self, qkv: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """Attention in groups of tokens of similar category, from (b, n, 3·C) to (b, n, C)."""
        output = ops.category_attention(qkv, order, inverse, self.category_size, self.num_heads, self.scale())
        return self.proj(output)


class DepthwiseConv(nn.Module):
    """Holds the depthwise kernel under the authors' name, ``depthwise_conv.0``."""

    def __init__(self, channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)
        self.depthwise_conv = nn.Sequential(conv)

    def kernel(self) -> tuple[Tensor, Tensor | None]:
        """Weight (E, 1, k, k) and bias (E,)."""
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
        """Tokens (b, n, C) to (b, n, C); `features` (b, M, T) of their `category` (b, n) join the hidden channels."""
        weight, bias = self.dwconv.kernel()
        hidden = self.fc1(tokens)
        return self.fc2(ops.category_feedforward(hidden, grid, weight, bias, features, category))


class DictionaryLayer(nn.Module):
    """What the layers of all three networks share: three attentions in parallel, then the feed-forward network.

    Args:
        dim: channels C.
        num_heads: heads H of the window and category attentions.
        window_size: side w of a window.
        shift: shift of the windows, 0 on even layers and half a window on odd ones.
        category_size: rows g of a group of the category attention.
        dictionary_attention: cross-attention to the dictionary, with its projections.
        mlp_ratio: the feed-forward network is int(C · mlp_ratio) wide.
        category_channels: channels T that the feed-forward network gets from a token's category, 0 for none.
        convffn_kernel_size: side of the depthwise kernel.
        learned_scale: whether the category attention learns the scale of its logits.
        qkv_bias: biases of ``wqkv`` and ``attn_aca.proj``.
        bias: bias of ``attn_win.proj``.
        ffn_bias: biases of ``convffn``.
        index_in_state: whether the state dict carries the window's index buffer (ATD-U).
    """

    attention_gain: float = 1.0
    """Factor of the three attentions where they are added to the tokens."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shift: int,
        category_size: int,
        dictionary_attention: TokenDictionaryAttention,
        mlp_ratio: float,
        category_channels: int,
        convffn_kernel_size: int,
        learned_scale: bool,
        qkv_bias: bool,
        bias: bool,
        ffn_bias: bool,
        index_in_state: bool,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.wqkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_win = (IndexedWindowAttention if index_in_state else WindowAttention)(
            dim, window_size, num_heads, bias
        )
        self.attn_atd = dictionary_attention
        self.attn_aca = CategoryAttention(dim, num_heads, category_size, qkv_bias, learned_scale=learned_scale)
        self.convffn = ConvFFN(dim, int(dim * mlp_ratio), category_channels, convffn_kernel_size, ffn_bias)

    def forward(self, x: Tensor, dictionary: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Tokens (b, n, C) and the dictionary (b, M, C) for the next layer, from those of the layer before."""
        dictionary = self.incoming_dictionary(dictionary)
        u = self.norm1(x)
        qkv = self.wqkv(u)
        lookup = self.attn_atd.project(u, dictionary)
        x_td, category = ops.dictionary_attention(*lookup)
        looked_up(self, grid, lookup.query, lookup.key, category)
        order, inverse = ops.category_partition(category, dictionary.shape[1])
        x = torch.add(x, x_td, alpha=self.attention_gain)
        x = torch.add(x, self.attn_win(qkv, grid, self.shift), alpha=self.attention_gain)
        x = torch.add(x, self.attn_aca(qkv, order, inverse), alpha=self.attention_gain)
        del u, qkv, x_td, order, inverse  # large, and not needed beside the wide maps of the feed-forward network
        x = x + self.convffn(self.norm2(x), grid, self.category_features(dictionary), category)
        return x, self.next_dictionary(lookup, x, dictionary)

    def train(self, mode: bool = True) -> Self:
        """As in torch; forgets what was made of the weights for inference."""
        PREPARED_WEIGHTS.forget(self)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        PREPARED_WEIGHTS.forget(self)  # a parameter that moves there and back would look the same
        return super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]

    def incoming_dictionary(self, dictionary: Tensor) -> Tensor:
        """The dictionary (b, M, C) as this layer uses it, from what the layer before handed on."""
        return dictionary

    def category_features(self, dictionary: Tensor) -> Tensor | None:
        """(b, M, T) channels that the feed-forward network gives to the tokens of a category; None for none."""
        return None

    def next_dictionary(self, lookup: Lookup, x: Tensor, dictionary: Tensor) -> Tensor:
        """The next layer's dictionary, given this layer's query, key, value and logit scale, and its output."""
        return dictionary


class ATDLayer(DictionaryLayer):
    """A layer of the TPAMI 2026 networks: the dictionary stays, and every category has channels of its own.

    Args:
        num_tokens: dictionary entries M.
        reducted_dim: channels r of dictionary queries and keys.
        dim_ffn_td: category channels T of the feed-forward network.
        attention_bias: biases of ``wqkv``, ``wq/wk/wv`` and ``attn_aca.proj``.
        bias: biases of ``attn_win.proj`` and ``fc_td``.
        rest: as in :class:`DictionaryLayer`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_tokens: int,
        reducted_dim: int,
        dim_ffn_td: int,
        attention_bias: bool,
        bias: bool,
        **rest: Any,
    ) -> None:
        super().__init__(
            dim,
            dictionary_attention=TokenDictionaryAttention(dim, reducted_dim, num_tokens, attention_bias),
            category_channels=dim_ffn_td,
            learned_scale=False,
            qkv_bias=attention_bias,
            bias=bias,
            **rest,
        )
        self.fc_td = nn.Linear(dim, dim_ffn_td, bias=bias)

    def category_features(self, dictionary: Tensor) -> Tensor:
        """Channels (b, M, T) of each category, from its dictionary entry."""
        return self.fc_td(dictionary)


def dictionary_parameter(num_tokens: int, dim: int) -> nn.Parameter:
    """(M, C) learnable dictionary, standard normal."""
    return nn.Parameter(torch.randn(num_tokens, dim))


def expand_dictionary(dictionary: Tensor, batch: int) -> Tensor:
    """The dictionary (M, C) for each image of a batch, (b, M, C), without a copy."""
    return fixed_layout(dictionary.expand(batch, -1, -1))


def initialise(module: nn.Module) -> None:
    """The papers' initialisation: truncated normal σ 0.02 for linears and bias tables; convolutions keep torch's."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(part.bias)
        elif isinstance(part, WindowAttention):
            nn.init.trunc_normal_(part.relative_position_bias_table, std=0.02)
