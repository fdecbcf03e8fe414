"""`atd info`: versions, device, backend and folders, for bug reports."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


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
        help="print versions, device, backend and cache folders",
        description="Print versions, device, backend and why, and the folders in which weights are looked for.",
        examples=(
            ("atd info", "what to put into a bug report"),
            ("ATD_BACKEND=torch atd info", "what runs when the environment variable asks for the backend torch"),
        ),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
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
    lines += [("gdown", installed("gdown") if drive.available() else f"not installed ({drive.INSTALL_HINT})")]
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
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        print(f"{key.ljust(width)}  {value}")
    return 0
