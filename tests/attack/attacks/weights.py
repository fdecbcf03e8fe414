"""Weight files and descriptions that are damaged or lie: a `LoadError` at once, or the network that they describe."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch

import atd
from atd.cli import main
from attacks import byte_mutators
from attacks.environment import environment
from attacks.runner import Case, Cases, Wrong
from attacks.tiny_network import same_weights, tiny_network

SECONDS = 40
"""For one file; what is well-formed loads in a hundredth of it."""
IMPOSSIBLE: dict[str, list[object]] = {
    "depths": [[10**9], [999, 1], [0], [-1], "2", [], [[1]], None, 2, [1.5]],
    "category_size": [0, -1, "x", True, None, 10**12, [], 1.5],
    "upscale": [-2, 0, 2.0, "2", 10**9, None, [2]],
    "img_range": [0, -1, float("nan"), float("inf"), "1", None, []],
    "embed_dim": [0, -12, 10**12, "12", 12.0, None],
    "num_heads": [[0, 3], [2], [5, 3], "23", None],
    "window_size": [0, -4, "4", 10**6, None],
    "num_tokens": [0, -6, 10**12, "6", None],
    "mlp_ratio": [0, -1, float("nan"), float("inf"), "1", None],
    "upsampler": [["pixelshuffle"], 5, {}, "none of them"],
}
"""Settings that no network can have."""


def cases(random: Random, folder: Path) -> Cases:
    """Everything that is known to be impossible; then damage without end."""
    with environment(ATD_HOME=str(folder / "cache")):
        yield from _impossible(tiny_network(), folder)
        yield from _damaged(tiny_network(), random, folder)


def _impossible(network: atd.ATD, folder: Path) -> Cases:
    for keyword, values in IMPOSSIBLE.items():
        for value in values:
            files = _described(network, {keyword: value})
            yield Case(f"config.json: {keyword} {value!r}", _must_refuse(files, folder), SECONDS)
    for name, content in _strange_contents(network).items():
        yield Case(f"pickle: {name}", _must_refuse({"net.pth": _pickled(content())}, folder), SECONDS)
    yield Case("cache: a placed file is replaced", lambda: _tampered(folder), 60)
    yield Case("cache: other weights are placed under the same name", lambda: _placed_twice(folder), 60)
    yield Case("convert: a folder of somebody else's", lambda: _converted_into_strange_folder(network, folder), SECONDS)


def _damaged(network: atd.ATD, random: Random, folder: Path) -> Cases:
    whole = {
        "net.safetensors": _described(network, {})["net/model.safetensors"],
        "net.pth": _pickled({"params": network.state_dict()}),
        "old.pth": _pickled({"params_ema": network.state_dict(), "epoch": 3}, zipped=False),
    }
    yield from (
        Case(f"{name}, intact", _judged({name: data}, folder, network), SECONDS) for name, data in whole.items()
    )
    while True:
        name, data = random.choice(list(whole.items()))
        match random.randrange(5):
            case 0:
                case = f"{name}, cut", _must_refuse({name: byte_mutators.cut(data, random)}, folder, network)
            case 1:
                lying = {"net.safetensors": _header_that_lies(whole, random)}
                case = "safetensors header", _judged(lying, folder)
            case 2:
                case = "config.json", _judged(_described(network, _random_settings(random)), folder)
            case 3:
                files = _described(network, {})
                files["net/config.json"] = _mutated(files["net/config.json"], random)
                case = "config.json, bytes", _judged(files, folder)
            case _:
                case = f"{name}, bytes", _judged({name: _mutated(data, random)}, folder)
        yield Case(*case, SECONDS)


def _mutated(data: bytes, random: Random) -> bytes:
    """Damage, mostly near the start, where pickles and headers have their say."""
    mutate = random.choice(byte_mutators.ANYWHERE)
    head = random.choice([600, 3000, len(data)])
    return mutate(data[:head], random) + data[head:]


def _load(files: dict[str, bytes], folder: Path) -> torch.nn.Module:
    """Load the folder or file that `files` are; what is raised must be a `LoadError`."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    path = folder / next(iter(files))
    try:
        return atd.load(path if path.parent == folder else path.parent)
    except atd.LoadError:
        raise
    except Exception as error:
        raise Wrong(f"{type(error).__name__} instead of a LoadError: {error}") from error


def _must_refuse(files: dict[str, bytes], folder: Path, network: torch.nn.Module | None = None) -> Callable[[], None]:
    """A case that is wrong unless it is refused; or loads `network` all the same, where nothing of it was lost."""

    def run() -> None:
        loaded = _load(files, folder)
        if network is None or not same_weights(loaded, network):
            raise Wrong("is loaded as if nothing were the matter")

    return run


def _judged(files: dict[str, bytes], folder: Path, network: torch.nn.Module | None = None) -> Callable[[], None]:
    """A case that may load; then the network must work, and be `network` if given."""

    def run() -> None:
        loaded = _load(files, folder)
        if network is not None and not same_weights(loaded, network):
            raise Wrong("is loaded with other weights")
        if not all(parameter.isfinite().all() for parameter in loaded.parameters()):
            raise Wrong("is loaded with values that are not finite")
        with torch.no_grad():
            output = loaded(torch.full((1, loaded.in_channels, 8, 8), 0.5))
        if output.shape[-1] != 8 * loaded.scale:
            raise Wrong(f"a network of scale {loaded.scale} gives {tuple(output.shape)} of 8x8 pixels")

    return run


def _pickled(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _described(network: torch.nn.Module, settings: dict[str, object]) -> dict[str, bytes]:
    """The files of our format, with other settings in config.json."""
    from safetensors.torch import save

    config = {**dict(network.config), **settings}
    description = {"architecture": "ATD", "config": config, "name": None, "task": None}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    return {"net/model.safetensors": save(tensors), "net/config.json": json.dumps(description).encode()}


def _random_settings(random: Random) -> dict[str, object]:
    odd = [0, 1, 2, -1, 3.5, 2**31, 2**63, 1e308, "", "x", None, True, [], [1], [2, 1], {}, [[]], "nearest+conv"]
    return {random.choice([*IMPOSSIBLE, "in_chans", "qkv_bias", "strange"]): random.choice(odd) for _ in range(2)}


def _header_that_lies(whole: dict[str, bytes], random: Random) -> bytes:
    """One entry of a safetensors header says another type, shape or place; or its length is another."""
    data = whole["net.safetensors"]
    (length,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    entry = header[random.choice([key for key in header if key != "__metadata__"])]
    match random.randrange(5):
        case 0:
            entry["dtype"] = random.choice(["F16", "I8", "BOOL", "F64", "F8_E4M3", "C64", "X", None])
        case 1:
            entry["shape"] = random.choice([[], [0], [-1], [2**62, 2**62], entry["shape"][::-1], [10**9]])
        case 2:
            entry["data_offsets"] = [random.choice([0, -1, 2**63, len(body)]), random.choice([0, 8, len(body), 2**40])]
        case 3:
            del entry[random.choice(list(entry))]
        case _:
            return struct.pack("<Q", random.choice(byte_mutators.INTERESTING)) + data[8:]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _strange_contents(network: torch.nn.Module) -> dict[str, Callable[[], object]]:
    """Contents of pickles that are no weights of a network."""

    def endless() -> object:
        content: dict[str, object] = {}
        content["params"] = content
        return content

    def with_first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        return lambda: {**network.state_dict(), "norm.weight": change(network.state_dict()["norm.weight"])}

    def many_layers() -> object:
        tensors = dict(network.state_dict())
        layer = {key: value for key, value in tensors.items() if key.startswith("layers.0.residual_group.layers.0.")}
        for number in range(2, 5_000):
            tensors |= {key.replace(".layers.0.", f".layers.{number}.", 1): value for key, value in layer.items()}
        return tensors

    return {
        "a mapping that contains itself": endless,
        "keys that are no names": lambda: {0: torch.zeros(1), ("a", 1): torch.zeros(1)},
        "a list": lambda: [torch.zeros(3)],
        "nothing": lambda: None,
        "an empty mapping": dict,
        "five thousand layers": many_layers,
        "complex weights": with_first(lambda weight: weight.to(torch.complex64)),
        "weights of 8 bits": with_first(lambda weight: weight.to(torch.int8)),
        "weights that are true or false": with_first(lambda weight: weight.bool()),
        "weights without values": with_first(lambda weight: weight.to("meta")),
        "sparse weights": with_first(lambda weight: weight.to_sparse()),
        "NaN": with_first(lambda weight: weight.detach() * float("nan")),
        "infinity": with_first(lambda weight: weight.detach() / 0),
    }


NAME = "atd_light_sr_x4"


def _bundled() -> Path:
    return next((Path(atd.__file__).parent / "bundled").glob(f"{NAME}*.safetensors"))


def _place(file: Path) -> int:
    return main(["convert", str(file), "--as", NAME])


def _other_weights(folder: Path) -> Path:
    """A file of the same network with other values."""
    from safetensors.torch import load_file, save_file

    tensors = {key: value * 2 if value.is_floating_point() else value for key, value in load_file(_bundled()).items()}
    save_file(tensors, folder / "other.safetensors")
    return folder / "other.safetensors"


def _tampered(folder: Path) -> None:
    if _place(_bundled()):
        raise Wrong("the bundled weights cannot be placed")
    placed = folder / "cache" / NAME / "model.safetensors"
    data = bytearray(placed.read_bytes())
    data[-40:] = bytes(40)
    placed.write_bytes(data)
    atd.load(NAME)
    raise Wrong("a file in the cache that somebody changed is used")


def _placed_twice(folder: Path) -> None:
    before = [_place(_bundled()), (folder / "cache" / NAME / "model.safetensors").read_bytes()]
    status = _place(_other_weights(folder))
    if status == 0 or (folder / "cache" / NAME / "model.safetensors").read_bytes() != before[1]:
        raise Wrong("weights in the cache are replaced without a word")


def _converted_into_strange_folder(network: torch.nn.Module, folder: Path) -> None:
    strange = folder / "strange"
    strange.mkdir(exist_ok=True)
    (strange / "README.md").write_text("mine")
    (strange / "config.json").write_text('{"mine": true}')
    (folder / "net.pth").write_bytes(_pickled(network.state_dict()))
    main(["convert", str(folder / "net.pth"), "-o", str(strange)])
    config = json.loads((strange / "config.json").read_text())
    kept = (strange / "README.md").read_text() == "mine" and config == {"mine": True}
    if not kept:
        raise Wrong("files of somebody else's are overwritten")
