"""The perceptual loss against torchvision's own VGG19, with random weights: the trained ones are not in the package."""

import pytest
import torch

from atd.errors import RecipeError
from atd.training.losses import TrainingLoss
from atd.training.perceptual import PerceptualLoss
from atd.training.recipes import get

vgg = pytest.importorskip("torchvision.models.vgg")


@pytest.fixture(scope="module")
def features():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return vgg.make_layers(vgg.cfgs["E"]).requires_grad_(False)


@pytest.fixture(scope="module")
def weights(features, tmp_path_factory):
    file = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, file)
    return file


def test_it_is_the_weighted_distance_of_features_before_their_activation(features, weights):
    output, target = torch.rand(2, 2, 3, 48, 32, generator=torch.Generator().manual_seed(1)).unbind(0)
    # conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 by their numbers in torchvision.
    layer_weights = {2: 0.1, 7: 0.1, 16: 1, 25: 1, 34: 1}
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected, x, y = 0, (output - mean) / deviation, (target - mean) / deviation
    for number, layer in enumerate(features):
        # torchvision's activations work in place: on a copy, they leave what was compared alone.
        x, y = layer(x.clone()), layer(y.clone())
        if number in layer_weights:
            expected += layer_weights[number] * (x - y).abs().mean()
    loss = PerceptualLoss(weights)
    torch.testing.assert_close(loss(output, target), expected)
    assert loss(target, target) == 0
    output.requires_grad_()
    loss(output, target).backward()
    assert output.grad.abs().sum() > 0

    recipe = get("laptop_x4").override([f"perceptual_weights={weights}", "perceptual=0.5", "pixel=2"])
    both = TrainingLoss(recipe, 3, torch.device("cpu"))(output, target)
    torch.testing.assert_close(both, 2 * (output - target).abs().mean() + 0.5 * expected)


def test_missing_and_other_weights_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RecipeError, match=r"vgg19-dcbb9e9d\.pth.*perceptual_weights=FILE.*perceptual=0"):
        PerceptualLoss()
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, other)
    with pytest.raises(RecipeError, match="does not hold the weights of torchvision's VGG19"):
        PerceptualLoss(other)
    other.write_bytes(b"nothing")
    with pytest.raises(RecipeError, match="does not hold"):
        PerceptualLoss(other)
    with pytest.raises(RecipeError, match="images in colour"):
        TrainingLoss(get("401").override(["perceptual=1"]), 1, torch.device("cpu"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # the package calls torchvision in a way that is deprecated
def test_lpips_is_that_of_its_package(monkeypatch):
    """With a backbone of random weights; it is no LPIPS then, and nothing prints it as such."""
    lpips = pytest.importorskip("lpips")
    make = lpips.LPIPS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make(net="squeeze", pnet_rand=True, verbose=False).eval()
    monkeypatch.setattr(lpips, "LPIPS", lambda net, verbose: network)
    output, target = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).unbind(0)
    recipe = get("laptop_x4").override(["lpips=0.3", "lpips_net=squeeze", "pixel=1"])
    loss = TrainingLoss(recipe, 3, torch.device("cpu"))(output.requires_grad_(), target)
    expected = (output - target).abs().mean() + 0.3 * network(output, target, normalize=True).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert output.grad.abs().sum() > 0
