"""Optimiser on one weight vector: Muon (Jordan et al. 2024) for the encoder's matrices, AdamW for the rest.

The same updates as `torch.optim.Muon` (rate matched to AdamW's update size) and `torch.optim.AdamW`, with all
matrices of one shape orthogonalised in one batched product, and with an exponential moving average (EMA) of
the weights.
"""

import torch

MOMENTUM, WEIGHT_DECAY = 0.95, 0.01
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
BETAS, EPS = (0.9, 0.98), 1e-8


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Quintic Newton-Schulz steps in bfloat16: all singular values of matrices [..., R, C] come near one."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT.bfloat16() if tall else matrices.bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimizer:
    """Its state are vectors as long as the weights: momentum, AdamW's second moment, averaged weights."""

    def __init__(self, layout, weights_P: torch.Tensor, decay: float):
        self.layout, self.weights, self.decay, self.step_count = layout, weights_P, decay, 0
        self.momentum, self.square = torch.zeros_like(weights_P), torch.zeros_like(weights_P)
        self.average = weights_P.clone()
        self.matrices = [name for name, part in layout.parts.items() if part.muon]
        self.first_other = sum(size for size, part in zip(layout.sizes, layout.parts.values()) if part.muon)

    @torch.no_grad()
    def step(self, gradient_P: torch.Tensor, rate: float):
        """One update. `rate` is Muon's; AdamW's part learns at half of it."""
        self.step_count += 1
        first = self.first_other
        weights, momenta, gradients = (
            self.layout.split(v) for v in (self.weights, self.momentum, gradient_P)
        )
        for name in self.matrices:
            momenta[name].lerp_(gradients[name], 1 - MOMENTUM)
            update = orthogonalise(gradients[name].lerp(momenta[name], MOMENTUM)).float()
            scale = 0.2 * max(update.shape[-2:]) ** 0.5
            weights[name].mul_(1 - rate * WEIGHT_DECAY).sub_(update, alpha=rate * scale)
        other, mean, square = gradient_P[first:], self.momentum[first:], self.square[first:]
        mean.lerp_(other, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(other, other, value=1 - BETAS[1])
        scale = (square / (1 - BETAS[1] ** self.step_count)).sqrt_().add_(EPS)
        self.weights[first:].addcdiv_(mean, scale, value=-rate / 2 / (1 - BETAS[0] ** self.step_count))
        decay = min(self.decay, self.step_count / (self.step_count + 10))  # the first weights soon go
        self.average.lerp_(self.weights, 1 - decay)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, the weights included."""
        return {name: getattr(self, name) for name in ("weights", "average", "momentum", "square")}

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor], step_count: int):
        for name, value in self.state().items():
            value.copy_(state[name])
        self.step_count = step_count
