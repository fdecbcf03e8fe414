"""Restore images, files and folders: plan, tiles, memory, precision."""

from atd.restoration.api import restore, restore_file, restore_tensor
from atd.restoration.options import FileOptions, RestoreOptions, Tile
from atd.restoration.progress import Callback, TileProgress, progress_callback

__all__ = [
    "Callback",
    "FileOptions",
    "RestoreOptions",
    "Tile",
    "TileProgress",
    "progress_callback",
    "restore",
    "restore_file",
    "restore_tensor",
]
