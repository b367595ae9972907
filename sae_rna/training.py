"""Training of autoencoder stacks on a stream of activations."""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from sae_rna.activations import ActivationStream
from sae_rna.autoencoder import AutoencoderConfig, SparseAutoencoders
from sae_rna.fidelity import ExplainedVariance

WEIGHT_DECAY = {"topk": 0.0, "relu-l1": 1e-4, "relu-l1-mean": 1e-4}
WARMUP_STEPS = 50
DEAD_AFTER_TOKENS = 100_000
"""A latent is dead, for AuxK and in the metrics while training, once it has not fired on so many tokens in a row."""


class Trainer:
    """One stack with its optimiser, trained member by member as if each were alone (norms are clipped per member).

    AdamW (betas .9, .999), a short linear warm-up, cosine decay to zero, gradient norm clipped at 1: the paper's recipe
    as far as it is known (weight decay 1e-4, which TopK goes without), used for all architectures so that they can be compared.
    """

    def __init__(self, autoencoders: SparseAutoencoders, steps: int, learning_rate: float):
        self.autoencoders = autoencoders
        self.optimizer = torch.optim.AdamW(
            autoencoders.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY[autoencoders.config.architecture]
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / WARMUP_STEPS, 1.0) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))),
        )
        members, latents = len(autoencoders.config.layers), autoencoders.config.latents
        device = autoencoders.encoder_weight.device
        self.idle_tokens_MF = torch.zeros(members, latents, device=device)
        self._start_window()

    def _start_window(self):
        self.variance, self.losses, self.l0, self.batches = ExplainedVariance(), 0, 0, 0

    def step(self, x_MBD: torch.Tensor):
        """One optimiser step on a batch. Raises FloatingPointError naming the layer whose loss is no longer finite."""
        sae = self.autoencoders
        preactivations = sae.preactivations(x_MBD)
        features = sae.activate(preactivations)
        reconstruction = sae.decode(features)
        losses = sae.losses(x_MBD, preactivations, features, reconstruction, self.idle_tokens_MF > DEAD_AFTER_TOKENS)
        total = losses.reconstruction + losses.sparsity
        if not torch.isfinite(total).all():
            member = int((~torch.isfinite(total)).nonzero()[0])
            raise FloatingPointError(
                f"the {sae.config.architecture} autoencoder of layer {sae.config.layers[member]} diverged "
                f"(its loss is {total[member].item()}): "
                "lower sae_learning_rate"
            )
        total.sum().backward()
        norms = torch.stack([p.grad.square().flatten(1).sum(1) for p in sae.parameters()]).sum(0).sqrt()
        scale = (1.0 / norms.clamp_min(1e-12)).clamp_max(1.0)[:, None, None]
        for parameter in sae.parameters():
            parameter.grad *= scale
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        sae.constrain()
        with torch.no_grad():
            fired = features > 0
            self.idle_tokens_MF = torch.where(fired.any(1), 0.0, self.idle_tokens_MF + x_MBD.shape[1])
            self.variance.update(x_MBD, reconstruction.detach())
            self.losses = self.losses + torch.stack([total, *losses]).detach()
            self.l0 = self.l0 + fired.sum((1, 2)) / x_MBD.shape[1]
            self.batches += 1

    def report(self, step: int, tokens: int) -> list[dict]:
        """One row per member with the means since the last report."""
        config = self.autoencoders.config
        loss, reconstruction, sparsity = (self.losses / self.batches).tolist()
        l0, variance = (self.l0 / self.batches).tolist(), self.variance.value().tolist()
        dead = (self.idle_tokens_MF > DEAD_AFTER_TOKENS).float().mean(1).tolist()
        self._start_window()
        return [
            {
                "step": step,
                "tokens": tokens,
                "layer": layer,
                "architecture": config.architecture,
                "loss": loss[m],
                "reconstruction": reconstruction[m],
                "sparsity": sparsity[m],
                "l0": l0[m],
                "explained_variance": variance[m],
                "dead_share": dead[m],
            }
            for m, layer in enumerate(config.layers)
        ]


def train(
    stream: ActivationStream, configs: Sequence[AutoencoderConfig], *, epochs: float, learning_rate: float, seed: int, log_points: int = 60
) -> tuple[list[SparseAutoencoders], pd.DataFrame]:
    """Train one stack per configuration on the same batches of `stream`.

    Returns the stacks and the tidy table of fig-training. Every configuration must have the stream's layers.
    """
    steps = int(epochs * stream.tokens) // stream.batch
    stacks = [SparseAutoencoders(config, stream.standardise, seed).to(stream.buffer.device) for config in configs]
    trainers = [Trainer(stack, steps, learning_rate) for stack in stacks]
    rows: list[dict] = []
    every = max(1, steps // log_points)
    with tqdm(stream.epochs(epochs), "training SAEs", total=steps, mininterval=2) as bar:
        for step, x_LBD in enumerate(bar, 1):
            for trainer in trainers:
                trainer.step(x_LBD)
            if step % every == 0 or step == steps:
                fresh = [row for trainer in trainers for row in trainer.report(step, step * stream.batch)]
                rows += fresh
                worst = min(fresh, key=lambda row: row["explained_variance"])
                bar.set_postfix_str(
                    f"lowest EV {worst['explained_variance']:.3f} (L{worst['layer']} {worst['architecture']})", refresh=False
                )
    return stacks, pd.DataFrame(rows)
