"""Networks that somebody derives from ours."""

import inspect

import pytest
import torch

import atd
from atd.errors import LoadError


class Wide(atd.ATD):
    """A constructor of its own, with fewer arguments than its base and one that the base does not know."""

    def __init__(self, width: int = 16, levels: tuple[int, ...] = (2,), **keywords: object) -> None:
        small = {"num_heads": [2] * len(levels), "window_size": 8, "num_tokens": 8, "reducted_dim": 4, "dim_ffn_td": 4}
        super().__init__(embed_dim=width, depths=levels, **{**small, "category_size": 16, **keywords})
        self.levels = levels


class Renamed(Wide):
    """No constructor of its own."""


@pytest.mark.parametrize("cls", [Wide, Renamed])
def test_a_subclass_keeps_its_own_arguments_and_can_be_made_again(cls):
    model = cls(24, levels=(1, 2), upscale=2)
    assert model.config == {"width": 24, "levels": [1, 2], "upscale": 2}
    again = type(model)(**model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict(), strict=True)
    image = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        assert torch.equal(again(image), model(image))


def test_a_subclass_is_saved_and_loaded_by_its_class(tmp_path):
    model = Wide(upscale=2).eval()
    model.save_pretrained(tmp_path)
    loaded = Wide.from_pretrained(tmp_path)
    assert type(loaded) is Wide
    assert loaded.config == model.config
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))
    with pytest.raises(LoadError, match="asks for the architecture 'Wide'; expected ATD, "):
        atd.load(tmp_path)


def test_constructors_are_ordinary_ones():
    """Signatures are those that were written, and a missing argument is Python's own TypeError."""
    assert list(inspect.signature(Wide).parameters) == ["width", "levels", "keywords"]
    assert list(inspect.signature(atd.ATD).parameters)[:3] == ["img_size", "in_chans", "embed_dim"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        atd.ATD(width=3)
    with pytest.raises(ValueError, match="num_heads"):
        Wide(width=15)
