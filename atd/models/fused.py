"""The layers of a block for inference with the Triton kernels: fewer launches, fewer bytes.

What costs a card time in these networks is memory, too. Here heads are padded with zero channels, so that their rows
load in pieces of 16 bytes, and so are the queries, keys and values of the dictionary; what depends on weights alone is
made once; both output projections are one matrix product; the three attentions and the feed-forward network are added
to the tokens by the kernels and products that form them; and every feature map is freed when it has been used. The
results are those of :meth:`atd.models.layers.DictionaryLayer.forward` up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atd import ops
from atd.models.blockwise import is_plain
from atd.models.layer_events import layer_done, looked_up
from atd.models.layers import PREPARED_WEIGHTS, DictionaryLayer, Grid, Lookup
from atd.ops.backend import resolve
from atd.ops.kernels.limits import refuses
from atd.ops.tracing import is_traced

# Channels of a head are padded to a multiple of this: 16 bytes of half values, 32 of float32.
_HEAD_MULTIPLE = 8
# Unless that adds more than this part of them: 54 become 56 and 35 become 40, and 12 stay 12.
_MOST_ADDED = 1 / 6


def serves(layers: Sequence[DictionaryLayer], x: Tensor) -> bool:
    """Whether :func:`run` can stand for the layers' own ``forward``.

    It leaves alone what :func:`atd.models.blockwise.serves` leaves alone, and layers in training mode.
    """
    first = layers[0]
    return (
        not torch.is_grad_enabled()
        and not first.training
        and not is_traced()
        and not torch.is_autocast_enabled(x.device.type)
        and type(x) is Tensor
        and resolve(x) == "triton"
        and all(is_plain(layer) for layer in layers)  # before anything is asked of their parts
        and x.dtype == first.wqkv.weight.dtype
        and refuses(x, head=padded_head(_head(first)), rank=first.attn_atd.wq.out_features) is None
    )


def run(layers: Sequence[DictionaryLayer], x: Tensor, dictionary: Tensor, grid: Grid) -> Tensor:
    """Tokens (b, n, C) through all ``layers``, starting with ``dictionary`` (M, C); ``x`` itself is left as it is."""
    batch = len(x)
    tokens_of_dictionary = dictionary.expand(batch, -1, -1)
    for index, layer in enumerate(layers):
        tokens_of_dictionary = layer.incoming_dictionary(tokens_of_dictionary)
        weights = _prepared(layer, dictionary)
        if weights.entries is None:
            entries = _entries(layer, tokens_of_dictionary)
        else:
            entries = _of_images(weights.entries, batch)
        x, query, category = _attend(layer, x, weights, entries, grid, in_place=index > 0)
        rank = layer.attn_atd.wq.out_features
        lookup = Lookup(query[..., :rank], entries.key[..., :rank], entries.value, entries.logit_scale)
        looked_up(layer, grid, lookup.query, lookup.key, category)
        _feed_forward_(layer, x, weights, entries.features, category, grid)
        tokens_of_dictionary = layer.next_dictionary(lookup, x, tokens_of_dictionary)
        layer_done()
    return x


def _head(layer: DictionaryLayer) -> int:
    return layer.wqkv.in_features // layer.attn_win.num_heads


class _Entries(NamedTuple):
    """What the dictionary becomes in one layer."""

    key: Tensor
    """(b, M, R), with zero channels"""
    value: Tensor
    """(b, M, ≥ C), with the biases of both output projections: the weights of a token's values add up to one."""
    logit_scale: Tensor
    """(1,) or (M,)"""
    factors: Tensor
    """(b, M): logit_scale/‖key‖"""
    features: Tensor | None
    """(b, M, T)"""


class _Prepared(NamedTuple):
    """What a layer's weights become, with P for the padded channels of all heads."""

    query: Tensor
    """(R, C), with zero rows"""
    query_bias: Tensor | None
    """(R,)"""
    qkv: Tensor
    """(3P, C)"""
    qkv_bias: Tensor | None
    """(3P,)"""
    projections: Tensor
    """(C, 2P): of the window attention and of the category attention"""
    window_bias: Tensor
    """(H, w², w²)"""
    learned_scale: Tensor | None
    """(1,) float32"""
    taps: Tensor
    """(k², ·) float32, of the depthwise convolution"""
    entries: _Entries | None
    """Of one image; None where the dictionary changes with the image."""


def padded_head(head: int) -> int:
    """Channels that heads of ``head`` channels have here."""
    padded = -(-head // _HEAD_MULTIPLE) * _HEAD_MULTIPLE
    return padded if padded - head <= head * _MOST_ADDED else head


def _prepared(layer: DictionaryLayer, dictionary: Tensor) -> _Prepared:
    weights = [dictionary, *layer.parameters()]
    return PREPARED_WEIGHTS.get(layer, weights, lambda: _prepare(layer, dictionary))  # pyright: ignore[reportReturnType]


def _prepare(layer: DictionaryLayer, dictionary: Tensor) -> _Prepared:
    from atd.ops.kernels.category_feedforward import by_tap
    from atd.ops.kernels.dictionary_attention import aligned
    from atd.ops.kernels.grouped_attention import spread_bias

    window, categories, wq = layer.attn_win, layer.attn_aca, layer.attn_atd.wq
    channels, heads = layer.wqkv.in_features, window.num_heads
    by_head = (heads, _head(layer))
    added = padded_head(by_head[1]) - by_head[1]
    weight, bias = layer.wqkv.weight, _bias(layer.wqkv)
    query_bias = _bias(wq)
    projections = [F.pad(part.proj.weight.view(channels, *by_head), (0, added)) for part in (window, categories)]
    scale = categories.scale()
    return _Prepared(
        query=aligned(wq.weight.t()).t(),
        query_bias=None if query_bias is None else aligned(query_bias),
        qkv=F.pad(weight.view(3, *by_head, channels), (0, 0, 0, added)).flatten(0, 2),
        qkv_bias=None if bias is None else F.pad(bias.view(3, *by_head), (0, added)).flatten(),
        projections=torch.cat(projections, dim=1).flatten(1),
        window_bias=spread_bias(window.relative_position_bias_table, window.window_size, weight.dtype),
        learned_scale=scale.to(torch.float32).view(1) if isinstance(scale, Tensor) else None,
        taps=by_tap(layer.convffn.dwconv.kernel()[0], weight.dtype),
        entries=_entries(layer, dictionary[None]) if _keeps_dictionary(layer) else None,
    )


def _bias(linear: nn.Linear) -> Tensor | None:
    """The bias, which linear layers are declared to have."""
    return linear.bias


def _keeps_dictionary(layer: DictionaryLayer) -> bool:
    kind = type(layer)
    return (
        kind.incoming_dictionary is DictionaryLayer.incoming_dictionary
        and kind.next_dictionary is DictionaryLayer.next_dictionary
    )


def _entries(layer: DictionaryLayer, dictionary: Tensor) -> _Entries:
    from atd.ops.kernels.dictionary_attention import aligned, key_factors

    key, value, logit_scale = layer.attn_atd.entries(dictionary)
    for bias in (_bias(layer.attn_win.proj), _bias(layer.attn_aca.proj)):
        value = value if bias is None else value + bias
    key, logit_scale = aligned(key), logit_scale.to(torch.float32)
    return _Entries(
        key, aligned(value), logit_scale, key_factors(key, logit_scale), layer.category_features(dictionary)
    )


def _of_images(entries: _Entries, batch: int) -> _Entries:
    """The entries of one image for each of a batch."""
    if batch == 1:
        return entries

    def repeat(part: Tensor) -> Tensor:
        return part.expand(batch, *part.shape[1:]).contiguous()

    return entries._replace(
        key=repeat(entries.key),
        value=repeat(entries.value),
        factors=repeat(entries.factors),
        features=None if entries.features is None else repeat(entries.features),
    )


def _attend(
    layer: DictionaryLayer, x: Tensor, weights: _Prepared, entries: _Entries, grid: Grid, *, in_place: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` (b, n, C) with the three attentions added; queries (b, n, R) and categories (b, n)."""
    from atd.ops.kernels.category_attention import category_groups
    from atd.ops.kernels.dictionary_attention import look_up
    from atd.ops.kernels.grouped_attention import attend
    from atd.ops.kernels.window_attention import window_groups

    window, categories = layer.attn_win, layer.attn_aca
    u = layer.norm1(x)
    qkv = F.linear(u, weights.qkv, weights.qkv_bias)
    query = F.linear(u, weights.query, weights.query_bias)
    del u
    gain = layer.attention_gain
    x = x.contiguous()
    output = x if in_place else torch.empty_like(x)
    _, category, _ = look_up(query, entries.key, entries.value, entries.factors, output, x, gain)
    x = output
    order, _ = ops.category_partition(category, entries.key.shape[1])

    batch, tokens, channels = qkv.shape
    both = qkv.new_empty(batch, tokens, 2 * channels // 3)
    in_windows, in_groups = both.chunk(2, dim=2)
    heads = window.num_heads
    groups = window_groups(qkv, grid, window.window_size, layer.shift, heads, categories.default_scale)
    attend(qkv, None, weights.window_bias, None, groups, in_windows)
    scale = categories.default_scale if weights.learned_scale is None else 1.0
    groups = category_groups(qkv, categories.category_size, heads, scale)
    attend(qkv, order, None, weights.learned_scale, groups, in_groups)
    del qkv
    _add_product_(x, both, weights.projections, gain)
    return x, query, category


def _feed_forward_(
    layer: DictionaryLayer, x: Tensor, weights: _Prepared, features: Tensor | None, category: Tensor, grid: Grid
) -> None:
    """Add the feed-forward network to ``x`` (b, n, C) in place."""
    from atd.ops.kernels.category_feedforward import feed_forward

    net = layer.convffn
    kernel, bias = net.dwconv.kernel()
    hidden = net.fc1(layer.norm2(x))
    hidden = feed_forward(hidden, grid, weights.taps, bias, len(kernel), features, category)
    _add_product_(x, hidden, net.fc2.weight)
    if (shift := _bias(net.fc2)) is not None:
        x.add_(shift)


def _add_product_(x: Tensor, rows: Tensor, weight: Tensor, gain: float = 1.0) -> None:
    """x += gain · rows · weightᵀ: one product, which starts from ``x``."""
    x.view(-1, x.shape[-1]).addmm_(rows.view(-1, rows.shape[-1]), weight.t(), alpha=gain)
