"""Hubs that lie about sizes, hashes and commits, break off, or send us elsewhere: an error, or the right weights."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import patch

from loopback_hub import LoopbackHub

import atd
from atd.weights import transfer
from attacks import byte_mutators
from attacks.environment import environment
from attacks.runner import Case, Cases, Wrong
from attacks.tiny_network import same_weights, tiny_network

Headers = dict[str, str]
Fault = Callable[[int, Headers, bytes, Random], tuple[int, Headers, bytes]]
"""Status, headers and body of an answer → those that are sent."""

PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


def _page(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return 200, {**headers, "Content-Type": "text/html", "Content-Length": str(len(PAGE))}, PAGE


def _cut(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return status, headers, body[: random.randrange(len(body))] if body else body


def _shorter(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    size = random.randrange(len(body)) if body else 0
    return status, {**headers, "Content-Length": str(size)}, body[:size]


def _longer(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return status, {**headers, "Content-Length": str(random.choice([len(body) + 1, 2**40]))}, body


def _no_size(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return status, {key: value for key, value in headers.items() if key != "Content-Length"}, body


def _changed(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return status, headers, byte_mutators.flip_bit(body, random) if body else body


def _status(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return random.choice([204, 400, 401, 403, 404, 410, 418, 451, 501]), headers, body


def _elsewhere(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    places = ["http://127.0.0.1:9/", "file:///etc/passwd", "//", "http://", "/x" * 5000, "ftp://127.0.0.1/x"]
    return random.choice([301, 302, 307, 308]), {**headers, "Location": random.choice(places)}, body


def _round_and_round(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    return 302, {**headers, "Location": "/org/net/resolve/main/model.safetensors"}, b""


def _odd_commit(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    commits = ["../../../escaped", "/tmp/escaped", "..", "", "x" * 4000, "main", "\u00ff"]
    return status, {**headers, "X-Repo-Commit": random.choice(commits)}, body


def _odd_tag(status: int, headers: Headers, body: bytes, random: Random) -> tuple[int, Headers, bytes]:
    # Paths too: huggingface_hub (2.4) would take a tag for a name in its cache.
    tags = ['""', '"x"', '"' + "0" * 64 + '"', "W/", '"' + "x" * 4000 + '"', '"/tmp/escaped"', '"../../../../escaped"']
    return status, {**headers, "ETag": random.choice(tags)}, body


FAULTS: tuple[Fault, ...] = (
    _page, _cut, _shorter, _longer, _no_size, _changed, _status, _elsewhere, _round_and_round, _odd_commit, _odd_tag,
)  # fmt: skip


def cases(random: Random, folder: Path) -> Cases:
    """Each fault in the answer to HEAD, to GET or to both."""
    network = tiny_network()
    saved = network.save_pretrained(folder / "saved")
    files = {path.name: path.read_bytes() for path in Path(saved).iterdir()}
    homes = {"HF_HOME": str(folder / "home" / "hf"), "ATD_HOME": str(folder / "home" / "atd")}
    absent = dict.fromkeys(("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "ATD_HUB_REPO"))
    with (
        LoopbackHub() as hub,
        environment(HF_ENDPOINT=hub.url, **homes, **absent),
        patch.object(transfer, "PAUSES", (0.0,)),
    ):
        hub.commit("org/net", files)
        yield Case("no fault", lambda: _load(hub, None, (), network, folder, random), 60)
        while True:
            for fault in FAULTS:
                methods = random.choice([("GET",), ("HEAD",), ("GET", "HEAD")])

                def run(fault=fault, methods=methods) -> None:
                    _load(hub, fault, methods, network, folder, random)

                yield Case(f"{fault.__name__.lstrip('_')} in answer to {' and '.join(methods)}", run, 90)


def _load(
    hub: LoopbackHub, fault: Fault | None, methods: tuple[str, ...], network: atd.ATD, folder: Path, random: Random
) -> None:
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    (home / "hf").mkdir(parents=True)
    before = _outside(folder)
    hub.distort = fault and (
        lambda method, status, headers, body: (
            fault(status, headers, body, random) if method in methods else (status, headers, body)
        )
    )
    hub.resume.clear()
    begin = time.monotonic()
    try:
        loaded = atd.load("org/net")
    except atd.LoadError:
        raise
    except Exception as error:
        raise Wrong(f"{type(error).__name__} instead of a LoadError: {error}") from error
    finally:
        hub.distort = None
        if _outside(folder) != before:
            raise Wrong(f"writes outside its cache: {sorted(_outside(folder) - before)}")
        if time.monotonic() - begin > 60:
            raise Wrong("takes more than a minute")
    if not same_weights(loaded, network):
        raise Wrong("other weights than those of the repository are loaded")
    hub.distort = None
    if not same_weights(atd.load("org/net"), network):
        raise Wrong("what was put into the cache gives other weights later")


def _outside(folder: Path) -> set[str]:
    """Everything around the cache where a path that climbs out of it would end."""
    around = [folder, folder.parent, folder / "home", Path("/tmp")]
    return {str(path) for place in around for path in place.glob("*escaped*")} | {
        str(path.relative_to(folder)) for path in folder.rglob("*") if "home" not in path.relative_to(folder).parts[:1]
    }
