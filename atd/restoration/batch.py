"""Many files: which ones, to where, and running them with decoding and encoding beside the network."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from atd.errors import AtdError, InputError
from atd.images import READABLE_SUFFIXES, SUFFIXES, ImageData, ImageHeader, open_image, write_image
from atd.restoration.api import restore_image
from atd.restoration.foresight import FileAhead, FolderForesight, telling_long_work
from atd.restoration.options import FileOptions, RestoreOptions
from atd.restoration.plan import FilePlan, check_not_input, check_size, is_unfinished, part_of, plan_file
from atd.restoration.progress import Callback
from atd.restoration.streaming import stream_file
from atd.system import check_exists, ignores_case

logger = logging.getLogger("atd.restoration")

# Of a name that is meant as a file; folders may have dots in their names, such as results.v2.
_ENDING = re.compile(r"\.[A-Za-z]{2,5}\d?")

FORMAT_SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}
"""The ending of results by the format that was asked for."""


@dataclass(frozen=True)
class Job:
    """One file to restore and where the result goes."""

    source: Path
    target: Path
    gray_target: Path | None = None
    """Where it goes if the file turns out to be gray and another network, with another name, restores those."""
    obstacle: str | None = None
    """A sentence why it cannot be restored, where that is known before any work."""

    @property
    def targets(self) -> tuple[Path, ...]:
        """Every place where the result may go."""
        return (self.target,) if self.gray_target is None else (self.target, self.gray_target)

    def decided(self, header: ImageHeader) -> Job:
        """The job with the one target that is right for a file of this header."""
        return Job(self.source, self.gray_target if self.gray_target and header.is_gray else self.target)


def needs_network(job: Job, *, overwrite: bool) -> bool:
    """Whether there is anything to compute for a job: not where its result is there or its file cannot be read."""
    try:
        present = [target.exists() for target in job.targets]
        if job.obstacle is not None or (all(present) and not overwrite):
            return False
        if overwrite or not any(present):
            return True
        with open_image(job.source) as image:
            return not job.decided(image.header).target.exists()
    except (AtdError, OSError):  # `run_jobs` tells it
        return False


class JobResult(NamedTuple):
    """What became of a job; `error` says why it failed."""

    job: Job
    status: Literal["restored", "skipped", "failed"]
    error: BaseException | None = None


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
    gray_label: str | None = None,
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
        label: goes into the names of results: ``<stem>_<label>.<ext>``; without one ``<stem>.<ext>``.
        gray_label: the label of gray files, when another network restores them.
        format: "same" (as the input where that can be written, else png), "png", "jpg", "webp" or "tiff".
        include, exclude: shell patterns, matched with a file's name and with its path below the folder; only for the
            contents of folders.

    Returns:
        The jobs in a fixed order. Folders that cannot be read, links to nothing, what is no regular file, and inputs
        that would have the same output are jobs with an obstacle.

    Raises:
        InputError: an input does not exist or is a web address, nothing is left to restore, an output is an input, or
            its ending is that of a file that cannot be written.
    """
    for path in inputs:
        check_exists(path)
    if len(inputs) == 1 and inputs[0].is_file() and output.suffix.lower() in SUFFIXES and not output.is_dir():
        if format != "same" and SUFFIXES[output.suffix.lower()] != SUFFIXES[FORMAT_SUFFIXES[format]]:
            raise InputError(f"--format {format} contradicts the output file {output}: leave one of them out")
        check_not_input(inputs[0], output)
        return [Job(inputs[0], output)]
    if output.is_file():
        raise InputError(f"{output} is a file, but the results of several files need a folder")
    if not output.is_dir() and _ENDING.fullmatch(output.suffix):
        if output.suffix.lower() in SUFFIXES:
            raise InputError(f"{output} names an image file, but a folder and several files are restored into a folder")
        raise InputError(
            f"{output} has the ending {output.suffix}, which is none of {', '.join(SUFFIXES)}: name one of them, or "
            "make the folder first if it is meant as one"
        )
    jobs: list[Job] = []
    for path in inputs:
        if path.is_dir():
            folder, entries = path, _entries_of(path, output, recursive, include, exclude)
        else:
            folder, entries = path.parent, [_Entry(Path(path.name))]
        for file, obstacle in entries:
            gray_target = _target(file, output, gray_label, format) if gray_label else None
            jobs.append(Job(folder / file, _target(file, output, label, format), gray_target, obstacle))
    identity = _identity(output)
    results = {identity(target) for job in jobs for target in job.targets}
    for path in inputs:
        if path.is_file() and identity(path) in results:
            raise InputError(f"{path} is to be restored, and is the result of another input: name another output")
    # A second run over a folder that holds its own results must not restore those again.
    own = [job for job in dict.fromkeys(jobs) if identity(job.source) not in results]
    if jobs and not own:
        raise InputError(f"every image is the result of another one or of itself: name another output than {output}")
    if not jobs:
        raise InputError(f"no image files in {', '.join(str(path) for path in inputs)}")
    jobs = _without_shared_targets(own, identity)
    if all(job.obstacle for job in jobs):
        raise InputError(str(jobs[0].obstacle))
    return jobs


def _identity(output: Path) -> Callable[[Path], str]:
    """What two names of one file have in common: the resolved path, in small letters where `output` knows no others."""
    if ignores_case(output):
        return lambda path: str(path.resolve()).casefold()
    return lambda path: str(path.resolve())


def _without_shared_targets(jobs: Sequence[Job], identity: Callable[[Path], str]) -> list[Job]:
    """The jobs, of which those whose result would replace that of another have an obstacle."""
    sources: dict[str, list[Path]] = {}
    for job in jobs:
        if job.obstacle is None:
            sources.setdefault(identity(job.target), []).append(job.source)
    shared = {target: " and ".join(map(str, those)) for target, those in sources.items() if len(those) > 1}
    return [
        replace(
            job, obstacle=f"{shared[identity(job.target)]} would both be written to {job.target}: restore them apart"
        )
        if job.obstacle is None and identity(job.target) in shared
        else job
        for job in jobs
    ]


class _Entry(NamedTuple):
    """A file below a folder, relative to it; or what stands in the way of one."""

    file: Path
    obstacle: str | None = None


def _entries_of(
    folder: Path, output: Path, recursive: bool, include: Sequence[str], exclude: Sequence[str]
) -> list[_Entry]:
    """Image files of a folder, and what there cannot be read, in a fixed order."""

    def matches(file: Path, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(text, pattern) for text in (file.name, file.as_posix()) for pattern in patterns)

    entries: list[_Entry] = []

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        entries.append(_Entry(path.relative_to(folder), f"{path} cannot be read: {error.strerror}"))

    inside = output.resolve() if output.resolve() != folder.resolve() else None
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        if not recursive:
            folders.clear()
        for link in (Path(parent, name) for name in folders):
            if link.is_symlink():
                logger.warning("%s is a link to a folder, which is not followed: name it as an input", link)
        for path in (Path(parent, name) for name in names):
            file = path.relative_to(folder)
            if path.suffix.lower() not in READABLE_SUFFIXES or path.name.startswith("."):
                continue
            if inside is not None and path.resolve().is_relative_to(inside):
                continue
            if (not include or matches(file, include)) and not matches(file, exclude):
                entries.append(_Entry(file, _obstacle_of(path)))
    return sorted(entries)


def _obstacle_of(path: Path) -> str | None:
    """Why an entry of a folder cannot be opened as a file; None where it can."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path} is a link to a file that does not exist"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else f"{path} is not a regular file"


def _target(file: Path, output: Path, label: str, format: str) -> Path:
    if format == "same":
        suffix = file.suffix if file.suffix.lower() in SUFFIXES else ".png"
    else:
        suffix = FORMAT_SUFFIXES[format]
    name = f"{file.stem}_{label}" if label else file.stem
    return output / file.parent / f"{name}{suffix}"


class _Prepared(NamedTuple):
    """A job whose file has been looked at; `plan` is None where the result is there already."""

    job: Job
    plan: FilePlan | None
    decoded: ImageData | None = None
    """None where the file is streamed."""


def run_jobs(
    jobs: Iterable[Job],
    network_for: Callable[[ImageHeader], nn.Module],
    options: RestoreOptions,
    files: FileOptions,
    *,
    scale: int,
    progress: Callable[[int, Job], AbstractContextManager[Callback | None]],
    overwrite: bool = False,
    workers: int = 1,
) -> Iterator[JobResult]:
    """Restore files, decoding and encoding on threads beside the network, which runs here; yield results as they come.

    An exception concerns its file only. An existing target is skipped unless `overwrite`; so is an unfinished one an
    error unless `overwrite` or ``files.resume``. At most `workers` images wait before the network and as many behind
    it, which bounds the memory.

    Args:
        network_for: the network for a file of this header.
        scale: of all those networks.
        progress: gives the callback for a job and its number, from 1 on, for as long as the job runs.

    Raises:
        InputError: `workers` is less than one.
    """
    if workers < 1:
        raise InputError(f"expected workers >= 1, got {workers}")
    pending = deque(enumerate(jobs, start=1))
    preparing: deque[tuple[int, Job, Future[_Prepared]]] = deque()
    encoding: deque[tuple[Job, Future[None]]] = deque()
    foresight = FolderForesight()
    look = partial(_file_ahead, eight_bit=files.eight_bit, overwrite=overwrite, max_pixels=options.max_pixels)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="atd-image")
    try:
        while pending or preparing or encoding:
            while pending and len(preparing) < workers:
                number, job = pending.popleft()
                if job.obstacle is not None:
                    yield JobResult(job, "failed", InputError(job.obstacle))
                    continue
                try:
                    is_done = not overwrite and all(target.exists() for target in job.targets)
                except OSError as error:  # a name too long for the disk, a folder that may not be looked into
                    yield JobResult(job, "failed", error)
                    continue
                if is_done:
                    yield JobResult(Job(job.source, job.target), "skipped")
                else:
                    preparing.append((number, job, pool.submit(_prepare, job, files, scale, options, overwrite)))
            if len(encoding) >= workers or not preparing:
                if encoding:
                    yield _finished(*encoding.popleft())
                continue
            number, job, future = preparing.popleft()
            try:
                job, plan, decoded = future.result()
                if plan is None:
                    yield JobResult(job, "skipped")
                    continue
                with progress(number, job) as callback:
                    callback = telling_long_work(job.source, plan.header, callback)
                    restored = _restore(network_for(plan.header), plan, decoded, options, callback)
            except Exception as error:
                yield JobResult(job, "failed", error)
                continue
            foresight.restored(plan.header, lambda: [partial(look, job) for _, job, *_ in (*preparing, *pending)])
            # Held no longer than needed: the next image is being decoded already.
            del decoded, future
            if restored is None:
                yield JobResult(job, "restored")
            else:
                encoding.append((job, pool.submit(_encode, plan, restored)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _file_ahead(job: Job, *, eight_bit: bool, overwrite: bool, max_pixels: int | None) -> FileAhead:
    """The size of a job's file; none where there will be nothing to compute."""
    try:
        if job.obstacle is None and (overwrite or not all(target.exists() for target in job.targets)):
            with open_image(job.source, eight_bit=eight_bit) as image:
                check_size(image, max_pixels)
                return FileAhead(job.source, *image.header.shape[:2])
    except (AtdError, OSError):  # it is told when it is its turn
        pass
    return FileAhead(job.source, 0, 0)


def _prepare(job: Job, files: FileOptions, scale: int, options: RestoreOptions, overwrite: bool) -> _Prepared:
    """Open a file once: where its result goes, how it is restored, and its pixels unless it is streamed."""
    with open_image(job.source, eight_bit=files.eight_bit) as image:
        job = job.decided(image.header)
        if job.target.exists() and not overwrite:
            return _Prepared(job, None)
        if is_unfinished(job.target) and not (files.resume or overwrite):
            raise InputError(
                f"{part_of(job.target)} is an unfinished result: --resume goes on with it, --overwrite begins anew"
            )
        plan = plan_file(image, job.target, scale, options.outscale, files, max_pixels=options.max_pixels)
        return _Prepared(job, plan, None if plan.stream else image.decode())


def _restore(
    network: nn.Module, plan: FilePlan, decoded: ImageData | None, options: RestoreOptions, callback: Callback | None
) -> ImageData | None:
    """The restored image; None where it has been streamed to its file already."""
    if decoded is not None:
        return restore_image(network, decoded, options, callback)
    plan.target.parent.mkdir(parents=True, exist_ok=True)
    stream_file(network, plan, options, callback)
    return None


def _encode(plan: FilePlan, restored: ImageData) -> None:
    plan.target.parent.mkdir(parents=True, exist_ok=True)
    write_image(plan.target, restored, plan.options.save)


def _finished(job: Job, future: Future[None]) -> JobResult:
    error = future.exception()
    return JobResult(job, "restored") if error is None else JobResult(job, "failed", error)
