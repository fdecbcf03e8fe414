"""The arrays of an explanation. NumPy alone; every map is on the grid of a layer's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atd.errors import InputError

Sample = TypeVar("Sample", bound=np.generic)


@dataclass(frozen=True)
class LayerMaps:
    """What one layer looked up, and whom it let attend to whom.

    The network pads its input to whole windows, so that the grid of its tokens may reach beyond the image. Maps show
    the part inside; tokens outside take part in the groups all the same.
    """

    name: str
    """The layer's place in the network, as in the keys of its state dict."""
    pixels: int
    """Side of a token in pixels of the image: 2^i on level i of ATD-U, 1 elsewhere."""
    shape: tuple[int, int]
    """Rows and columns of tokens inside the image; a token at its border may reach beyond it."""
    group_size: int
    """The published ``category_size``: the rows of an attention group."""
    grid_category: NDArray[np.int32]
    """(H, W), the whole grid: the entry that each token is nearest to, as the forward pass used it."""
    grid_query: NDArray[np.float32]
    """(H, W, r): the tokens' queries, of unit length."""
    key: NDArray[np.float32]
    """(M, r): the keys of the dictionary's entries, of unit length."""

    @property
    def entries(self) -> int:
        """M, the number of entries of the dictionary, which is that of the categories."""
        return len(self.key)

    @property
    def category(self) -> NDArray[np.int32]:
        """(rows, columns) in [0, M): the entry that each token of the image is nearest to (CVPR 2024, eq. 8)."""
        return self._inside(self.grid_category)

    def similarity(self, entry: int | None = None) -> NDArray[np.float32]:
        """(rows, columns) in [-1, 1]: cosine of each token's query and the key of `entry`; None: of its own category.

        The logits of the dictionary attention are this, times a factor that the layer learned.

        Raises:
            InputError: there is no such entry.
        """
        if entry is None:
            return self._inside(self.grid_similarity())
        return self._inside(self.grid_query) @ self.key[self._checked(entry)]

    def grid_similarity(self) -> NDArray[np.float32]:
        """(H, W), the whole grid: cosine of each token's query and the key of its own category."""
        return np.einsum("hwr,hwr->hw", self.grid_query, self.key[self.grid_category])

    def members(self, entry: int) -> NDArray[np.bool_]:
        """(rows, columns): the tokens of the category `entry`.

        Raises:
            InputError: there is no such entry.
        """
        return self.category == self._checked(entry)

    def counts(self) -> NDArray[np.int64]:
        """(M,): how many tokens of the image each category has."""
        return np.bincount(self.category.ravel(), minlength=self.entries)

    def largest(self, count: int) -> list[int]:
        """The `count` categories of most tokens, the largest first; fewer where fewer have any."""
        counts = self.counts()
        order = np.argsort(-counts, kind="stable")[:count]
        return [int(entry) for entry in order if counts[entry]]

    def group(self, row: int, column: int) -> NDArray[np.bool_]:
        """(rows, columns): the tokens that the one at `row`, `column` attends to in the category attention.

        Tokens in the order of their categories form groups of `group_size`; the last group is filled with the tokens
        that stand last (CVPR 2024, section 3.3). A large category takes several groups, and a group holds several
        small ones, so a group is not a category.

        Raises:
            InputError: there is no such token.
        """
        rows, columns = self.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise InputError(f"there is no token in row {row}, column {column}: {self.name} has {rows}×{columns}")
        tokens = self.grid_category.size
        size = min(tokens, self.group_size)
        order = np.argsort(self.grid_category.ravel(), kind="stable")
        place = int(np.flatnonzero(order == row * self.grid_category.shape[1] + column)[0])
        start = place // size * size
        attended = np.zeros(tokens, np.bool_)
        attended[order[start : start + size]] = True
        if start + size > tokens:
            attended[order[2 * tokens - start - size :]] = True
        return self._inside(attended.reshape(self.grid_category.shape))

    def token_at(self, x: int, y: int) -> tuple[int, int]:
        """Row and column of the token that holds the pixel `x`, `y` of the image, counted from its upper left."""
        return y // self.pixels, x // self.pixels

    def _checked(self, entry: int) -> int:
        if not 0 <= entry < self.entries:
            raise InputError(f"there is no entry {entry}: the dictionary of {self.name} has {self.entries}, from 0 on")
        return entry

    def _inside(self, grid: NDArray[Sample]) -> NDArray[Sample]:
        return grid[: self.shape[0], : self.shape[1]]


@dataclass(frozen=True)
class Explanation:
    """What `atd.explain` gives."""

    label: str
    """The network."""
    image: NDArray[np.uint8]
    """(h, w, 3): the image that was explained, in 8 bits."""
    layers: tuple[LayerMaps, ...]
    """In the order in which they compute."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The categories and similarities of all layers by name, for `numpy.savez_compressed`."""
        arrays: dict[str, np.ndarray] = {"image": self.image}
        for layer in self.layers:
            arrays[f"{layer.name}.category"] = layer.category
            arrays[f"{layer.name}.similarity"] = layer.similarity()
        return arrays
