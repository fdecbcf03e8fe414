"""The ops of atd.ops once more, from the papers' formulas: NumPy, float64, one token at a time."""

import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def gelu(x):
    return np.vectorize(lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def cosine_logits(query, key, scale):
    """(n, M) for one image."""

    def unit(row):
        return row / max(math.sqrt((row * row).sum()), 1e-12)

    return np.array([[unit(q) @ unit(k) * s for k, s in zip(key, scale, strict=True)] for q in query])


def dictionary_attention(query, key, value, scale):
    """Output (n, C) and category (n,) of one image; ``scale`` (M,)."""
    logits = cosine_logits(query, key, scale)
    return np.array([softmax(row) @ value for row in logits]), np.array(
        [row.tolist().index(row.max()) for row in logits]
    )


def dictionary_refinement(query, key, scale, tokens, dictionary, weight, bias, sigma):
    attention = np.array([softmax(row) for row in cosine_logits(query, key, scale)])
    refined = np.empty_like(dictionary)
    for j, column in enumerate(attention.T):
        normalised = (column - column.mean()) / math.sqrt(((column - column.mean()) ** 2).mean() + 1e-5)
        share = 1 / (1 + math.exp(-sigma[j, 0]))
        refined[j] = share * dictionary[j] + (1 - share) * softmax(normalised * weight[j] + bias[j]) @ tokens
    return refined


def heads_of(row, num_heads):
    """(q | k | v) of one token as three lists of heads."""
    return row.reshape(3, num_heads, -1)


def attend(rows, num_heads, scale, bias):
    """(g, C) for the (g, 3C) rows of one group; ``bias(head, i, j)`` is added to the logits."""
    split = np.array([heads_of(row, num_heads) for row in rows])
    output = np.empty((len(rows), num_heads, split.shape[-1]))
    for i in range(len(rows)):
        for head in range(num_heads):
            logits = [split[i, 0, head] @ split[j, 1, head] * scale + bias(head, i, j) for j in range(len(rows))]
            output[i, head] = softmax(np.array(logits)) @ split[:, 2, head]
    return output.reshape(len(rows), -1)


def category_attention(qkv, category, group_size, num_heads, scale):
    """(n, C) for one image, from the categories themselves."""
    tokens = len(qkv)
    order = [token for kind in sorted(set(category)) for token in range(tokens) if category[token] == kind]
    size = min(tokens, group_size)
    missing = -tokens % size
    output = np.empty((tokens, qkv.shape[1] // 3))
    for start in range(0, tokens, size):
        group = order[start : start + size]
        filled = group + order[tokens - (size - len(group)) :] if len(group) < size else group
        assert len(filled) == size
        assert missing == 0 or start + size <= tokens or size - len(group) == missing
        attended = attend(qkv[filled], num_heads, scale, lambda head, i, j: 0.0)
        output[group] = attended[: len(group)]
    return output


def window_attention(qkv, table, grid, window, shift, num_heads):
    """(n, C) for one image: every token looks for the window it falls in after the shift."""
    height, width = grid
    scale = (qkv.shape[1] // 3 // num_heads) ** -0.5
    output = np.empty((height * width, qkv.shape[1] // 3))

    def region(place, length):  # of the rolled image: what came round the edge is a region of its own
        if shift == 0 or place < length - window:
            return 0
        return 1 if place < length - shift else 2

    for top in range(0, height, window):
        for left in range(0, width, window):
            places = [(top + y, left + x) for y in range(window) for x in range(window)]
            tokens = [(y + shift) % height * width + (x + shift) % width for y, x in places]

            def bias(head, i, j, places=places):
                (yi, xi), (yj, xj) = places[i], places[j]
                row = (yi - yj + window - 1) * (2 * window - 1) + xi - xj + window - 1
                apart = region(yi, height) != region(yj, height) or region(xi, width) != region(xj, width)
                return table[row, head] + (-100 if apart else 0)

            output[tokens] = attend(qkv[tokens], num_heads, scale, bias)
    return output


def category_feedforward(hidden, grid, weight, bias, features, category):
    height, width = grid
    y = gelu(hidden)
    if features is not None:
        y = np.concatenate([y, features[category]], axis=1)
    image = y.reshape(height, width, -1)
    side = weight.shape[-1]
    convolved = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            for ty in range(side):
                for tx in range(side):
                    yy, xx = row + ty - side // 2, column + tx - side // 2
                    if 0 <= yy < height and 0 <= xx < width:
                        convolved[row, column] += image[yy, xx] * weight[:, 0, ty, tx]
    if bias is not None:
        convolved = convolved + bias
    return y + gelu(convolved).reshape(height * width, -1)
