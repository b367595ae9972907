"""Training of autoencoder stacks: all members on the same stream of activations, each as if it were alone."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from tqdm import tqdm

from sae_rna.extraction.stream import ActivationStream
from sae_rna.sae import kernels
from sae_rna.sae.autoencoder import AutoencoderConfig, SparseAutoencoders, auxk_loss, write_tensors
from sae_rna.sae.explained_variance import ExplainedVariance

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"
WARMUP_STEPS = 50
BETA1, BETA2 = 0.9, 0.999
LARGEST_NORM = 1.0
"""Gradients are clipped to it, each member's by itself."""
DEAD_AFTER_TOKENS = 100_000
"""A latent is dead, for AuxK and in the metrics while training, once it has not fired on so many tokens in a row."""
TOKENS_AT_ONCE = 2048
"""In the encoder's product of a sparse step, which bounds its memory."""
DENSITY_EDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DENSITY_COLUMNS = tuple(f"density_to_{edge:g}" for edge in DENSITY_EDGES)
"""Share of the latents in each bin of firing density. The first holds those that fired on hardly any token of a window, or on none."""


def best_precision(device: torch.device) -> str:
    """bfloat16 where the machine multiplies such matrices faster than float32 ones, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return (
        "bfloat16"
        if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        else "float32"
    )


class Rows:
    """AdamW over an autoencoder's parameters as matrices whose rows can rest: a latent that did not fire is not touched.

    Resting rows are those of torch.optim.SparseAdam; with every row touched it is torch.optim.AdamW (betas .9, .999, eps 1e-8).
    """

    def __init__(self, sae: SparseAutoencoders, copied: bool):
        """With `copied`, the two matrices are kept in bfloat16, too, for matrix products and gathers."""
        self.weights = {
            name: _rows(name, parameter.data) for name, parameter in sae.named_parameters(recurse=False)
        }
        self.means = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.squares = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.decay, self.unit_norm = sae.config.kind.weight_decay, sae.config.kind.unit_norm
        self._all = {
            name: torch.ones(len(weight), dtype=torch.bool, device=weight.device)
            for name, weight in self.weights.items()
        }
        self._copied = copied
        self.refresh()

    def refresh(self):
        """Make the copies anew, after weights were changed from outside."""
        names = ("encoder_weight", "decoder_weight") if self._copied else ()
        self.copies = {name: self.weights[name].bfloat16() for name in names}

    def matrix(self, name: str) -> torch.Tensor:
        """A weight matrix in the precision of the products."""
        return self.copies.get(name, self.weights[name])

    def step(
        self,
        gradients: dict[str, torch.Tensor],
        touched_F: torch.Tensor | None,
        scale: float,
        rate: float,
        step: int,
    ):
        """Move all touched rows; `touched_F` is None for all of them. `step` counts from 1."""
        for name, weight in self.weights.items():
            touched = self._all[name] if touched_F is None or name == "decoder_bias" else touched_F
            unit_norm = self.unit_norm and name == "decoder_weight"
            parts = weight, self.means[name], self.squares[name], gradients[name], touched
            if weight.device.type == "cpu":
                numbers = scale, rate, BETA1, BETA2, 1 - BETA1**step, 1 - BETA2**step, self.decay
                copy = (
                    kernels.as_array(self.copies[name])
                    if name in self.copies
                    else np.empty((0, 0), np.float32)
                )
                kernels.adam(*map(kernels.as_array, parts), *map(np.float32, numbers), unit_norm, copy)
            else:
                adam(*parts, scale, rate, step, self.decay, unit_norm)


def adam(weight, mean, square, gradient, touched, scale, rate, step, decay, unit_norm):
    """`kernels.adam` for any device, in plain tensor operations."""
    gradient, touched = gradient.float() * scale, touched[:, None]
    mean.copy_(torch.where(touched, BETA1 * mean + (1 - BETA1) * gradient, mean))
    square.copy_(torch.where(touched, BETA2 * square + (1 - BETA2) * gradient.square(), square))
    moved = weight * (1 - rate * decay) - rate * (mean / (1 - BETA1**step)) / (
        (square / (1 - BETA2**step)).sqrt() + 1e-8
    )
    if unit_norm:
        moved = moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    weight.copy_(torch.where(touched, moved, weight))


def _rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A parameter of one member as a matrix with a latent in each row; the decoder's bias, which no latent owns, is one row."""
    return tensor[0] if name.startswith("decoder") else tensor[0].T


class Workspace(dict):
    """Memory that the steps of all members use in turn, since asking the system for 100 MB anew costs as much as filling them."""

    def __call__(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        key = name, shape, kind
        if key not in self:
            self[key] = torch.empty(shape, dtype=kind)
        return self[key]


class Trainer:
    """One member with its optimiser.

    AdamW, a short linear warm-up, cosine decay to zero, gradient norm clipped at 1: the paper's recipe as far as it is known, used
    for all architectures so that they can be compared. On a CPU, architectures with K active latents take the sparse step of
    `kernels`, and those with a ReLU a dense one that reuses its memory; everything else is `automatic_step`, which is
    automatic differentiation of `SparseAutoencoders.forward`, under autocast in bfloat16.
    """

    def __init__(
        self,
        sae: SparseAutoencoders,
        steps: int,
        learning_rate: float,
        precision: str,
        workspace: Workspace | None = None,
    ):
        self.sae, self.steps, self.learning_rate = sae.train(), steps, learning_rate
        self.member, self.precision = sae.config.members[0], precision
        self.device = sae.encoder_weight.device
        self.workspace = Workspace() if workspace is None else workspace
        kernels.use_threads(torch.get_num_threads())
        by_hand = (
            {"topk": self._sparse_step, "batchtopk": self._sparse_step, "relu": self._relu_step}
            if self.device.type == "cpu"
            else {}
        )
        self.step_of_kind = by_hand.get(sae.config.kind.activation, self.automatic_step)
        self.optimizer = Rows(sae, copied=bool(by_hand) and precision == "bfloat16")
        self.step_number, self.diverged_at = 0, None
        self.idle_tokens_F = torch.zeros(sae.config.latents, device=self.device)
        self._start_window()

    def _start_window(self):
        self.variance, self.terms, self.seconds = (
            ExplainedVariance(),
            torch.zeros(2, dtype=torch.float64),
            0.0,
        )
        self.fired_F, self.tokens = (
            torch.zeros(self.sae.config.latents, dtype=torch.float64, device=self.device),
            0,
        )

    def rate(self) -> float:
        """Learning rate of the step to come."""
        warm = min((self.step_number + 1) / WARMUP_STEPS, 1.0)
        return (
            self.learning_rate
            * warm
            * 0.5
            * (1 + math.cos(math.pi * min(self.step_number / max(self.steps, 1), 1.0)))
        )

    def step(self, x_BD: torch.Tensor):
        """One optimiser step on a batch. A member whose loss is no longer finite keeps its last weights and takes no further step."""
        if self.diverged_at is not None:
            return
        began = time.perf_counter()
        error, penalty, fired_F = self.step_of_kind(x_BD)
        if not math.isfinite(error + penalty):
            self.diverged_at = self.step_number
            log.warning(
                "the %s diverged at step %d (its loss is %s) and stops there; the others go on. Lower sae_learning_rate",
                self.sae.config.describe(self.member), self.step_number, error + penalty,
            )  # fmt: skip
            return
        self.step_number += 1
        self.idle_tokens_F = torch.where(fired_F > 0, 0.0, self.idle_tokens_F + len(x_BD))
        self.fired_F += fired_F
        self.tokens += len(x_BD)
        self.terms += torch.tensor([error, penalty], dtype=torch.float64) * len(x_BD)
        self.seconds += time.perf_counter() - began

    def automatic_step(self, x_BD):
        sae = self.sae
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = sae(x_BD[None], (self.idle_tokens_F > DEAD_AFTER_TOKENS)[None])
        loss = (output.error + output.penalty).sum()
        fired_F = (output.features > 0).sum((0, 1))
        if math.isfinite(loss.item()):
            loss.backward()
            gradients = {
                name: _rows(name, parameter.grad) for name, parameter in sae.named_parameters(recurse=False)
            }
            norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
            touched = (
                (fired_F > 0) | (self.idle_tokens_F > DEAD_AFTER_TOKENS)
                if sae.config.kind.penalty == "auxk"
                else None
            )
            self.optimizer.step(gradients, touched, _clip(norm), self.rate(), self.step_number + 1)
            sae.zero_grad(set_to_none=True)
            self._observe(x_BD, output.reconstruction.detach()[0].float() - x_BD, 1.0)
        return output.error.item(), output.penalty.item(), fired_F

    @torch.no_grad()
    def _relu_step(self, x_BD):
        config, rows, space, array = self.sae.config, self.optimizer, self.workspace, kernels.as_array
        kind, tokens = rows.matrix("encoder_weight").dtype, len(x_BD)
        weight = 2 / (tokens * (config.width if config.kind.mean_error else 1))
        encoder, decoder = rows.matrix("encoder_weight"), rows.matrix("decoder_weight")
        x = x_BD.to(kind)
        features, slopes = (
            space(name, (tokens, config.latents), kind) for name in ("preactivations", "slopes")
        )
        torch.addmm(rows.weights["encoder_bias"][:, 0].to(kind), x, encoder.T, out=features).relu_()
        residual = (features @ decoder).float() + rows.weights["decoder_bias"] - x_BD
        error = residual.square().sum().item() * weight / 2
        fired_F, activity_F = (
            torch.empty(config.latents, dtype=torch.int32),
            np.empty(config.latents, np.float32),
        )
        scaled = (residual * weight).to(kind)
        gradients = {
            "encoder_bias": torch.empty(config.latents, 1),
            "decoder_bias": (residual.sum(0) * weight)[None],
            "decoder_weight": torch.mm(
                features.T, scaled, out=space("decoder_weight", tuple(decoder.shape), kind)
            ),
        }
        torch.mm(scaled, decoder.T, out=slopes)
        slope = np.float32(self.member.sparsity / tokens)
        kernels.relu_slopes(
            array(features),
            array(slopes),
            slope,
            array(gradients["encoder_bias"])[:, 0],
            fired_F.numpy(),
            activity_F,
        )
        penalty = float(self.member.sparsity * activity_F.sum(dtype=np.float64) / tokens)
        gradients["encoder_weight"] = torch.mm(
            slopes.T, x, out=space("encoder_weight", tuple(encoder.shape), kind)
        )
        if math.isfinite(error + penalty):
            self._observe(x_BD, residual, 1.0)
            rows.step(gradients, None, _clip(_norm(gradients)), self.rate(), self.step_number + 1)
        return error, penalty, fired_F

    @torch.no_grad()
    def _sparse_step(self, x_BD):
        config, rows, space, array = self.sae.config, self.optimizer, self.workspace, kernels.as_array
        kind = torch.float32 if self.precision == "float32" else torch.bfloat16
        tokens, prefixes, scale = len(x_BD), np.array(config.prefixes), np.float32(2 / len(x_BD))
        bias = rows.weights["decoder_bias"][0]
        centred = space("centred", x_BD.shape, kind).copy_(x_BD - bias)
        start, indices, values = self._codes(centred)
        residual = space("residual", (len(prefixes), *x_BD.shape), kind)
        slopes, errors = np.empty(len(indices), np.float32), np.empty((len(prefixes), tokens), np.float32)
        kernels.residuals(
            x_BD.numpy(), array(bias), array(rows.matrix("decoder_weight")), start, indices, values, prefixes, scale,
            array(residual), slopes, errors,
        )  # fmt: skip
        first, token, place = kernels.by_latent(start, indices, config.latents)
        fired_F = torch.from_numpy(np.diff(first))
        error, penalty = float(errors.sum(dtype=np.float64) / tokens), 0.0
        if not math.isfinite(error):
            return error, penalty, fired_F
        self._observe(x_BD, residual[-1], scale)
        gradients = {
            name: space(name, tuple(weight.shape), torch.float32) for name, weight in rows.weights.items()
        }
        squares = np.empty(config.latents, np.float32)
        kernels.gradients(
            array(centred), array(residual), first, token, place, values, slopes, prefixes, array(gradients["encoder_weight"]),
            array(gradients["decoder_weight"]), array(gradients["encoder_bias"])[:, 0], squares,
        )  # fmt: skip
        # The decoder's bias enters twice: it is added to every reconstruction and subtracted before encoding.
        slope_F = gradients["encoder_bias"][:, 0]
        gradients["decoder_bias"][0] = (
            residual[0].sum(0, dtype=torch.float32) - rows.weights["encoder_weight"].T @ slope_F
        )
        touched_F = fired_F > 0
        dead_F = self.idle_tokens_F > DEAD_AFTER_TOKENS
        if dead_F.any():
            penalty = self._add_auxk(
                x_BD, residual[-1] / -scale, dead_F.nonzero().squeeze(1), touched_F, gradients, squares
            )
            touched_F |= dead_F
        norm = math.sqrt(
            squares.sum(dtype=np.float64) + gradients["decoder_bias"].double().square().sum().item()
        )
        if math.isfinite(penalty):
            rows.step(gradients, touched_F, _clip(norm), self.rate(), self.step_number + 1)
        return error, penalty, fired_F

    def _codes(self, centred_BD):
        """Active latents of the batch in CSR form; the encoder's product is made for some thousand tokens at a time."""
        encoder = self.optimizer.matrix("encoder_weight").T
        bias, k = self.optimizer.weights["encoder_bias"][:, 0].to(centred_BD.dtype), int(self.member.sparsity)
        whole = self.sae.config.kind.activation == "batchtopk"
        parts = []
        for chunk in centred_BD.split(len(centred_BD) if whole else TOKENS_AT_ONCE):
            product = self.workspace("preactivations", (len(chunk), self.sae.config.latents), chunk.dtype)
            bits = kernels.as_bits(torch.addmm(bias, chunk, encoder, out=product))
            if whole:
                codes = kernels.batch_top_k(bits, k * len(chunk), 0.5 * self.sae.threshold.item())
                self.sae.observe_threshold(0, torch.from_numpy(codes[2]))
                return codes
            parts.append(kernels.top_k(bits, k))
        return kernels.to_csr(*(np.concatenate(part) for part in zip(*parts)))

    @torch.enable_grad()
    def _add_auxk(self, x_BD, residual_BD, dead_N, touched_F, gradients, squares) -> float:
        """Add the auxiliary loss of the dead latents to the gradients in place; returns the loss."""
        rows = self.optimizer.weights
        leaves = [
            rows[name][dead_N].requires_grad_()
            for name in ("encoder_weight", "encoder_bias", "decoder_weight")
        ]
        bias = rows["decoder_bias"].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = auxk_loss(x_BD - bias, residual_BD, leaves[0], leaves[1][:, 0], leaves[2])
        *slopes, bias_slope = torch.autograd.grad(loss, [*leaves, bias])
        resting = ~touched_F[dead_N][:, None]  # rows that fired after all have a gradient to add to
        total = 0
        for name, slope in zip(("encoder_weight", "encoder_bias", "decoder_weight"), slopes):
            added = slope + torch.where(resting, 0, gradients[name][dead_N])
            gradients[name][dead_N] = added
            total = total + added.square().sum(1)
        squares[dead_N] = total
        gradients["decoder_bias"] += bias_slope
        return loss.item()

    def _observe(self, x_BD, residual_BD, scale: float):
        """Add a batch to the explained variance; the residual was multiplied by `scale`. Standardised data stand around 0."""
        if self.device.type == "cpu":
            sums = torch.empty(4, x_BD.shape[1], dtype=torch.float64)
            kernels.moments(x_BD.numpy(), kernels.as_array(residual_BD), np.float32(scale), sums.numpy())
        else:
            x, residual = x_BD.double(), residual_BD.double() / scale
            sums = torch.stack([x.sum(0), x.square().sum(0), residual.sum(0), residual.square().sum(0)])
        self.variance.add(len(x_BD), sums[:, None])

    def report(self) -> dict:
        """Means since the last report, a row of the tidy table."""
        tokens = max(self.tokens, 1)
        density = (self.fired_F / tokens).cpu()
        bins = torch.bucketize(density, torch.tensor(DENSITY_EDGES, dtype=density.dtype))
        error, penalty = (self.terms / tokens).tolist()
        row = {
            "layer": self.member.layer,
            "architecture": self.sae.config.architecture,
            "seed": self.member.seed,
            "sparsity": float(self.member.sparsity),
            "loss": error + penalty,
            "reconstruction": error,
            "penalty": penalty,
            "l0": density.sum().item(),
            "explained_variance": self.variance.value().item() if self.tokens else math.nan,
            "dead_share": (self.idle_tokens_F > DEAD_AFTER_TOKENS).float().mean().item(),
            **dict(
                zip(
                    DENSITY_COLUMNS,
                    (torch.bincount(bins, minlength=len(DENSITY_EDGES)) / len(density)).tolist(),
                )
            ),
            "diverged": self.diverged_at is not None,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else math.nan,
        }
        self._start_window()
        return row

    def state(self) -> tuple[dict[str, torch.Tensor], dict]:
        """All that decides how training goes on: tensors, and numbers for JSON. `restore` takes them back."""
        rows = self.optimizer
        groups = {
            "weight": rows.weights,
            "mean": rows.means,
            "square": rows.squares,
            "buffer": dict(self.sae.named_buffers(recurse=False)),
        }
        tensors = {
            f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()
        }
        tensors |= {
            "idle": self.idle_tokens_F,
            "fired": self.fired_F,
            "terms": self.terms,
            "variance": self.variance.sums(),
        }
        numbers = {
            "step": self.step_number,
            "diverged_at": self.diverged_at,
            "tokens": self.tokens,
            "seen": self.variance.count,
        }
        return {name: value.contiguous() for name, value in tensors.items()}, numbers

    def restore(self, tensors: dict[str, torch.Tensor], numbers: dict):
        """Go on from where `state` was taken."""
        rows = self.optimizer
        groups = {
            "weight": rows.weights,
            "mean": rows.means,
            "square": rows.squares,
            "buffer": dict(self.sae.named_buffers(recurse=False)),
        }
        for group, values in groups.items():
            for name, value in values.items():
                value.copy_(tensors[f"{group}.{name}"])
        rows.refresh()
        self.idle_tokens_F, self.fired_F = tensors["idle"].to(self.device), tensors["fired"].to(self.device)
        self.terms, self.variance = (
            tensors["terms"],
            ExplainedVariance.restore(numbers["seen"], tensors["variance"]),
        )
        self.step_number, self.diverged_at, self.tokens = (
            numbers["step"],
            numbers["diverged_at"],
            numbers["tokens"],
        )


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    """Euclidean norm of all gradients of one member together."""
    total = 0.0
    for gradient in gradients.values():
        squares = np.empty(len(gradient), np.float32)
        kernels.squared_norms(kernels.as_array(gradient), squares)
        total += squares.sum(dtype=np.float64)
    return math.sqrt(total)


def _clip(norm: float) -> float:
    return min(1.0, LARGEST_NORM / max(norm, 1e-12))


class Checkpoint:
    """A training run's state in one file, and its table in another; both appear whole or not at all."""

    def __init__(self, folder: Path, run: dict, every_seconds: float):
        """`run` is everything that decides the run's result; a checkpoint of another run is refused."""
        self.file, self.table = folder / CHECKPOINT, folder / "training.parquet"
        self.key = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self.every_seconds, self._written = every_seconds, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._written >= self.every_seconds

    def save(self, step: int, trainers: Sequence[Trainer], rows: list[dict]):
        """Write both files."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        tensors, numbers = {}, []
        for index, trainer in enumerate(trainers):
            mine, state = trainer.state()
            tensors |= {f"{index}.{name}": value for name, value in mine.items()}
            numbers.append(state)
        if rows:
            temporary = self.table.with_suffix(".tmp")
            pd.DataFrame(rows).to_parquet(temporary, index=False)
            temporary.replace(self.table)
        write_tensors(
            self.file, tensors, {"run": self.key, "step": str(step), "members": json.dumps(numbers)}
        )
        self._written = time.monotonic()

    def load(self, trainers: Sequence[Trainer]) -> tuple[int, list[dict]]:
        """Restore the trainers; returns the step to go on from and the table's rows so far, (0, []) where there is no checkpoint.

        Raises ValueError for a file that cannot be read or belongs to another run, before anything is changed.
        """
        if not self.file.exists():
            return 0, []
        try:
            with safe_open(self.file, "pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except Exception as error:
            raise ValueError(
                f"{self.file} is damaged ({error}): delete it to train from the start, or put a whole copy there"
            ) from error
        if facts.get("run") != self.key:
            raise ValueError(
                f"{self.file} belongs to a run with other parameters, data or model: delete it to train from the start, "
                "or choose another folder"
            )
        for index, (trainer, numbers) in enumerate(zip(trainers, json.loads(facts["members"]), strict=True)):
            prefix = f"{index}."
            trainer.restore(
                {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                },
                numbers,
            )
        step = int(facts["step"])
        rows = (
            pd.read_parquet(self.table).query("step <= @step").to_dict("records")
            if self.table.exists()
            else []
        )
        return step, rows


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

    Parameters
    ----------
    epochs
        Passes over the stream's tokens; a fraction is allowed.
    precision
        Of matrix products and gathers: float32, bfloat16 (weights and optimiser stay in float32), or auto, see `best_precision`.
    log_points
        About how many rows a member has in the table.
    folders
        One for each configuration, where ``checkpoint.safetensors`` and ``training.parquet`` are written every `checkpoint_seconds`, and
        gone on from: a run that was killed ends with the very bits of one that was not, on a CPU with the same number of threads. Where
        one configuration has come further than another, it waits for it.

    Returns
    -------
    The stacks and the tidy table of fig-training, a row per report and member.

    Raises
    ------
    ValueError
        For a layer that the stream does not have, a checkpoint that is damaged or that belongs to another run.
    """
    device = stream.buffer.device
    precision = best_precision(device) if precision == "auto" else precision
    steps = int(epochs * stream.tokens) // stream.batch
    stacks, runs, space = [], [], Workspace()
    for number, config in enumerate(configs):
        missing = set(config.layers) - set(stream.layers)
        if missing:
            raise ValueError(
                f"the stream has no layer {min(missing)}: it reads layers {', '.join(map(str, stream.layers))}"
            )
        rows_of = [list(stream.layers).index(layer) for layer in config.layers]
        standardise = type(stream.standardise)(
            stream.standardise.mean[rows_of], stream.standardise.std[rows_of]
        )
        stacks.append(SparseAutoencoders(config, standardise).to(device))
        trainers = [Trainer(view, steps, learning_rate, precision, space) for view in stacks[-1].views()]
        key = {
            "config": asdict(config),
            "stream": stream.key(),
            "steps": steps,
            "rate": learning_rate,
            "precision": precision,
        }
        runs.append(
            _Run(trainers, rows_of, Checkpoint(folders[number], key, checkpoint_seconds) if folders else None)
        )
    start = min(run.done for run in runs)
    if start:
        log.warning("training goes on from step %d of %d", start, steps)
    every = max(1, steps // log_points)
    with tqdm(
        stream.epochs(epochs, start=start), "training SAEs", initial=start, total=steps, mininterval=2
    ) as bar:
        for step, x_LBD in enumerate(bar, start + 1):
            going = [run for run in runs if run.done < step]
            for run in going:
                run.step(x_LBD)
            if step % every == 0 or step == steps:
                bar.set_postfix_str(
                    _remark([row for run in going for row in run.report(step * stream.batch)]), refresh=False
                )
            for run in going:
                run.keep(last=step == steps)
    rows = sorted((row for run in runs for row in run.rows), key=lambda row: row["step"])
    return [stack.eval() for stack in stacks], pd.DataFrame(rows)


class _Run:
    """One configuration while it is trained: the trainers of its members, their places in the stream, the table and the checkpoint."""

    def __init__(self, trainers: list[Trainer], places: list[int], checkpoint: Checkpoint | None):
        self.trainers, self.places, self.checkpoint = trainers, places, checkpoint
        self.done, self.rows = checkpoint.load(trainers) if checkpoint else (0, [])

    def step(self, x_LBD: torch.Tensor):
        for trainer, place in zip(self.trainers, self.places):
            trainer.step(x_LBD[place])
        self.done += 1

    def report(self, tokens: int) -> list[dict]:
        fresh = [{"step": self.done, "tokens": tokens} | trainer.report() for trainer in self.trainers]
        self.rows += fresh
        return fresh

    def keep(self, last: bool):
        if self.checkpoint and (self.checkpoint.due() or last):
            self.checkpoint.save(self.done, self.trainers, self.rows)


def _remark(rows: list[dict]) -> str:
    """The worst and the slowest member, for the progress bar."""
    going = [row for row in rows if not row["diverged"]]
    if not going:
        return "all members diverged"
    worst, slowest = (
        min(going, key=lambda row: row["explained_variance"]),
        min(going, key=lambda row: row["tokens_per_second"]),
    )
    stopped = f", {len(rows) - len(going)} diverged" if len(going) < len(rows) else ""
    return (
        f"lowest EV {worst['explained_variance']:.3f} (L{worst['layer']} {worst['architecture']}), "
        f"slowest {slowest['tokens_per_second']:,.0f} tokens/s (L{slowest['layer']} {slowest['architecture']}){stopped}"
    )
