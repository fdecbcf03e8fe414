"""examples/restore_video.py on a generated clip with sound: frames, rate and sound of the result, read by ffmpeg."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from restoration_networks import Nearest

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
EXAMPLE = Path(__file__).parents[2] / "examples" / "restore_video.py"
FRAMES, RATE, WIDTH, HEIGHT = 13, 12.5, 48, 32


def load_example():
    spec = importlib.util.spec_from_file_location("restore_video", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ffmpeg(*arguments):
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *arguments], capture_output=True, check=False, timeout=60)


def sound_of(path):
    return ffmpeg("-loglevel", "error", "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "data", "-").stdout


def frames_of(path, width, height):
    raw = ffmpeg("-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    done = ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate={RATE}", "-f", "lavfi", "-i", "sine=frequency=440"),
        *("-frames:v", str(FRAMES), "-t", str(FRAMES / RATE), "-c:v", "libx264", "-crf", "4", "-c:a", "aac", str(path)),
    )
    assert path.exists(), done.stderr
    return path


def test_frames_rate_and_sound_are_kept(clip, tmp_path):
    target = tmp_path / "large.mp4"
    assert load_example().restore_video(Nearest(scale=2), clip, target, crf=4) == FRAMES
    before, after = frames_of(clip, WIDTH, HEIGHT), frames_of(target, WIDTH * 2, HEIGHT * 2)
    assert len(after) == len(before) == FRAMES
    expected = before.repeat(2, 1).repeat(2, 2).astype(int)
    assert np.abs(after - expected).mean() < 6
    rate = re.search(r"([\d.]+) fps", ffmpeg("-i", str(target)).stderr.decode())
    assert rate is not None
    assert float(rate[1]) == pytest.approx(RATE)
    assert len(sound_of(clip)) > 1000
    assert sound_of(target) == sound_of(clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "large.mp4"]


def test_a_clip_without_sound_and_an_error_in_the_middle(clip, tmp_path):
    silent, target = tmp_path / "silent.mp4", tmp_path / "out.mp4"
    ffmpeg("-i", str(clip), "-an", "-c:v", "copy", str(silent))
    example = load_example()
    assert example.restore_video(Nearest(scale=1), silent, target) == FRAMES
    target.unlink()

    class Failing(Nearest):
        def forward(self, x):
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        example.restore_video(Failing(scale=2), silent, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "silent.mp4"]
