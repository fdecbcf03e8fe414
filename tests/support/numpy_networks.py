"""The three networks in NumPy float64, written from the papers' formulas alone and driven by a state dict.

Slow and plain on purpose: one image at a time, loops over heads, windows and groups, nothing shared with the package.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erf

RGB_MEAN = np.array([0.4488, 0.4371, 0.4040], dtype=np.float32).astype(np.float64)


class Weights:
    """A view of a state dict below a prefix; absent tensors read as None."""

    def __init__(self, tensors: dict[str, np.ndarray], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, key: str) -> np.ndarray | None:
        return self.tensors.get(self.prefix + key)

    def __truediv__(self, name: str) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def any(self) -> bool:
        return any(key.startswith(self.prefix) for key in self.tensors)


def linear(x, w: Weights):
    y = x @ w["weight"].T
    return y if w["bias"] is None else y + w["bias"]


def layer_norm(x, w: Weights):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w["weight"] + w["bias"]


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


def conv(x, w: Weights, groups: int = 1):
    """x (c, h, w), zero padding, stride 1."""
    weight, bias = w["weight"], w["bias"]
    out, per_group, k, _ = weight.shape
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height, width = x.shape[1:]
    y = np.zeros((out, height, width))
    for o in range(out):
        first = o // (out // groups) * per_group
        for i in range(per_group):
            for dy in range(k):
                for dx in range(k):
                    y[o] += weight[o, i, dy, dx] * padded[first + i, dy : dy + height, dx : dx + width]
        if bias is not None:
            y[o] += bias[o]
    return y


def pixel_shuffle(x, s):
    c, h, w = x.shape
    return x.reshape(c // s**2, s, s, h, w).transpose(0, 3, 1, 4, 2).reshape(c // s**2, h * s, w * s)


def pixel_unshuffle(x, s):
    c, h, w = x.shape
    return x.reshape(c, h // s, s, w // s, s).transpose(0, 2, 4, 1, 3).reshape(c * s**2, h // s, w // s)


def tokens_of(image):
    return image.reshape(image.shape[0], -1).T


def image_of(tokens, h, w):
    return tokens.T.reshape(-1, h, w)


def dictionary_attention(u, td, w: Weights, cvpr: bool):
    q, k, v = linear(u, w / "wq"), linear(td, w / "wk"), linear(td, w / "wv")
    q = q / np.maximum(np.linalg.norm(q, axis=-1, keepdims=True), 1e-12)
    k = k / np.maximum(np.linalg.norm(k, axis=-1, keepdims=True), 1e-12)
    logits = q @ k.T * (1 + np.clip(w["scale"], 0, 1 if cvpr else 3) * math.log(len(td)))
    attention = softmax(logits)
    return attention @ v, attention, logits.argmax(-1)


def heads_attention(rows, heads, scale, bias=None):
    """Attention among the given rows (g, 3C)."""
    channels = rows.shape[1] // 3
    d = channels // heads
    out = np.zeros((len(rows), channels))
    for h in range(heads):
        q, k, v = (rows[:, s * channels + h * d : s * channels + (h + 1) * d] for s in range(3))
        logits = q @ k.T * scale
        out[:, h * d : (h + 1) * d] = softmax(logits if bias is None else logits + bias[h]) @ v
    return out


def category_attention(qkv, category, size, heads, scale):
    n = len(qkv)
    order = sorted(range(n), key=lambda t: category[t])  # Python's sort is stable
    g = min(n, size)
    groups = math.ceil(n / g)
    padded = order + order[n - (groups * g - n) :]
    out = np.zeros((n, qkv.shape[1] // 3))
    for i in range(groups):
        rows = padded[i * g : (i + 1) * g]
        result = heads_attention(qkv[rows], heads, scale)
        for place, token in enumerate(rows):
            if i * g + place < n:
                out[token] = result[place]
    return out


def window_attention(qkv, h, w, window, shift, table, heads):
    channels = qkv.shape[1] // 3
    scale = (channels // heads) ** -0.5
    out = np.zeros((h * w, channels))

    def region(place, length):
        return 0 if place < length - window else 1 if place < length - shift else 2

    for top in range(0, h, window):
        for left in range(0, w, window):
            places = [(top + y, left + x) for y in range(window) for x in range(window)]  # in the rolled grid
            rows = [(y + shift) % h * w + (x + shift) % w for y, x in places]
            bias = np.zeros((heads, window**2, window**2))
            for i, (yi, xi) in enumerate(places):
                for j, (yj, xj) in enumerate(places):
                    bias[:, i, j] = table[(yi - yj + window - 1) * (2 * window - 1) + xi - xj + window - 1]
                    if shift and (region(yi, h), region(xi, w)) != (region(yj, h), region(xj, w)):
                        bias[:, i, j] -= 100
            out[rows] = heads_attention(qkv[rows], heads, scale, bias)
    return out


def feed_forward(x, h, w, weights: Weights, extra=None):
    y = gelu(linear(x, weights / "fc1"))
    if extra is not None:
        y = np.concatenate([y, extra], axis=1)
    depthwise = weights / "dwconv" / "depthwise_conv" / "0"
    y = y + gelu(tokens_of(conv(image_of(y, h, w), depthwise, groups=y.shape[1])))
    return linear(y, weights / "fc2")


def layer(x, td, h, w, weights: Weights, *, window, shift, heads, category_size, cvpr, real=False):
    if real:
        td = td / np.maximum(np.linalg.norm(td, axis=-1, keepdims=True), 1e-12)
    u = layer_norm(x, weights / "norm1")
    qkv = linear(u, weights / "wqkv")
    x_td, attention, category = dictionary_attention(u, td, weights / "attn_atd", cvpr)
    if cvpr:
        scale = math.exp(min((weights / "attn_aca")["logit_scale"].item(), 4.605170249938965))
    else:
        scale = (x.shape[1] // heads) ** -0.5
    aca = linear(category_attention(qkv, category, category_size, heads, scale), weights / "attn_aca" / "proj")
    table = (weights / "attn_win")["relative_position_bias_table"]
    win = linear(window_attention(qkv, h, w, window, shift, table, heads), weights / "attn_win" / "proj")
    x = x + (x_td + win + aca) / (math.sqrt(3) if real else 1)
    extra = None if cvpr else linear(td, weights / "fc_td")[category]
    x = x + feed_forward(layer_norm(x, weights / "norm2"), h, w, weights / "convffn", extra)
    if weights["sigma"] is not None:
        columns = attention.T  # (M, n)
        columns = (columns - columns.mean(1, keepdims=True)) / np.sqrt(columns.var(1, keepdims=True) + 1e-5)
        norm = weights / "norm3"
        columns = columns * norm["weight"][:, None] + norm["bias"][:, None]
        s = 1 / (1 + np.exp(-weights["sigma"]))
        td = s * td + (1 - s) * (softmax(columns) @ x)
    return x, td


def block(x, h, w, weights: Weights, *, depth, window, **settings):
    td = weights["td"]
    for i in range(depth):
        shift = window // 2 if i % 2 else 0
        x, td = layer(x, td, h, w, weights / "layers" / str(i), window=window, shift=shift, **settings)
    return x


def pad(image, multiple):
    h, w = image.shape[1:]
    return np.pad(image, ((0, 0), (0, -h % multiple), (0, -w % multiple)), mode="symmetric")


def residual_conv(x, weights: Weights, kind: str):
    if kind == "1conv":
        return conv(x, weights)
    x = leaky(conv(x, weights / "0"), 0.2)
    return conv(leaky(conv(x, weights / "2"), 0.2), weights / "4")


def super_resolution(
    tensors: dict[str, np.ndarray], config: dict, image: np.ndarray, *, cvpr: bool, real: bool = False
) -> np.ndarray:
    """ATD, ATD of CVPR 2024 (``cvpr``) or ATD-Real (``cvpr`` and ``real``) for one image (c, h, w)."""
    root = Weights(tensors)
    scale, upsampler = config["upscale"], config.get("upsampler") or ""
    kind, img_range = config.get("resi_connection", "1conv"), config.get("img_range", 1.0)
    mean = (RGB_MEAN if len(image) == 3 else np.zeros(len(image)))[:, None, None]
    if root["no_norm"] is not None:
        mean, img_range = np.zeros_like(mean), 1.0
    if real:
        mean, img_range = np.full_like(mean, 0.5), 1 / 0.5
    height, width = image.shape[1:]
    normalised = (pad(image, config["window_size"]) - mean) * img_range
    h, w = normalised.shape[1:]
    shallow = conv(normalised, root / "conv_first")
    x = tokens_of(shallow)
    if (root / "patch_embed").any():
        x = layer_norm(x, root / "patch_embed" / "norm")
    for i, depth in enumerate(config["depths"]):
        group = root / "layers" / str(i)
        y = block(
            x,
            h,
            w,
            group / "residual_group",
            depth=depth,
            window=config["window_size"],
            heads=config["num_heads"][i],
            category_size=config["category_size"],
            cvpr=cvpr,
            real=real,
        )
        y = tokens_of(residual_conv(image_of(y, h, w), group / "conv", kind))
        if (group / "patch_embed").any():
            y = layer_norm(y, group / "patch_embed" / "norm")
        x = y + x
        if (group / "norm").any():
            x = layer_norm(x, group / "norm")
    deep = residual_conv(image_of(layer_norm(x, root / "norm"), h, w), root / "conv_after_body", kind) + shallow
    if upsampler == "pixelshuffledirect":
        y = pixel_shuffle(conv(deep, root / "upsample" / "0"), scale)
    elif upsampler == "":
        y = normalised + conv(deep, root / "conv_last")
    else:
        y = leaky(conv(deep, root / "conv_before_upsample" / "0"), 0.01)
        if upsampler == "pixelshuffle":
            factors = [3] if scale == 3 else [2] * round(math.log2(scale))
            for i, factor in enumerate(factors):
                y = pixel_shuffle(conv(y, root / "upsample" / str(2 * i)), factor)
        else:
            for name in ("conv_up1", "conv_up2"):
                y = leaky(conv(y.repeat(2, axis=1).repeat(2, axis=2), root / name), 0.2)
            y = leaky(conv(y, root / "conv_hr"), 0.2)
        y = conv(y, root / "conv_last")
    return (y / img_range + mean)[:, : height * scale, : width * scale]


def u_network(tensors: dict[str, np.ndarray], config: dict, image: np.ndarray) -> np.ndarray:
    """ATD-U for one image (c, h, w)."""
    root = Weights(tensors)
    levels = len(config["depths"])
    height, width = image.shape[1:]
    padded = pad(image, config["window_size"][-1] * 2 ** (levels - 1))

    def stage(x, weights, level, heads):
        h, w = x.shape[1:]
        y = block(
            tokens_of(x),
            h,
            w,
            weights / "block",
            depth=config["depths"][level],
            window=config["window_size"][level],
            heads=heads,
            category_size=config["category_size"][level],
            cvpr=False,
        )
        return image_of(y, h, w)

    shallow = conv(padded, root / "conv_first")
    x, skips = shallow, []
    for i in range(levels - 1):
        x = stage(x, root / "encoders" / str(i), i, config["num_heads"][i])
        skips.append(x)
        x = pixel_unshuffle(conv(x, root / "downs" / str(i) / "down" / "0"), 2)
    x = stage(x, root / "middle_blks", levels - 1, config["num_heads"][-1])
    for j, i in enumerate(reversed(range(levels - 1))):
        x = pixel_shuffle(conv(x, root / "ups" / str(j) / "up" / "0"), 2)
        x = np.concatenate([x, skips[i]])
        if i > 0:
            h, w = x.shape[1:]
            x = image_of(linear(tokens_of(x), root / "reduces" / str(j)), h, w)
        x = stage(x, root / "decoders" / str(j), i, config["num_heads"][i])
    x = stage(x, root / "refine_blks", 0, 2 * config["num_heads"][0])
    y = conv(conv(x, root / "conv_after_body") + shallow, root / "conv_last") + padded
    return y[:, :height, :width]
