"""What an exported file says of its network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from atd.errors import LoadError

_PREFIX = "atd."


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The entries of an exported file, each stored as text under ``atd.<name>``."""

    name: str
    """Registry name, or the architecture where there is none."""
    architecture: str
    task: str
    scale: int
    channels: int
    size_multiple: int
    """The program pads to multiples of this: tiles of such sides waste nothing."""
    static_size: str = ""
    """``HxW`` of a file for that size alone; else empty."""
    dtype: str = "float32"
    """In which the network computes; image and result are float32."""
    licence: str = ""
    """SPDX name of the licence of the weights; empty where it is not known."""
    weights_sha256: str = ""
    """Over the class, the settings and every tensor of the network."""
    atd_version: str = ""

    def as_text(self) -> dict[str, str]:
        """For the file."""
        return {_PREFIX + key: str(value) for key, value in asdict(self).items()}

    def as_json(self) -> str:
        """For a file beside a program."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_text(cls, entries: Mapping[str, str], source: str) -> Metadata:
        """From the entries of a file; those of others are left alone.

        Raises:
            LoadError: the file was not written by this library.
        """
        known = {field.name: field.type for field in fields(cls)}
        own = {key.removeprefix(_PREFIX): value for key, value in entries.items() if key.startswith(_PREFIX)}
        try:
            return cls(
                **{  # pyright: ignore[reportArgumentType]
                    key: int(value) if known[key] == "int" else value for key, value in own.items() if key in known
                }
            )
        except (TypeError, ValueError) as error:
            raise LoadError(f"{source} was not written by `atd export`, or by a newer one ({error})") from error

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that the file is bound to; None where it takes every size."""
        if not self.static_size:
            return None
        height, width = self.static_size.split("x")
        return int(height), int(width)
