"""Many files: which ones, to where, and running them with decoding and encoding beside the network."""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from atd.images.files import SUFFIXES

READABLE_SUFFIXES = (*SUFFIXES, ".gif", ".ppm", ".pgm", ".pnm")
"""Endings of the files that are taken from a folder; a file named itself may have any."""
FORMAT_SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


@dataclass(frozen=True)
class Job:
    """One file to restore and where the result goes."""

    source: Path
    target: Path


class Outcome(NamedTuple):
    """What became of a job; `message` says why it failed."""

    job: Job
    status: Literal["restored", "skipped", "failed"]
    message: str = ""


def label_of(model: str) -> str:
    """What results are named after: a registry name, or the name of a weights file or folder."""
    path = Path(model)
    if path.is_file():
        return path.stem
    return path.resolve().name if path.is_dir() else model.split("@")[0].replace("/", "_")


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    *,
    label: str,
    format: str = "same",
    recursive: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Job]:
    """Pair every input file with its output.

    Args:
        inputs: files and folders. A folder gives the image files in it; with `recursive` also those below, and the
            tree is mirrored under `output`.
        output: a file when there is one input file and the ending names a format; else a folder.
        label: goes into the names: ``<stem>_<label>.<ext>``.
        format: "same" (as the input where that can be written, else png), "png", "jpg", "webp" or "tiff".
        include, exclude: shell patterns, matched with a file's name and with its path below the folder; only for the
            contents of folders.

    Raises:
        ValueError: an input does not exist, nothing is left, or two inputs would have the same output.
    """
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path} does not exist")
    if len(inputs) == 1 and inputs[0].is_file() and output.suffix.lower() in SUFFIXES and not output.is_dir():
        if format != "same" and SUFFIXES[output.suffix.lower()] != SUFFIXES[FORMAT_SUFFIXES[format]]:
            raise ValueError(f"--format {format} contradicts the output file {output}: leave one of them out")
        return [Job(inputs[0], output)]
    if output.is_file():
        raise ValueError(f"{output} is a file, but the results of several files need a folder")
    jobs: list[Job] = []
    for path in inputs:
        if path.is_dir():
            files = _files_of(path, output, recursive, include, exclude)
            jobs += [Job(path / file, _target(file, output, label, format)) for file in files]
        else:
            jobs.append(Job(path, _target(Path(path.name), output, label, format)))
    # A second run over a folder that holds its own results must not restore those again.
    results = {job.target.resolve() for job in jobs}
    jobs = [job for job in dict.fromkeys(jobs) if job.source.resolve() not in results]
    if not jobs:
        raise ValueError(f"no image files in {', '.join(str(path) for path in inputs)}")
    origin: dict[Path, Path] = {}
    for job in jobs:
        other = origin.setdefault(job.target, job.source)
        if other != job.source:
            raise ValueError(f"{other} and {job.source} would both be written to {job.target}: restore them apart")
    return jobs


def _files_of(
    folder: Path, output: Path, recursive: bool, include: Sequence[str], exclude: Sequence[str]
) -> list[Path]:
    """Image files of a folder, relative to it, in a fixed order."""

    def matches(file: Path, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(text, pattern) for text in (file.name, file.as_posix()) for pattern in patterns)

    inside = output.resolve() if output.resolve() != folder.resolve() else None
    found = []
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        file = path.relative_to(folder)
        if path.suffix.lower() not in READABLE_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if inside is not None and path.resolve().is_relative_to(inside):
            continue
        if (not include or matches(file, include)) and not matches(file, exclude):
            found.append(file)
    return found


def _target(file: Path, output: Path, label: str, format: str) -> Path:
    if format == "same":
        suffix = file.suffix if file.suffix.lower() in SUFFIXES else ".png"
    else:
        suffix = FORMAT_SUFFIXES[format]
    return output / file.parent / f"{file.stem}_{label}{suffix}"


def run_jobs(
    jobs: Iterable[Job],
    *,
    decode: Callable[[Job], Any],
    restore: Callable[[Job, Any], Any],
    encode: Callable[[Job, Any], object],
    overwrite: bool = False,
    workers: int = 1,
) -> Iterator[Outcome]:
    """Run `decode` and `encode` on threads beside `restore`, which runs here; yield outcomes as they become known.

    An exception concerns its file only. An existing target is skipped unless `overwrite`. At most `workers` pictures
    wait before the network and as many behind it, which bounds the memory.
    """
    if workers < 1:
        raise ValueError(f"expected jobs >= 1, got {workers}")
    pending = deque(jobs)
    decoding: deque[tuple[Job, Future[Any]]] = deque()
    encoding: deque[tuple[Job, Future[object]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="atd-image")
    try:
        while pending or decoding or encoding:
            while pending and len(decoding) < workers:
                job = pending.popleft()
                if job.target.exists() and not overwrite:
                    yield Outcome(job, "skipped")
                else:
                    decoding.append((job, pool.submit(decode, job)))
            if len(encoding) >= workers or not decoding:
                if encoding:
                    yield _finished(*encoding.popleft())
                continue
            job, picture = decoding.popleft()
            try:
                restored = restore(job, picture.result())
            except Exception as error:
                yield Outcome(job, "failed", describe(error))
            else:
                encoding.append((job, pool.submit(encode, job, restored)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(job: Job, future: Future[object]) -> Outcome:
    error = future.exception()
    return Outcome(job, "restored") if error is None else Outcome(job, "failed", describe(error))


def describe(error: BaseException) -> str:
    """One line for the user; the type is named where the error was not written for one."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError | MemoryError) and text else f"{type(error).__name__}: {text}"
