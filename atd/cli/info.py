"""`atd info`: versions, device, backend and folders, for bug reports; or all about one network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from atd.cli.networks import chosen_names

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands
    from atd.registry import ModelInfo


class _Card(Protocol):
    """What torch tells of a CUDA card, without saying of what type it is."""

    name: str
    total_memory: int
    major: int
    minor: int


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "info",
        help="print versions, device, backend and cache folders, or all about a network",
        description="Print versions, device, backend and why, and the folders in which weights are looked for. With "
        "names, print what these networks are, where their weights come from, and what is on this machine.",
        examples=(
            ("atd info", "what to put into a bug report"),
            ("atd info 4xNomosWebPhoto_atd", "what a network is for, its licence, its sources, its file here"),
            ("ATD_BACKEND=torch atd info", "what runs when the environment variable asks for the backend torch"),
        ),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names or patterns of atd list, or all")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    if args.names:
        _print_networks(args.names)
    else:
        _print_machine()
    return 0


def _print_networks(patterns: Sequence[str]) -> None:
    from atd import registry

    for number, name in enumerate(chosen_names(patterns)):
        if number:
            print()
        _print_lines(_network_lines(registry.get(name)))


def _network_lines(info: ModelInfo) -> list[tuple[str, str]]:
    """What a network is, where its weights come from, and what of them is on this machine."""
    from atd.weights import hub
    from atd.weights.integrity import origin_of, recorded_sha256

    channels = "gray" if info.in_channels == 1 else "RGB"
    lines = [
        (info.name, f"{info.architecture}, {info.task.label}, {channels}, {info.parameters:,} parameters"),
        ("published", info.paper),
        ("licence", info.licence),
    ]
    if info.attribution:
        lines += [("attribution", info.attribution), ("good for", info.good_for or "not said")]
    for kind, source in info.sources.in_order.items():
        size = "size unknown" if source.size is None else f"{source.size} bytes"
        lines += [(f"from {kind}", f"{source.label} ({size}, SHA-256 {source.sha256 or 'unknown'})")]
    if not info.sources.in_order:
        lines += [("from", "this package only")]
    placed = hub.placed_file(info.name)
    if placed.is_file():
        lines += [("here", str(placed)), ("its SHA-256", recorded_sha256(placed) or "recorded when it is first used")]
        if origin := origin_of(placed):
            lines += [("made of", f"{origin.name} of {origin.where} ({origin.size} bytes, SHA-256 {origin.sha256})")]
    elif hub.is_cached(info):
        lines += [("here", f"in the hub cache {hub.hub_cache()}")]
    if info.bundled:
        lines += [("bundled", str(info.bundled_path))]
    return lines


def _print_lines(lines: Sequence[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        print(f"{key.ljust(width)}  {value}")


def _print_machine() -> None:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import atd
    from atd import ops, registry
    from atd.weights import drive, hub

    def installed(distribution: str) -> str:
        try:
            return version(distribution)
        except PackageNotFoundError:
            return "not installed"

    lines = [
        ("atd", atd.__version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
    ]
    lines += [(name, installed(name)) for name in ("torch", "triton", "safetensors", "huggingface_hub", "pillow")]
    second_way = f"not installed (a second way to Google Drive, {drive.INSTALL_HINT})"
    lines += [("gdown", installed("gdown") if drive.available() else second_way)]
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    for device in devices:
        if device == "cpu":
            what = f"{torch.get_num_threads()} threads"
        else:
            card = cast(_Card, torch.cuda.get_device_properties(device))  # pyright: ignore[reportUnknownMemberType]
            what = f"{card.name}, {card.total_memory / 2**30:.1f} GiB, compute capability {card.major}.{card.minor}"
        backend, reason = ops.backend_report(device)
        lines += [("device", f"{device} ({what}); backend {backend}: {reason}")]
    bundled = [name for name in registry.list_models() if registry.get(name).bundled]
    lines += [
        ("converted weights", f"{hub.home()} (ATD_HOME, else atd in HF_HOME)"),
        ("hub cache", str(hub.hub_cache())),
        ("hub repository", os.environ.get("ATD_HUB_REPO") or "none (ATD_HUB_REPO=org/repo@revision)"),
        ("requests", "switched off by HF_HUB_OFFLINE" if hub.offline() else "allowed"),
        ("bundled weights", ", ".join(bundled) or "none"),
    ]
    _print_lines(lines)
