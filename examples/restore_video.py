"""Restore a video frame by frame through ffmpeg pipes; the sound is copied, frame count and rate stay.

    python examples/restore_video.py clip.mp4 large.mp4 --model atd_light_sr_x4 --weights bundled

Needs ``pip install imageio-ffmpeg``, which brings an ffmpeg. The picture is encoded anew, as H.264 with --crf.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np

import atd


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="atd_light_sr_x4", help="a name of `atd list`, a file or a folder")
    parser.add_argument("--weights", default="official")
    parser.add_argument("--device", default=None)
    parser.add_argument("--crf", type=int, default=16, help="quality of H.264: 0 is lossless, 23 is small")
    args = parser.parse_args(arguments)
    model = atd.load(args.model, weights=args.weights, device=args.device)
    count = restore_video(model, args.input, args.output, crf=args.crf)
    print(f"{count} frames written to {args.output}")
    return 0


def restore_video(model, source: Path, target: Path, *, crf: int = 16) -> int:
    """Write `source` restored by `model` to `target`, which appears when it is complete; returns the frame count."""
    frames = read_frames(source)
    description = next(frames)
    assert isinstance(description, dict)
    unfinished = target.with_name(f".{target.stem}.unfinished{target.suffix}")
    writer, count = None, 0
    try:
        for frame in frames:
            assert isinstance(frame, np.ndarray)
            result = atd.restore(model, frame)
            if writer is None:
                writer = open_writer(unfinished, source, result.shape[1], result.shape[0], description["fps"], crf)
            assert writer.stdin is not None
            writer.stdin.write(np.ascontiguousarray(result).tobytes())
            count += 1
            print(f"\rframe {count}", end="", file=sys.stderr)
        if writer is None:
            raise ValueError(f"{source} holds no frames")
        _, messages = writer.communicate()
        if writer.returncode:
            raise OSError(f"ffmpeg could not write {target}: {messages.decode(errors='replace').strip()[-300:]}")
        unfinished.replace(target)
    finally:
        if writer is not None and writer.poll() is None:
            writer.kill()
            writer.wait()
        unfinished.unlink(missing_ok=True)
    return count


def read_frames(source: Path) -> Iterator[dict | np.ndarray]:
    """First a description with "fps" and "size", then every frame once as an (h, w, 3) uint8 array."""
    # Without this, ffmpeg repeats or drops frames of videos whose timestamps are not evenly spaced.
    reader = imageio_ffmpeg.read_frames(str(source), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"])
    description = next(reader)
    yield description
    width, height = description["size"]
    for frame in reader:
        yield np.frombuffer(frame, np.uint8).reshape(height, width, 3).copy()


def open_writer(target: Path, sound: Path, width: int, height: int, fps: float, crf: int) -> subprocess.Popen:
    """An ffmpeg that encodes raw RGB frames from its standard input and copies the sound of `sound`."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "-"]
    command += ["-i", str(sound), "-map", "0:v:0", "-map", "1:a?", "-c:a", "copy"]
    # The usual 4:2:0 needs even sides.
    pixels = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
    command += ["-c:v", "libx264", "-crf", str(crf), "-pix_fmt", pixels, str(target)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


if __name__ == "__main__":
    sys.exit(main())
