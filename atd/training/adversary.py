"""The other side of an adversarial training: a discriminator, its optimiser, and their state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atd.training import distributed, optim
from atd.training.discriminator import AdversarialLoss, UNetDiscriminator, discriminator_loss, generator_loss
from atd.training.distributed import Processes
from atd.training.precision import autocast
from atd.training.recipes import Recipe


class Adversary:
    """The discriminator that a recipe with `adversarial` trains beside its network.

    Args:
        recipe: the training.
        channels: of the images.
        processes: all processes of the training; gradients are averaged over them.
    """

    def __init__(self, recipe: Recipe, channels: int, processes: Processes) -> None:
        self.recipe = recipe
        self.device = processes.device
        self.kind: AdversarialLoss = "hinge" if recipe.adversarial_loss == "hinge" else "vanilla"
        self.discriminator = UNetDiscriminator(channels, recipe.discriminator_channels).to(self.device).train()
        several = processes.count > 1
        self.network = distributed.replicate(self.discriminator, self.device) if several else self.discriminator
        self.optimiser = optim.adam(self.discriminator, recipe.discriminator_lr, recipe.betas)

    def loss_of_generator(self, output: Tensor) -> Tensor:
        """What the network loses because its `output` does not look real; the discriminator learns nothing by it."""
        self.discriminator.requires_grad_(False)
        with autocast(self.recipe, self.device):
            logits = self.discriminator(output)
        return generator_loss(logits.float(), self.kind)

    def learn(self, parts: Sequence[tuple[Tensor, Tensor]], scaler: torch.amp.GradScaler, factor: float) -> Tensor:
        """One step of the discriminator.

        Args:
            parts: the batch in parts, outputs of the network, without their graph, and real images.
            scaler: of the gradients; its own update is left to the caller.
            factor: on the learning rate.

        Returns:
            Its loss, a scalar.
        """
        self.discriminator.requires_grad_(True)
        optim.set_rate(self.optimiser, factor)
        count = sum(len(fake) for fake, _ in parts)
        total = torch.zeros((), device=self.device)
        for number, (fake, real) in enumerate(parts, 1):
            with distributed.without_synchronisation(self.network, last=number == len(parts)):
                with autocast(self.recipe, self.device):
                    logits = self.network(torch.cat((real, fake)))
                of_real, of_fake = logits.float().chunk(2)
                loss = discriminator_loss(of_real, of_fake, self.kind) * (len(fake) / count)
                scaler.scale(loss).backward()  # pyright: ignore[reportUnknownMemberType]  (torch leaves it untyped)
            total += loss.detach()
        scaler.step(self.optimiser)
        self.optimiser.zero_grad()
        return total

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs: weights, the vectors of the spectral norm, the optimiser's averages."""
        weights = optim.full((f"network.{name}", tensor) for name, tensor in self.discriminator.state_dict().items())
        optimiser = optim.state_of(self.discriminator, self.optimiser)
        return weights | {f"optimiser.{name}": tensor for name, tensor in optimiser.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        self.discriminator.load_state_dict(parts["network"])
        optim.load_state(self.discriminator, self.optimiser, parts["optimiser"])
