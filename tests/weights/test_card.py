"""The model card of official weights."""

import pytest
import torch

import atd
from atd.weights.card import model_card


@pytest.mark.parametrize(
    ("name", "heading", "row"),
    [
        ("atd_light_sr_x4", "SSIM on Y:", "| Urban100 | 27.04 | 0.8127 |"),
        ("atd_u_color_dn25", "SSIM on RGB:", "| McMaster | 33.47 | – |"),
        ("atd_u_gray_jpeg10", "SSIM on gray:", "| classic5 | 30.34 | 0.8264 |"),
    ],
)
def test_published_scores_are_in_the_card_of_official_weights(name, heading, row):
    """Denoising is published without SSIM, which is no reason to fail."""
    with torch.device("meta"):
        model = atd.create(name)
    lines = model_card(model, "their Google Drive").splitlines()
    assert f"Published PSNR (dB) / {heading}" in lines
    assert row in lines
    assert "Published" not in model_card(model)
