"""Files that appear complete or not at all."""

import pytest

from atd.system import atomic_write


def test_an_interrupted_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"previous")

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"previous"


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"content")
        assert temporary.suffix == ".png"
    assert path.read_bytes() == b"content"
