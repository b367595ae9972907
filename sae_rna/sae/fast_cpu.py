"""Training steps on a CPU, derived by hand: what `Trainer.automatic_gradients` finds, several times faster.

`BY_HAND` says which architectures have one. With K active latents only the encoder needs a dense matrix
product; the rest is done by `kernels`. A ReLU's step is dense, but reuses its memory. Shapes: B tokens, D
width, F latents, N active ones of the whole batch.
"""

import math

import numpy as np
import torch

from sae_rna.sae import kernels
from sae_rna.sae.architectures import auxk_penalty
from sae_rna.sae.autoencoder import Gradients, SparseAutoencoders
from sae_rna.sae.kernels import as_array

TOKENS_AT_ONCE = 2048  # in the encoder's product of a sparse step, which bounds its memory


class Workspace(dict):
    """Memory that all members' steps use in turn: asking for 100 MB costs as much as filling them."""

    def __call__(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        if (name, shape, kind) not in self:
            self[name, shape, kind] = torch.empty(shape, dtype=kind)
        return self[name, shape, kind]


class _Step:
    """A step of one member: `weights` are its parameters by rows, `copies` the two matrices in bfloat16."""

    def __init__(self, sae: SparseAutoencoders, weights: dict, copies: dict, workspace: Workspace):
        self.sae, self.weights, self.space, self.halved = sae, weights, workspace, bool(copies)
        self.config, self.sparsity = sae.config, sae.config.members[0].sparsity
        names = "encoder_weight", "decoder_weight"
        self.encoder, self.decoder = (copies.get(name, weights[name]) for name in names)  # [F, D]


class ReluStep(_Step):
    """The dense step of relu-l1, relu-l1-mean and relu-l1-matched."""

    @torch.no_grad()
    def __call__(self, x_BD: torch.Tensor, _) -> Gradients:
        shape, kind, tokens, latents = self.encoder.shape, self.encoder.dtype, len(x_BD), self.config.latents
        weight = 2 / (tokens * (self.config.width if self.config.kind.mean_error else 1))
        x = x_BD.to(kind)
        features, slopes = (self.space(name, (tokens, latents), kind) for name in ("codes", "slopes"))
        bias = self.weights["encoder_bias"][:, 0].to(kind)
        torch.addmm(bias, x, self.encoder.T, out=features).relu_()
        residual = (features @ self.decoder).float() + self.weights["decoder_bias"] - x_BD
        error = residual.square().sum().item() * weight / 2
        scaled = (residual * weight).to(kind)
        decoder_bias = (residual.sum(0) * weight)[None]
        gradients = {"encoder_bias": torch.empty(latents, 1), "decoder_bias": decoder_bias}
        gradients["decoder_weight"] = torch.mm(features.T, scaled, out=self.space("decoder", shape, kind))
        torch.mm(scaled, self.decoder.T, out=slopes)
        fired_F, activity_F = torch.empty(latents, dtype=torch.int32), np.empty(latents, np.float32)
        penalty_weight = self.sae.penalty_weight(0)
        l1_slope = np.float32(penalty_weight / tokens)
        sums = as_array(gradients["encoder_bias"])[:, 0], fired_F.numpy(), activity_F
        kernels.relu_slopes(as_array(features), as_array(slopes), l1_slope, *sums)
        penalty = float(penalty_weight * activity_F.sum(dtype=np.float64) / tokens)
        self.sae.observe_l0(0, fired_F.sum().item() / tokens)
        gradients["encoder_weight"] = torch.mm(slopes.T, x, out=self.space("encoder", shape, kind))
        return Gradients(error, penalty, fired_F, gradients, _norm(gradients), None, residual)


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    """Euclidean norm of all gradients of one member together."""
    total = 0.0
    for gradient in gradients.values():
        squares = np.empty(len(gradient), np.float32)
        kernels.squared_norms(as_array(gradient), squares)
        total += squares.sum(dtype=np.float64)
    return math.sqrt(total)


class SparseStep(_Step):
    """The step of topk, batchtopk and matryoshka, which touches only latents that fired or are dead."""

    @torch.no_grad()
    def __call__(self, x_BD: torch.Tensor, dead_F: torch.Tensor) -> Gradients:
        kind, tokens, prefixes = self.encoder.dtype, len(x_BD), np.array(self.config.prefixes)
        bias = self.weights["decoder_bias"][0]
        centred = self.space("centred", x_BD.shape, kind).copy_(x_BD - bias)
        start, indices, values = self._codes(centred)
        residual = self.space("residual", (len(prefixes), *x_BD.shape), kind)
        slopes, errors = np.empty(len(indices), np.float32), np.empty((len(prefixes), tokens), np.float32)
        scale = np.float32(2 / tokens)
        kernels.residuals(
            x_BD.numpy(), as_array(bias), as_array(self.decoder), start, indices, values, prefixes, scale,
            as_array(residual), slopes, errors,
        )  # fmt: skip
        first, token, place = kernels.by_latent(start, indices, self.config.latents)
        fired_F = torch.from_numpy(np.diff(first))
        error, penalty = float(errors.sum(dtype=np.float64) / tokens), 0.0
        if not math.isfinite(error):
            return Gradients(error, penalty, fired_F)
        gradients = {n: self.space(n, weight.shape, torch.float32) for n, weight in self.weights.items()}
        squares = np.empty(self.config.latents, np.float32)
        kernels.gradients(
            as_array(centred), as_array(residual), first, token, values[place], slopes[place], prefixes,
            as_array(gradients["encoder_weight"]), as_array(gradients["decoder_weight"]),
            as_array(gradients["encoder_bias"])[:, 0], squares,
        )  # fmt: skip
        # The decoder's bias enters twice: it is added to every reconstruction and subtracted before encoding.
        encoder_slope = self.weights["encoder_weight"].T @ gradients["encoder_bias"][:, 0]
        gradients["decoder_bias"][0] = residual[0].sum(0, dtype=torch.float32) - encoder_slope
        touched_F = fired_F > 0
        if dead_F.any():
            dead_N = dead_F.nonzero().squeeze(1)
            penalty = self._add_auxk(x_BD, residual[-1] / -scale, dead_N, touched_F, gradients, squares)
            touched_F |= dead_F
        bias_square = gradients["decoder_bias"].double().square().sum().item()
        norm = math.sqrt(squares.sum(dtype=np.float64) + bias_square)
        return Gradients(error, penalty, fired_F, gradients, norm, touched_F, residual[-1], scale)

    def _codes(self, centred_BD: torch.Tensor) -> tuple[np.ndarray, ...]:
        """Active latents of the batch in CSR form, from products of some thousand tokens at a time."""
        bias, k = self.weights["encoder_bias"][:, 0].to(centred_BD.dtype), int(self.sparsity)
        whole_batch, parts = self.config.kind.activation == "batchtopk", []
        for chunk in centred_BD.split(len(centred_BD) if whole_batch else TOKENS_AT_ONCE):
            product = self.space("codes", (len(chunk), self.config.latents), chunk.dtype)
            bits = kernels.as_bits(torch.addmm(bias, chunk, self.encoder.T, out=product))
            if whole_batch:
                codes = kernels.batch_top_k(bits, k * len(chunk), 0.8 * self.sae.threshold.item())
                if len(codes[2]):
                    self.sae.observe_threshold(0, float(codes[2].min()))
                return codes
            parts.append(kernels.top_k(bits, k))
        return kernels.to_csr(*(np.concatenate(part) for part in zip(*parts)))

    @torch.enable_grad()
    def _add_auxk(self, x_BD, residual_BD, dead_N, touched_F, gradients, squares) -> float:
        """Add the auxiliary loss of the dead latents to the gradients in place; returns the loss."""
        names = "encoder_weight", "encoder_bias", "decoder_weight"
        leaves = [self.weights[name][dead_N].requires_grad_() for name in names]
        bias = self.weights["decoder_bias"].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.halved):
            loss = auxk_penalty(x_BD - bias, residual_BD, leaves[0], leaves[1][:, 0], leaves[2])
        *slopes, bias_slope = torch.autograd.grad(loss, [*leaves, bias])
        resting = ~touched_F[dead_N][:, None]  # rows that fired after all have a gradient to add to
        total = 0
        for name, slope in zip(names, slopes):
            added = slope + torch.where(resting, 0, gradients[name][dead_N])
            gradients[name][dead_N] = added
            total = total + added.square().sum(1)
        squares[dead_N] = total
        gradients["decoder_bias"] += bias_slope
        return loss.item()


BY_HAND = {"relu": ReluStep, "topk": SparseStep, "batchtopk": SparseStep}  # by activation function


def adam(weight, mean, square, gradient, touched, scale, rate, betas, step, decay, unit_norm, copy=None):
    """`trainer.adam` by a compiled kernel; the new rows are also written to `copy`, in its precision."""
    parts = tuple(map(as_array, (weight, mean, square, gradient, touched)))
    numbers = scale, rate, *betas, *(1 - beta**step for beta in betas), decay
    copy = np.empty((0, 0), np.float32) if copy is None else as_array(copy)
    kernels.adam(parts, tuple(map(np.float32, numbers)), unit_norm, copy)


def moments(x_BD: torch.Tensor, residual_BD: torch.Tensor, scale: float) -> torch.Tensor:
    """Sums of x, x^2, r and r^2 over the batch, r being the residual divided by `scale`: [4, D], float64."""
    sums = torch.empty(4, x_BD.shape[1], dtype=torch.float64)
    kernels.moments(x_BD.numpy(), as_array(residual_BD), np.float32(scale), sums.numpy())
    return sums
