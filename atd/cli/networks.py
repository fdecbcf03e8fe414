"""Which networks arguments name: one for `atd restore`, any number for commands on several."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atd.cli.streams import say
from atd.errors import InputError

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MODEL = "atd_light_sr_x4"
TASK_MODELS = {"classical": "atd_sr", "lightweight": "atd_light_sr"}
# The networks of this project for --denoise and --jpeg with --weights bundled, and the strengths that they are for.
BUNDLED_MODELS = {"denoise": ("atd_u_tiny_color_dn", 0, 55), "jpeg": ("atd_u_tiny_color_jpeg", 5, 95)}
AUTHORS_LEVELS = {"denoise": (15, 25, 50), "jpeg": (10, 20, 30, 40)}


def chosen_names(patterns: Sequence[str]) -> list[str]:
    """The names that shell patterns match, each once; "all" matches every one.

    Raises:
        LoadError: a pattern matches none.
    """
    from atd import registry

    chosen: dict[str, None] = {}
    for pattern in patterns:
        names = registry.list_models("*" if pattern == "all" else pattern)
        if not names:
            raise registry.unknown_name(pattern)
        chosen.update(dict.fromkeys(names))
    return list(chosen)


class Networks:
    """The networks that the arguments name, loaded when the first file needs them."""

    def __init__(self, args: argparse.Namespace, device: str | None) -> None:
        chosen = [flag for flag in ("model", "task", "real", "denoise", "jpeg") if getattr(args, flag) is not None]
        if len(chosen) > 1:
            raise InputError(f"--{chosen[0]} and --{chosen[1]} both pick a network: give one of them")
        if args.scale is not None and chosen not in ([], ["task"]):
            raise InputError(
                f"--scale and --{chosen[0]} both pick a network: give one of them (results of another size: --outscale)"
            )
        self.device = device
        self.weights = args.weights or "official"
        self.params = args.params
        # A network that the user has not named in full is told.
        in_full = {"model", "real", "denoise", "jpeg"} & {*chosen}
        self.defaulted = (args.task is None or args.scale is None) and not in_full
        self.gray_name: str | None = None
        self.reason = ""
        self.loaded: dict[str, nn.Module] = {}
        if args.runtime != "torch" or args.file is not None:
            self._open_exported(args, chosen)
        elif args.model is not None:
            self.name = args.model
        elif args.task is not None or args.scale is not None:
            self.name = f"{TASK_MODELS[args.task or 'classical']}_x{args.scale or 4}"
        elif args.real is not None:
            self._choose_for_photos(args)
        elif chosen:
            self._choose_by_level(chosen[0], getattr(args, chosen[0]))
        else:
            self.name = DEFAULT_MODEL
            self.weights = args.weights or "bundled"

    def _open_exported(self, args: argparse.Namespace, chosen: list[str]) -> None:
        """The network of ``--file``, in the runtime of ``--runtime``."""
        from atd.runtime import load_exported

        if args.runtime == "torch" or args.file is None:
            raise InputError("--runtime onnx or openvino and --file go together: the runtime and the file it runs")
        torch_only = ("scale", "weights", "params", "device", "dtype", "backend")
        given = [*chosen, *(flag for flag in torch_only if getattr(args, flag) not in (None, "auto"))]
        if given:
            raise InputError(
                f"--{given[0]} is for networks in torch; --file holds a network with its weights and dtype"
            )
        network = load_exported(args.file, args.runtime)
        self.name, self.defaulted = network.name, False
        self.loaded[self.name] = network

    def _choose_for_photos(self, args: argparse.Namespace) -> None:
        """The network for ``--real``: bundled, or on this machine; nothing is fetched that nobody has named."""
        from atd.weights.photos import network_for_photos

        if args.weights is not None or args.params != "auto":
            raise InputError("--real picks network and weights: to choose them, name a network (--model)")
        self.name, self.weights, self.reason = network_for_photos()
        self.defaulted = True

    def _choose_by_level(self, flag: str, level: float) -> None:
        """The network for ``--denoise LEVEL`` or ``--jpeg LEVEL``."""
        name, low, high = BUNDLED_MODELS[flag]
        if self.weights == "bundled":
            if not low <= level <= high:
                raise InputError(f"--{flag} {level}: the bundled network {name} is for {low} to {high}")
            self.name, self.defaulted = name, True
            return
        levels = AUTHORS_LEVELS[flag]
        if level not in levels:
            raise InputError(
                f"--{flag} {level}: the authors' networks are for {', '.join(map(str, levels))}; --weights bundled "
                f"takes a small network for any level from {low} to {high}"
            )
        if flag == "denoise":
            self.name, self.gray_name = f"atd_u_color_dn{level}", f"atd_u_gray_dn{level}"
        else:
            self.name = f"atd_u_gray_jpeg{level}"

    def announce(self) -> None:
        """Load the network, so that a missing one is told before any file is read; name it when the user did not."""
        if self.defaulted:
            because = f": {self.reason}" if self.reason else ""
            say(f"atd: using {self.name} with {self.weights} weights{because}")
        self._load(self.name)

    def get(self, gray: bool = False) -> nn.Module:
        """The network for colour or for gray images: --denoise has one for each."""
        return self._load(self.gray_name if gray and self.gray_name else self.name)

    def _load(self, name: str) -> nn.Module:
        from atd.restoration.api import load_network

        if name not in self.loaded:
            self.loaded[name] = load_network(name, self.weights, self.device, self.params)
        return self.loaded[name]
