"""Overcomplete sparse autoencoders: a stack of them, one per layer of the language model, encoded and trained together.

Architectures differ in their activation function and their penalty alone:

``relu-l1``
    The paper's (Kim & Nam 2025, arXiv:2510.02734): f = ReLU(W_e x + b), x^ = W_d f + c, untied, Kaiming-initialised encoder,
    Xavier-initialised decoder, no norm constraint; loss = ||x - x^||^2 + lambda ||f||_1, the squared error summed over dimensions
    as written.
``relu-l1-mean``
    The same with the squared error averaged over dimensions, as most code has it: lambda then weighs D times more. Which of the two
    the paper used is not known.
``topk``
    Gao et al. 2024 (arXiv:2406.04093): f = TopK(ReLU(W_e (x - c) + b)), unit-norm decoder rows, and an auxiliary loss by which
    dead latents learn to reconstruct what is left over (AuxK, coefficient 1/32).
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import nn

from sae_rna.activations import Standardiser
from sae_rna.parameters import ARCHITECTURES

AUXK_COEFFICIENT = 1 / 32


@dataclass(frozen=True)
class AutoencoderConfig:
    """What defines a stack; written to ``config.json`` beside the weights."""

    architecture: str
    """One of `ARCHITECTURES`."""
    layers: tuple[int, ...]
    """Language-model layer of each member, M of them."""
    width: int
    """D, the language model's dimension."""
    latents: int
    """F, the size of the dictionary."""
    k: int = 16
    """Active latents a token (``topk``)."""
    l1: float = 3e-3
    """lambda (``relu-l1`` and ``relu-l1-mean``)."""
    model: str = ""
    """Folder or hub id of the language model."""
    revision: str | None = None
    fingerprint: str = ""
    """Of the language model's weights; activations of another model are refused."""
    training: dict = field(default_factory=dict)
    """Seed, epochs, data and other facts of the training run."""

    def __post_init__(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture '{self.architecture}' is not known: choose {' or '.join(ARCHITECTURES)}")
        if self.architecture == "topk" and not 0 < self.k <= self.latents:
            raise ValueError(f"k = {self.k} active latents are impossible in a dictionary of {self.latents}")


class Losses(NamedTuple):
    """Terms of the loss per member, shape [M]; what is minimised is their sum."""

    reconstruction: torch.Tensor
    """Squared error per token, summed over dimensions; their mean for relu-l1-mean."""
    sparsity: torch.Tensor
    """lambda ||f||_1 (both readings of the paper) or the auxiliary loss of the dead latents (topk)."""


class SparseAutoencoders(nn.Module):
    """M sparse autoencoders over standardised activations of M layers. Inputs and outputs are [M, B, D] and [M, B, F]."""

    def __init__(self, config: AutoencoderConfig, standardise: Standardiser, seed: int = 0):
        super().__init__()
        self.config = config
        self.standardise = standardise
        members, width, latents = len(config.layers), config.width, config.latents
        self.encoder_weight = nn.Parameter(torch.empty(members, width, latents))
        self.encoder_bias = nn.Parameter(torch.zeros(members, 1, latents))
        self.decoder_weight = nn.Parameter(torch.empty(members, latents, width))
        self.decoder_bias = nn.Parameter(torch.zeros(members, 1, width))  # the data's mean, which standardising made zero
        for member, layer in enumerate(config.layers):  # seeded by layer: a member is the same whatever stack it is in
            generator = torch.Generator().manual_seed(seed * 1000 + layer)
            encoder, decoder = torch.empty(latents, width), torch.empty(width, latents)
            nn.init.kaiming_uniform_(encoder, nonlinearity="relu", generator=generator)
            nn.init.xavier_uniform_(decoder, generator=generator)
            if config.architecture == "topk":
                decoder = nn.functional.normalize(decoder, dim=0)
                encoder = decoder.T
            with torch.no_grad():
                self.encoder_weight[member] = encoder.T
                self.decoder_weight[member] = decoder.T

    def preactivations(self, x_MBD: torch.Tensor) -> torch.Tensor:
        """What the activation function is applied to, [M, B, F]."""
        centred = x_MBD - self.decoder_bias if self.config.architecture == "topk" else x_MBD
        return torch.baddbmm(self.encoder_bias, centred, self.encoder_weight)

    def activate(self, preactivations_MBF: torch.Tensor) -> torch.Tensor:
        """Feature activations, non-negative, [M, B, F]."""
        positive = preactivations_MBF.relu()
        if self.config.architecture != "topk":
            return positive
        values, chosen = positive.topk(self.config.k, dim=-1, sorted=False)
        return torch.zeros_like(positive).scatter(-1, chosen, values)

    def encode(self, x_MBD: torch.Tensor) -> torch.Tensor:
        """Feature activations of standardised activations, [M, B, F]."""
        return self.activate(self.preactivations(x_MBD))

    def decode(self, features_MBF: torch.Tensor) -> torch.Tensor:
        """Reconstructed standardised activations, [M, B, D]."""
        return torch.baddbmm(self.decoder_bias, features_MBF, self.decoder_weight)

    def losses(self, x_MBD, preactivations_MBF, features_MBF, reconstruction_MBD, dead_MF) -> Losses:
        """Terms of the loss; `dead_MF` marks latents that have not fired for long (used by AuxK alone)."""
        residual = x_MBD - reconstruction_MBD
        squared = residual.square()
        error = (squared.mean(-1) if self.config.architecture == "relu-l1-mean" else squared.sum(-1)).mean(-1)
        if self.config.architecture != "topk":
            return Losses(error, self.config.l1 * features_MBF.abs().sum(-1).mean(-1))
        return Losses(error, AUXK_COEFFICIENT * self._auxk(preactivations_MBF, residual.detach(), dead_MF))

    def _auxk(self, preactivations_MBF, residual_MBD, dead_MF) -> torch.Tensor:
        """AuxK: squared error, per token, of the residual's reconstruction from the D/2 strongest dead latents; 0 where none is dead."""
        if not dead_MF.any():
            return torch.zeros(len(dead_MF), device=dead_MF.device)
        masked = preactivations_MBF.relu() * dead_MF[:, None, :]
        values, chosen = masked.topk(min(self.config.width // 2, self.config.latents), dim=-1, sorted=False)
        guess = torch.bmm(torch.zeros_like(masked).scatter(-1, chosen, values), self.decoder_weight)
        return (residual_MBD - guess).square().sum(-1).mean(-1) * dead_MF.any(-1)

    @torch.no_grad()
    def constrain(self):
        """Unit-norm decoder rows (``topk``); called after every optimiser step."""
        if self.config.architecture == "topk":
            self.decoder_weight /= self.decoder_weight.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def only(self, layer: int) -> "SparseAutoencoders":
        """The autoencoder of one layer, as a stack of one member. ValueError if there is none for `layer`."""
        if layer not in self.config.layers:
            raise ValueError(f"no autoencoder for layer {layer} here: this stack holds layers {', '.join(map(str, self.config.layers))}")
        chosen = slice(member := self.config.layers.index(layer), member + 1)
        standardise = Standardiser(self.standardise.mean[chosen], self.standardise.std[chosen])
        single = SparseAutoencoders(replace(self.config, layers=(layer,)), standardise)
        single.load_state_dict({name: value[chosen] for name, value in self.state_dict().items()})
        return single.to(self.encoder_weight.device)

    def check_model(self, fingerprint: str, name: str):
        """Refuse activations of another language model than the one trained on."""
        if fingerprint != self.config.fingerprint:
            raise ValueError(
                f"these autoencoders were trained on {self.config.model} ({self.config.fingerprint}), not on {name} ({fingerprint}): "
                "train new ones or give the model they belong to"
            )

    def save(self, folder: Path):
        """Write ``config.json`` and one safetensors file a layer; each file appears whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for member, layer in enumerate(self.config.layers):
            tensors = {name: value[member].detach().contiguous() for name, value in self.state_dict().items()}
            temporary = folder / f"layer-{layer:02d}.tmp"
            save_file(tensors, temporary)
            os.replace(temporary, folder / f"layer-{layer:02d}.safetensors")
        temporary = folder / "config.tmp"
        temporary.write_text(json.dumps(asdict(self.config), indent=1) + "\n")
        os.replace(temporary, folder / "config.json")

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None, device: str | torch.device = "cpu") -> "SparseAutoencoders":
        """Read a stack from a folder that `save` wrote, or from a hub id. Raises ValueError where a file is missing or does not fit."""
        folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(str(source), revision=revision))
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} holds no config.json: it is no folder of autoencoders, or was not written to the end")
        values = json.loads((folder / "config.json").read_text())
        config = AutoencoderConfig(**values | {"layers": tuple(values["layers"])})
        shape = len(config.layers), config.width
        stack = cls(config, Standardiser(torch.zeros(shape), torch.ones(shape)))
        try:
            members = [load_file(folder / f"layer-{layer:02d}.safetensors") for layer in config.layers]
            stack.load_state_dict({name: torch.stack([member[name] for member in members]) for name in stack.state_dict()})
        except Exception as error:
            raise ValueError(
                f"{folder}: the autoencoder's weights cannot be read ({error}); train them again or fetch them whole"
            ) from error
        return stack.to(device)
