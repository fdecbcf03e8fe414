"""The layers of a block for inference on a CPU: in place, and piece by piece.

What costs a CPU time in these networks is memory rather than arithmetic. Run one after another over the whole image,
the thirty operations of a layer each read feature maps of many megabytes from memory and write new ones, into pages
that the system has to find and clear first. Here two feature maps, of the rows (q | k | v) and of the feed-forward
network, serve all layers of a block; the tokens are changed in place; and everything between is formed for so few
tokens at a time that it stays in the cache. The results are those of
:meth:`atd.models.layers.DictionaryLayer.forward` up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atd import ops
from atd.models.layer_events import layer_done, looked_up
from atd.models.layers import (
    CategoryAttention,
    ConvFFN,
    DepthwiseConv,
    DictionaryLayer,
    Grid,
    IndexedWindowAttention,
    Lookup,
    TokenDictionaryAttention,
    WindowAttention,
)
from atd.models.plain import are_untouched
from atd.ops.backend import is_plain_inference, resolve
from atd.ops.category_attention import group_rows
from atd.ops.category_feedforward import convolve_lines
from atd.ops.grouped_attention import attend_rows_
from atd.ops.window_attention import window_kinds

# The largest tensor of a piece: small beside the last-level cache and the image, large beside the cost of starting
# threads. Servers have more threads than a shared cache has room for.
_PIECE_BYTES_PER_THREAD = 2 << 20
_MOST_THREADS = 8
# Feature maps of the feed-forward network are this many channels wide or a multiple: odd widths such as ATD-U's 133
# leave rows unaligned, which slows the convolution and the products. The channels added are zero throughout.
_CHANNEL_MULTIPLE = 8

_KNOWN_PARTS = {
    CategoryAttention, ConvFFN, DepthwiseConv, IndexedWindowAttention, TokenDictionaryAttention, WindowAttention,
    nn.Conv2d, nn.InstanceNorm1d, nn.LayerNorm, nn.Linear, nn.Sequential,
}  # fmt: skip


def serves(layers: Sequence[DictionaryLayer], x: Tensor) -> bool:
    """Whether :func:`run` can stand for the layers' own ``forward``.

    It uses the parameters without calling the modules that hold them, so it leaves alone whatever stands in the place
    of a plain module or parameter: hooks, replaced forwards, compiled layers, adapters, quantised or sharded weights.
    """
    return is_plain_inference(x) and resolve(x) in ("native", "torch") and all(is_plain(layer) for layer in layers)


def is_plain(layer: DictionaryLayer) -> bool:
    """Whether the layer's parameters can be used without calling the modules that hold them."""
    parts = list(layer.modules())
    return (
        type(layer).forward is DictionaryLayer.forward
        and all(type(part) in _KNOWN_PARTS for part in parts[1:])
        and are_untouched(parts)
    )


def run(layers: Sequence[DictionaryLayer], x: Tensor, dictionary: Tensor, grid: Grid) -> Tensor:
    """Tokens (b, n, C) through all ``layers``, starting with ``dictionary`` (M, C); ``x`` itself is left as it is."""
    output = x.clone(memory_format=torch.contiguous_format)
    maps = _FeatureMaps.allocate(layers, output, grid)
    for tokens in output:
        entries = dictionary[None]
        for layer in layers:
            entries = layer.incoming_dictionary(entries)
            lookup, category = _attend_(layer, tokens, entries, grid, maps)
            looked_up(layer, grid, lookup.query, lookup.key, category[None])
            _feed_forward_(layer, tokens, entries, category, grid, maps)
            entries = layer.next_dictionary(lookup, tokens[None], entries)
            layer_done(1 / len(output))
    return output


class _FeatureMaps(NamedTuple):
    """What is as large as the image and serves one layer after the other."""

    qkv: Tensor
    """(n, 3C)"""
    query: Tensor
    """(n, r)"""
    category: Tensor
    """(n,) int64"""
    hidden: Tensor
    """(k − 1 + h, w, E): above and below the image lie the zero rows that the k×k convolution pads with."""

    @classmethod
    def allocate(cls, layers: Sequence[DictionaryLayer], x: Tensor, grid: Grid) -> _FeatureMaps:
        tokens = x.shape[1]
        first = layers[0]
        kernel = first.convffn.dwconv.kernel()[0]
        width = -(-max(len(kernel), x.shape[-1]) // _CHANNEL_MULTIPLE) * _CHANNEL_MULTIPLE
        margin = kernel.shape[-1] // 2
        hidden = x.new_empty(grid[0] + 2 * margin, grid[1], width)
        hidden[:margin] = 0
        hidden[grid[0] + margin :] = 0
        return cls(
            x.new_empty(tokens, first.wqkv.out_features),
            x.new_empty(tokens, first.attn_atd.wq.out_features),
            torch.empty(tokens, dtype=torch.int64),
            hidden,
        )

    def tokens_of_hidden(self, grid: Grid) -> Tensor:
        """(n, E): ``hidden`` without the rows of zeros."""
        margin = (len(self.hidden) - grid[0]) // 2
        return self.hidden[margin : margin + grid[0]].view(-1, self.hidden.shape[-1])


def _pieces(total: int, bytes_each: int, multiple: int = 1) -> Iterator[slice]:
    """Slices of ``total`` rows that keep to the size of a piece; all but the last hold a multiple of ``multiple``."""
    budget = _PIECE_BYTES_PER_THREAD * min(torch.get_num_threads(), _MOST_THREADS)
    step = max(budget // bytes_each // multiple, 1) * multiple
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def _attend_(
    layer: DictionaryLayer, x: Tensor, dictionary: Tensor, grid: Grid, maps: _FeatureMaps
) -> tuple[Lookup, Tensor]:
    """Add the three attentions to ``x`` (n, C) in place; what was looked up, and the categories (n,)."""
    qkv, category = maps.qkv, maps.category
    row_bytes = qkv.shape[1] * qkv.element_size()
    wq = layer.attn_atd.wq
    lookup = Lookup(maps.query[None], *layer.attn_atd.entries(dictionary))
    for rows in _pieces(len(x), row_bytes):
        u = layer.norm1(x[rows])
        _linear(u, layer.wqkv.weight, layer.wqkv.bias, out=qkv[rows])
        _linear(u, wq.weight, wq.bias, out=maps.query[rows])
        x_td, category[rows] = ops.dictionary_attention(lookup.query[:, rows], *lookup[1:])
        x[rows].add_(x_td[0], alpha=layer.attention_gain)

    # Every token stands in one window and at one place of the category order, so every row is written once. The map
    # of the feed-forward network is free until its turn.
    attended = maps.tokens_of_hidden(grid).view(-1)[: x.numel()].view(x.shape)
    window = layer.attn_win
    area = window.window_size**2
    table = window.relative_position_bias_table
    for order, bias in window_kinds(table, grid, window.window_size, layer.shift, x):
        for rows in _pieces(len(order), row_bytes, area):
            attend_rows_(attended, qkv, order[rows], area, window.num_heads, bias=bias)
    _add_linear_(x, attended, window.proj.weight, window.proj.bias, layer.attention_gain)

    categories = layer.attn_aca
    size = min(len(x), categories.category_size)
    order = ops.category_partition(category[None], dictionary.shape[1])[0]
    groups = group_rows(order, size)[0]
    scale = float(categories.scale())
    for rows in _pieces(len(groups), row_bytes, size):
        kept = len(x) - rows.start  # without the rows that fill the last group
        attend_rows_(attended, qkv, groups[rows], size, categories.num_heads, kept=kept, scale=scale)
    _add_linear_(x, attended, categories.proj.weight, categories.proj.bias, layer.attention_gain)
    return lookup, category


def _add_linear_(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, gain: float = 1.0) -> None:
    x.addmm_(y, weight.t(), alpha=gain)
    if bias is not None:
        x.add_(bias, alpha=gain)


def _feed_forward_(
    layer: DictionaryLayer, x: Tensor, dictionary: Tensor, category: Tensor, grid: Grid, maps: _FeatureMaps
) -> None:
    """Add the feed-forward network to ``x`` (n, C) in place."""
    net = layer.convffn
    height, width = grid
    channels = maps.hidden.shape[-1]
    narrow = net.fc1.out_features
    added = channels - narrow
    expand, expand_bias = F.pad(net.fc1.weight, (0, 0, 0, added)), _pad_bias(net.fc1.bias, added)
    kernel, kernel_bias = net.dwconv.kernel()
    added = channels - len(kernel)
    kernel, kernel_bias = F.pad(kernel, (0, 0) * 3 + (0, added)), _pad_bias(kernel_bias, added)
    reduce = F.pad(net.fc2.weight, (0, added))
    margin = kernel.shape[-1] // 2
    row_bytes = channels * x.element_size()

    features = layer.category_features(dictionary)
    hidden = maps.tokens_of_hidden(grid)
    for rows in _pieces(len(x), row_bytes):
        part = hidden[rows]
        _linear(layer.norm2(x[rows]), expand, expand_bias, out=part)
        torch.ops.aten.gelu.out(part, out=part)
        if features is not None:
            part[:, narrow : narrow + features.shape[-1]] = features[0].index_select(0, category[rows])

    for lines in _pieces(height, width * row_bytes):
        image = maps.hidden[lines.start : lines.stop + 2 * margin]
        part = convolve_lines(image, kernel, kernel_bias).view(-1, channels)
        _add_linear_(x[lines.start * width : lines.stop * width], part, reduce, net.fc2.bias)


def _pad_bias(bias: Tensor | None, amount: int) -> Tensor | None:
    return None if bias is None else F.pad(bias, (0, amount))
