"""The seven architectures: what each one's activation function, error and penalty are. `KINDS` is the table.

``relu-l1``
    The paper's (Kim & Nam 2025, arXiv:2510.02734): f = ReLU(W_e x + b), x^ = W_d f + c, untied, no norm
    constraint; loss = ||x - x^||^2 + lambda ||f||_1, the squared error summed over dimensions as written.
``relu-l1-mean``
    The same with the squared error averaged over dimensions, as most code has it: lambda then weighs D times
    more. Which of the two the paper used is not known.
``relu-l1-matched``
    ``relu-l1`` with the lambda at which K latents are active in the mean, like in a topk, found while it is
    trained: after every batch lambda grows by (L0 / K) ^ `MATCHING`.
``topk``
    Gao et al. 2024 (arXiv:2406.04093): f = TopK(ReLU(W_e (x - c) + b)), unit-norm decoder rows, and an
    auxiliary loss by which dead latents learn to reconstruct what is left over (AuxK, coefficient 1/32).
``batchtopk``
    Bussmann et al. 2024 (arXiv:2412.06410): the same, but the B K largest activations of a whole batch are
    kept; outside of training those above a threshold, the running mean of the smallest activation kept.
``matryoshka``
    Bussmann et al. 2025 (arXiv:2503.17547): BatchTopK whose loss is the sum of the errors of nested
    dictionaries, the first 1/16, 1/8, 1/4, 1/2 and all of the latents, so that early latents stay general.
``jumprelu``
    Rajamanoharan et al. 2024 (arXiv:2407.14435): f = z H(z - theta) with a learnt threshold per latent; loss
    = squared error + lambda L0, with straight-through gradients. Their units have E||x||^2 = 1: here the
    error is averaged over dimensions, and their bandwidth and first threshold of 0.001 are 0.001 sqrt(D).

Shapes: M members of a stack, B tokens, D width, F latents, N dead latents.
"""

from typing import Literal, NamedTuple

import torch

AUXK_COEFFICIENT = 1 / 32
FIRST_WEIGHT, MATCHING = 0.1, 0.02  # of relu-l1-matched: first lambda, and how fast it follows
BANDWIDTH = 1e-3  # of JumpReLU's straight-through gradients, and its first threshold, if E||x||^2 = 1


class Kind(NamedTuple):
    """What sets one architecture apart."""

    activation: Literal["relu", "topk", "batchtopk", "jumprelu"]
    penalty: Literal["l1", "l0", "auxk"]
    mean_error: bool = False  # squared error averaged over dimensions instead of summed
    nested: bool = False  # Matryoshka's sum of errors over nested dictionaries
    matched: bool = False  # lambda is the one that leaves K latents active

    @property
    def counted(self) -> bool:
        """Whether a member's sparsity is its number of active latents, K."""
        return self.penalty == "auxk" or self.matched

    @property
    def centred(self) -> bool:
        """Whether the decoder's bias is subtracted before encoding."""
        return self.penalty == "auxk"

    @property
    def unit_norm(self) -> bool:
        """Whether decoder rows have norm 1 (and the encoder starts as the decoder's transpose)."""
        return self.penalty != "l1"


KINDS = {
    "topk": Kind("topk", "auxk"),
    "relu-l1": Kind("relu", "l1"),
    "relu-l1-mean": Kind("relu", "l1", mean_error=True),
    "relu-l1-matched": Kind("relu", "l1", matched=True),
    "batchtopk": Kind("batchtopk", "auxk"),
    "matryoshka": Kind("batchtopk", "auxk", nested=True),
    "jumprelu": Kind("jumprelu", "l0", mean_error=True),
}


def top_k(positive: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest numbers along the last dimension with zeros elsewhere, and the k numbers themselves."""
    values, chosen = positive.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(positive).scatter(-1, chosen, values), values


def auxk_penalty(centred_BD, residual_BD, encoder_ND, bias_N, decoder_ND) -> torch.Tensor:
    """AuxK (Gao et al. 2024, appendix A.2) of one member, from its N dead latents alone: 1/32 of the squared
    error, per token, of the residual as the D/2 strongest of them reconstruct it."""
    positive = torch.addmm(bias_N, centred_BD, encoder_ND.T).relu()
    guess = top_k(positive, min(centred_BD.shape[1] // 2, len(bias_N)))[0] @ decoder_ND
    return AUXK_COEFFICIENT * (residual_BD - guess).square().sum(-1).mean()


class Jump(torch.autograd.Function):
    """z H(z - theta), or H(z - theta), whose sum is L0, if not `scaled`: z has no gradient then.

    Theta's gradient is taken in a window around it (Rajamanoharan et al. 2024, eq. 11 and 12).
    """

    @staticmethod
    def forward(ctx, z, threshold, bandwidth, scaled):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth, ctx.scaled = bandwidth, scaled
        return z * (z > threshold) if scaled else (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        height = threshold if ctx.scaled else torch.ones_like(threshold)
        slope = (-height / ctx.bandwidth * near * gradient).sum(1, keepdim=True)
        return gradient * (z > threshold) if ctx.scaled else None, slope.to(threshold.dtype), None, None
