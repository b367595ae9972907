"""Training of autoencoder stacks: all members on the same stream of activations, each as if it were alone.

The recipe is the paper's as far as it is known, the same for all architectures so that they can be compared:
AdamW, a short linear warm-up, cosine decay to zero, gradient norm clipped at 1. On a CPU most architectures
take the steps of `fast_cpu`, which give the same numbers as automatic differentiation does here. Shapes: L
layers, B tokens, D width, F latents.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numba
import pandas as pd
import torch
from tqdm import tqdm

from sae_rna.extraction.stream import ActivationStream
from sae_rna.sae import fast_cpu
from sae_rna.sae.autoencoder import AutoencoderConfig, Gradients, SparseAutoencoders, parameter_rows
from sae_rna.sae.checkpoint import Checkpoint
from sae_rna.sae.explained_variance import ExplainedVariance, moments
from sae_rna.sae.fast_cpu import Workspace
from sae_rna.stopping import Stopped, stoppable, whole

log = logging.getLogger(__name__)
WARMUP_STEPS = 50
BETAS = 0.9, 0.999
LARGEST_NORM = 1.0  # gradients are clipped to it, each member's by itself
SOFTLY = 0.8  # least cosine of a softly frozen decoder row with what it was (Korznikov et al. 2026)
_FROZEN = {"encoder": ("encoder_weight",), "decoder": ("decoder_weight",)}  # biases learn: they set the L0
DEAD_AFTER_TOKENS = 100_000
"""A latent is dead, for AuxK and in the metrics, once it has not fired on so many tokens in a row."""
DENSITY_EDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DENSITY_COLUMNS = tuple(f"density_to_{edge:g}" for edge in DENSITY_EDGES)
"""Shares of the latents in bins of firing density; those in the first fired on hardly any token or none."""


def best_precision(device: torch.device) -> str:
    """bfloat16 where the machine multiplies such matrices faster than float32 ones, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


class AdamW:
    """torch.optim.AdamW (eps 1e-8) over matrices; rows of latents that did not fire rest, as in SparseAdam.
    Touched decoder rows get norm 1, where the architecture has them so. What is frozen does not move, though
    its gradients count in the clipped norm."""

    def __init__(self, sae: SparseAutoencoders, copied: bool):
        """With `copied`, the two matrices are kept in bfloat16, too, for matrix products and gathers."""
        self.weights = {n: parameter_rows(n, value.data) for n, value in sae.named_parameters(recurse=False)}
        self.means = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.squares = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.unit_norm = sae.config.kind.unit_norm
        self.decay = 0.0 if self.unit_norm else 1e-4  # the paper's; rows of norm 1 have nothing to decay
        names = ("encoder_weight", "decoder_weight") if copied else ()
        self.copies = {name: self.weights[name].bfloat16() for name in names}
        self.frozen = _FROZEN.get(sae.config.frozen, ())
        self.drawn = None  # directions of the decoder's rows, from which soft ones may not turn far
        if sae.config.frozen == "softly":
            self.drawn = torch.nn.functional.normalize(self.weights["decoder_weight"])

    def step(self, gradients: dict, touched_F: torch.Tensor | None, scale: float, rate: float, step: int):
        """Move the touched rows (None: all) against `scale` times the gradients; `step` counts from 1."""
        for name, weight in self.weights.items():
            if name in self.frozen:
                continue
            touched = touched_F
            if touched is None or name == "decoder_bias":
                touched = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
            parts = weight, self.means[name], self.squares[name], gradients[name], touched
            unit_norm = self.unit_norm and name == "decoder_weight"
            numbers = scale, rate, BETAS, step, self.decay, unit_norm
            if weight.device.type == "cpu":
                fast_cpu.adam(*parts, *numbers, self.copies.get(name))
            else:
                adam(*parts, *numbers)
        if self.drawn is not None:
            hold_near(self.weights["decoder_weight"], self.drawn)
            for name, copy in self.copies.items():
                copy.copy_(self.weights[name])


def adam(weight, mean, square, gradient, touched, scale, rate, betas, step, decay, unit_norm):
    """One step of AdamW for the rows of [R, C] matrices that `touched` [R] marks, in place."""
    gradient, touched, (beta1, beta2) = gradient.float() * scale, touched[:, None], betas
    mean.copy_(torch.where(touched, beta1 * mean + (1 - beta1) * gradient, mean))
    square.copy_(torch.where(touched, beta2 * square + (1 - beta2) * gradient.square(), square))
    root = (square / (1 - beta2**step)).sqrt() + 1e-8
    moved = weight * (1 - rate * decay) - rate * (mean / (1 - beta1**step)) / root
    if unit_norm:
        moved = moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    weight.copy_(torch.where(touched, moved, weight))


def hold_near(rows_FD: torch.Tensor, drawn_FD: torch.Tensor):
    """Turn rows whose cosine with the unit vectors `drawn_FD` is below `SOFTLY` back to it; norms stay."""
    norm = rows_FD.norm(dim=1, keepdim=True)
    along = (rows_FD * drawn_FD).sum(1, keepdim=True)
    across = torch.nn.functional.normalize(rows_FD - along * drawn_FD)
    nearest = norm * (SOFTLY * drawn_FD + (1 - SOFTLY**2) ** 0.5 * across)
    rows_FD.copy_(torch.where(along < SOFTLY * norm, nearest, rows_FD))


class Trainer:
    """One member with its optimiser and its metrics since the last report."""

    def __init__(
        self, sae: SparseAutoencoders, steps: int, learning_rate: float, precision: str, workspace=None
    ):
        """`sae` is a stack of one; members that are trained in turn may share a workspace."""
        self.sae, self.steps, self.learning_rate = sae.train(), steps, learning_rate
        self.member, self.precision = sae.config.members[0], precision
        self.device = sae.encoder_weight.device
        numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))
        by_hand = fast_cpu.BY_HAND.get(sae.config.kind.activation) if self.device.type == "cpu" else None
        self.optimizer = AdamW(sae, copied=by_hand is not None and precision == "bfloat16")
        self.gradients: Any = self.automatic_gradients
        if by_hand:
            workspace = Workspace() if workspace is None else workspace
            self.gradients = by_hand(sae, self.optimizer.weights, self.optimizer.copies, workspace)
        self.step_number = 0
        self.diverged_at: int | None = None
        self.idle_tokens_F = torch.zeros(sae.config.latents, device=self.device)
        self._start_window()

    def _start_window(self):
        self.variance, self.terms = ExplainedVariance(), torch.zeros(2, dtype=torch.float64)
        self.fired_F = torch.zeros(self.sae.config.latents, dtype=torch.float64, device=self.device)
        self.tokens, self.seconds = 0, 0.0

    def rate(self) -> float:
        """Learning rate of the step to come."""
        warm = min((self.step_number + 1) / WARMUP_STEPS, 1.0)
        done = min(self.step_number / max(self.steps, 1), 1.0)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done))

    def step(self, x_BD: torch.Tensor):
        """One optimiser step on a batch; a member whose loss is not finite keeps its weights from then on."""
        if self.diverged_at is not None:
            return
        began = time.perf_counter()
        found = self.gradients(x_BD, self.idle_tokens_F > DEAD_AFTER_TOKENS)
        losses = found.error, found.penalty
        if not math.isfinite(sum(losses)):
            self.diverged_at = self.step_number
            event = f"diverged at step {self.step_number} (its loss is {sum(losses)}) and stops there"
            name = self.sae.config.describe(self.member)
            log.warning("the %s %s; the others go on: lower sae_learning_rate", name, event)
            return
        clip = min(1.0, LARGEST_NORM / max(found.norm, 1e-12))
        self.optimizer.step(found.by_name, found.touched_F, clip, self.rate(), self.step_number + 1)
        self.step_number += 1
        self.idle_tokens_F = torch.where(found.fired_F > 0, 0.0, self.idle_tokens_F + len(x_BD))
        self.fired_F += found.fired_F
        self.tokens += len(x_BD)
        self.terms += torch.tensor(losses, dtype=torch.float64) * len(x_BD)
        if self.device.type == "cpu":
            sums = fast_cpu.moments(x_BD, found.residual_BD, found.residual_scale)
        else:
            sums = moments(x_BD.double(), found.residual_BD.double() / found.residual_scale)
        self.variance.add(len(x_BD), sums[:, None])
        self.seconds += time.perf_counter() - began

    def automatic_gradients(self, x_BD: torch.Tensor, dead_F: torch.Tensor) -> Gradients:
        """By automatic differentiation of `SparseAutoencoders.forward`, for every architecture and device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.sae(x_BD[None], dead_F[None])
        error, penalty = output.error.item(), output.penalty.item()
        fired_F = (output.features > 0).sum((0, 1))
        if not math.isfinite(error + penalty):
            return Gradients(error, penalty, fired_F)
        (output.error + output.penalty).sum().backward()
        parameters = dict(self.sae.named_parameters(recurse=False))
        gradients = {name: parameter_rows(name, value.grad) for name, value in parameters.items()}
        self.sae.zero_grad(set_to_none=True)
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
        touched_F = (fired_F > 0) | dead_F if self.sae.config.kind.penalty == "auxk" else None
        residual_BD = output.reconstruction.detach()[0].float() - x_BD
        return Gradients(error, penalty, fired_F, gradients, norm, touched_F, residual_BD)

    def report(self) -> dict:
        """Means since the last report, a row of the tidy table."""
        tokens = max(self.tokens, 1)
        density = (self.fired_F / tokens).cpu()
        bins = torch.bucketize(density, torch.tensor(DENSITY_EDGES, dtype=density.dtype))
        shares = (torch.bincount(bins, minlength=len(DENSITY_EDGES)) / len(density)).tolist()
        error, penalty = (self.terms / tokens).tolist()
        (layer, sparsity, seed), architecture = self.member, self.sae.config.architecture
        row = {"layer": layer, "architecture": architecture, "seed": seed, "sparsity": float(sparsity)}
        row |= {"loss": error + penalty, "reconstruction": error, "penalty": penalty}
        row["l0"] = density.sum().item()
        row["explained_variance"] = self.variance.value().item() if self.tokens else math.nan
        row["dead_share"] = (self.idle_tokens_F > DEAD_AFTER_TOKENS).float().mean().item()
        row |= dict(zip(DENSITY_COLUMNS, shares)) | {"diverged": self.diverged_at is not None}
        row["tokens_per_second"] = self.tokens / self.seconds if self.seconds else math.nan
        self._start_window()
        return row

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that decide how training goes on, by name."""
        rows, buffers = self.optimizer, dict(self.sae.named_buffers(recurse=False))
        groups = {"weight": rows.weights, "mean": rows.means, "square": rows.squares, "buffer": buffers}
        tensors = {f"{group}.{name}": value for group in groups for name, value in groups[group].items()}
        return tensors | {"idle": self.idle_tokens_F, "fired": self.fired_F, "terms": self.terms}

    def state(self) -> tuple[dict[str, torch.Tensor], dict]:
        """All that decides how training goes on: tensors, and numbers for JSON. `restore` takes them back."""
        numbers = {"step": self.step_number, "diverged_at": self.diverged_at, "tokens": self.tokens}
        tensors = self._tensors() | {"variance": self.variance.sums}
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        return contiguous, numbers | {"seen": self.variance.count}

    def restore(self, tensors: dict[str, torch.Tensor], numbers: dict):
        """Go on from where `state` was taken."""
        for name, value in self._tensors().items():
            value.copy_(tensors[name])
        for name, copy in self.optimizer.copies.items():
            copy.copy_(self.optimizer.weights[name])
        self.variance = ExplainedVariance(numbers["seen"], tensors["variance"].to(self.device))
        self.step_number, self.diverged_at = numbers["step"], numbers["diverged_at"]
        self.tokens = numbers["tokens"]


class _StackTraining:
    """One configuration while it is trained: its members' trainers, its table and its checkpoint, if any."""

    def __init__(
        self, config: AutoencoderConfig, stream: ActivationStream, recipe: tuple, kept: Checkpoint | None
    ):
        """`recipe` is what a `Trainer` takes beside the member; goes on from the checkpoint that is there."""
        self.places = [list(stream.layers).index(layer) for layer in config.layers]
        stack = SparseAutoencoders(config, stream.standardise.rows(self.places))
        self.stack, self.checkpoint = stack.to(stream.buffer.device), kept
        self.trainers = [Trainer(view, *recipe) for view in self.stack.views()]
        self.done, self.rows = kept.load(self.trainers) if kept else (0, [])

    def step(self, x_LBD: torch.Tensor):
        for trainer, place in zip(self.trainers, self.places):
            trainer.step(x_LBD[place])
        self.done += 1

    def report(self, tokens: int) -> list[dict]:
        """A row for each member, which is also added to the table."""
        self.rows += [{"step": self.done, "tokens": tokens} | trainer.report() for trainer in self.trainers]
        return self.rows[-len(self.trainers) :]


def train(
    stream: ActivationStream,
    configs: Sequence[AutoencoderConfig],
    *,
    epochs: float,
    learning_rate: float,
    precision: str = "auto",
    log_points: int = 60,
    folders: Sequence[Path] = (),
    checkpoint_seconds: float = 300,
) -> tuple[list[SparseAutoencoders], pd.DataFrame]:
    """Train one stack per configuration, all members of all of them on the same batches of `stream`.

    epochs : passes over the stream's tokens; a fraction is allowed
    precision : of products and gathers: float32, bfloat16 (weights and optimiser stay in float32) or
        `best_precision`, auto
    log_points : about how many rows a member has in the table
    folders : one for each configuration's `Checkpoint`, written every `checkpoint_seconds`; a training that
        was killed and resumed ends with the very bits of one that was not, on a CPU with as many threads;
        `stopping.Stopped` comes after a last checkpoint

    Returns the stacks and the tidy table of fig-training, a row per report and member. ValueError for a
    checkpoint that is damaged or of another training.
    """
    precision = best_precision(stream.buffer.device) if precision == "auto" else precision
    steps = int(epochs * stream.tokens) // stream.batch
    recipe, trainings = (steps, learning_rate, precision, Workspace()), []
    for config, folder in zip_longest(configs, folders):
        inputs = {"config": asdict(config), "stream": stream.key, "recipe": recipe[:3]}
        checkpoint = Checkpoint(folder, inputs, checkpoint_seconds) if folder else None
        trainings.append(_StackTraining(config, stream, recipe, checkpoint))
    start = min(training.done for training in trainings)
    if start:
        log.warning("training goes on from step %d of %d", start, steps)
    batches = stream.epochs(epochs, start=start)
    with stoppable(), tqdm(batches, "training SAEs", initial=start, total=steps, mininterval=2) as bar:
        try:
            for step, x_LBD in enumerate(bar, start + 1):
                with whole():
                    _step(trainings, step, steps, x_LBD, stream.batch, log_points, bar)
        except Stopped as stop:  # between two steps
            raise Stopped(stop.number, _keep(trainings, steps)) from None
    rows = sorted((row for training in trainings for row in training.rows), key=lambda row: row["step"])
    return [training.stack.eval() for training in trainings], pd.DataFrame(rows)


def _step(
    trainings: list[_StackTraining], step: int, steps: int, x_LBD, batch: int, log_points: int, bar: tqdm
):
    """One step of all trainings that have not done it, with its report and checkpoint where they are due."""
    behind = [training for training in trainings if training.done < step]
    for training in behind:
        training.step(x_LBD)
    if step % max(1, steps // log_points) == 0 or step == steps:
        rows = [row for training in behind for row in training.report(step * batch)]
        worst = min(rows, key=lambda row: row["explained_variance"])
        place = f"(L{worst['layer']} {worst['architecture']})"
        bar.set_postfix_str(f"lowest EV {worst['explained_variance']:.3f} {place}", refresh=False)
    for training in behind:
        if training.checkpoint and (step == steps or training.checkpoint.due()):
            training.checkpoint.save(step, training.trainers, training.rows)


def _keep(trainings: list[_StackTraining], steps: int) -> str:
    """Write the checkpoints of a training that is stopped; says where it goes on."""
    done = min(training.done for training in trainings)
    for training in trainings:
        if training.checkpoint and training.done == done > 0:  # those that are ahead have theirs
            training.checkpoint.save(done, training.trainers, training.rows)
    kept = done and all(training.checkpoint for training in trainings)
    return f"goes on from step {done} of {steps}" if kept else "starts the training again"
