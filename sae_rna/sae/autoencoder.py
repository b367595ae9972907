"""Overcomplete sparse autoencoders: a stack of members, each with a layer, a seed and a sparsity of its own.

What an architecture is stands in `architectures`. Shapes: M members, B tokens, D width, F latents.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import nn

from sae_rna.extraction.stream import Standardiser
from sae_rna.files import write_json, writing
from sae_rna.hub import hub_faults
from sae_rna.parameters import FROZEN
from sae_rna.sae import architectures
from sae_rna.sae.architectures import KINDS, Kind, top_k

THRESHOLD_MEMORY = 0.95  # share of BatchTopK's running threshold that a step keeps: some hundred steps do


class Member(NamedTuple):
    """One autoencoder of a stack."""

    layer: int  # of the language model
    sparsity: float  # active latents a token, K, where `Kind.counted`; else the penalty's lambda
    seed: int = 0


@dataclass(frozen=True)
class AutoencoderConfig:
    """What defines a stack; written to ``config.json`` with the weights. ValueError if it is impossible."""

    architecture: str  # one of `KINDS`
    members: tuple[Member, ...]
    width: int  # D, the language model's dimension
    latents: int  # F, the size of the dictionary
    model: str = ""  # folder or hub id of the language model
    revision: str | None = None
    fingerprint: str = ""  # of the language model's weights; activations of another model are refused
    training: dict = field(default_factory=dict)  # seed, epochs, data and other facts of the training
    frozen: str = ""  # what training leaves as it was drawn, one of `parameters.FROZEN`; mostly nothing

    def __post_init__(self):
        object.__setattr__(self, "members", tuple(Member(*member) for member in self.members))
        if self.frozen not in ("", *FROZEN):
            raise ValueError(f"'{self.frozen}' cannot be frozen: choose {', '.join(FROZEN)}, or leave it out")
        for _, k, _ in self.members if self.kind.counted else ():
            if not (0 < k <= self.latents and k == int(k)):
                raise ValueError(f"k = {k:g} active latents are impossible in a dictionary of {self.latents}")
        for _, weight, _ in self.members:
            if not 0 <= weight < math.inf:
                raise ValueError(f"penalty of weight {weight} is impossible: it must be finite, not negative")
        if len(set(map(self.file_name, self.members))) < len(self.members):
            raise ValueError("two members of a stack are the same: give each its own layer, sparsity or seed")

    @property
    def kind(self) -> Kind:
        return KINDS[self.architecture]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer of each member."""
        return tuple(member.layer for member in self.members)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the dictionaries whose errors are summed: Matryoshka's nested ones, else the whole one."""
        smaller = [self.latents >> halvings for halvings in (4, 3, 2, 1)] if self.kind.nested else []
        return tuple(sorted({size for size in smaller if size} | {self.latents}))

    @property
    def _sparsity_name(self) -> str:
        return "k" if self.kind.counted else "lambda"

    def describe(self, member: Member) -> str:
        """The member in words."""
        sparsity = f"{self._sparsity_name} {member.sparsity:g}"
        return f"{self.architecture} autoencoder of layer {member.layer} (seed {member.seed}, {sparsity})"

    def file_name(self, member: Member) -> str:
        """Where the member's weights lie."""
        sparsity = f"{self._sparsity_name}-{member.sparsity:.15g}"
        return f"layer-{member.layer:02d}_seed-{member.seed}_{sparsity}.safetensors"


class Output(NamedTuple):
    """What one pass over a batch gives; the loss is the sum of the last two."""

    features: torch.Tensor  # [M, B, F]
    reconstruction: torch.Tensor  # [M, B, D]
    error: torch.Tensor  # [M]: squared, by dimensions' sum or mean, summed over nested dictionaries
    penalty: torch.Tensor  # [M]: lambda ||f||_1, lambda L0, or the auxiliary loss of the dead latents


class Gradients(NamedTuple):
    """What a training step of one member finds: losses and, where they are finite, their gradients."""

    error: float
    penalty: float
    fired_F: torch.Tensor  # on how many tokens of the batch each latent is active
    by_name: dict[str, torch.Tensor] = {}  # of `parameter_rows`; those not touched may hold anything
    norm: float = 0.0  # Euclidean norm of all of them together
    touched_F: torch.Tensor | None = None  # latents that fired or are dead; None if every latent learns
    residual_BD: torch.Tensor | None = None  # `residual_scale` times x^ - x
    residual_scale: Any = 1.0


def parameter_rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A parameter of one member as a matrix with a latent in each row; the decoder's bias is a single row."""
    return tensor[0] if name.startswith("decoder") else tensor[0].T


class SparseAutoencoders(nn.Module):
    """M sparse autoencoders over standardised activations. Inputs and outputs are [M, B, D] and [M, B, F].

    In memory a latent's encoder weights lie side by side, like its decoder's: a sparse step takes whole rows.
    """

    def __init__(self, config: AutoencoderConfig, standardise: Standardiser):
        """`standardise` has one row of statistics for each member."""
        super().__init__()
        self.config, self.standardise = config, standardise
        members, width, latents = len(config.members), config.width, config.latents
        self.encoder_weight = nn.Parameter(torch.empty(members, latents, width).transpose(1, 2))  # [M, D, F]
        self.encoder_bias = nn.Parameter(torch.zeros(members, 1, latents))
        self.decoder_weight = nn.Parameter(torch.empty(members, latents, width))
        self.decoder_bias = nn.Parameter(torch.zeros(members, 1, width))  # the mean of standardised data
        if config.kind.activation == "jumprelu":
            self.log_threshold = nn.Parameter(torch.full((members, 1, latents), self._bandwidth).log())
        if config.kind.activation == "batchtopk":
            self.register_buffer("threshold", torch.zeros(members, 1, 1))
        if config.kind.matched:
            self.register_buffer("weight", torch.full((members,), architectures.FIRST_WEIGHT))
        for number in range(members):
            self._initialise(number)

    @torch.no_grad()
    def _initialise(self, number: int):
        """First weights of a member, the same in whatever stack it is."""
        member, shape = self.config.members[number], (self.config.latents, self.config.width)
        generator = torch.Generator().manual_seed(member.seed * 1000 + member.layer)
        encoder_FD, decoder_DF = torch.empty(shape), torch.empty(shape[::-1])
        nn.init.kaiming_uniform_(encoder_FD, nonlinearity="relu", generator=generator)
        nn.init.xavier_uniform_(decoder_DF, generator=generator)
        if self.config.kind.unit_norm:
            decoder_DF = nn.functional.normalize(decoder_DF, dim=0)
            encoder_FD = decoder_DF.T
        self.decoder_weight[number], self.encoder_weight[number] = decoder_DF.T, encoder_FD.T

    @property
    def _bandwidth(self) -> float:
        return architectures.BANDWIDTH * self.config.width**0.5

    def preactivations(self, x_MBD: torch.Tensor) -> torch.Tensor:
        """What the activation function is applied to, [M, B, F]."""
        centred = x_MBD - self.decoder_bias if self.config.kind.centred else x_MBD
        return torch.baddbmm(self.encoder_bias, centred, self.encoder_weight)

    def activate(self, preactivations_MBF: torch.Tensor) -> torch.Tensor:
        """Feature activations, non-negative, [M, B, F]. BatchTopK uses its threshold but in training."""
        activation, members = self.config.kind.activation, self.config.members
        if activation == "jumprelu":
            return self._jump(preactivations_MBF, scaled=True)
        positive = preactivations_MBF.relu()
        if activation == "relu":
            return positive
        if activation == "topk":
            return torch.stack([top_k(part, int(k))[0] for part, (_, k, _) in zip(positive, members)])
        if not self.training:
            return positive * (positive >= self.threshold)
        flat = [top_k(part.flatten(), int(k) * len(part)) for part, (_, k, _) in zip(positive, members)]
        for number, (_, kept) in enumerate(flat):
            if (kept > 0).any():
                self.observe_threshold(number, kept[kept > 0].min().item())
        return torch.stack([features for features, _ in flat]).view_as(positive)

    def _jump(self, preactivations_MBF: torch.Tensor, scaled: bool) -> torch.Tensor:
        threshold = self.log_threshold.exp()
        return architectures.Jump.apply(preactivations_MBF, threshold, self._bandwidth, scaled)

    @torch.no_grad()
    def observe_threshold(self, number: int, smallest: float):
        """Take the smallest positive activation that a training batch kept into the member's running mean."""
        previous = self.threshold[number].item()
        mean = THRESHOLD_MEMORY * previous + (1 - THRESHOLD_MEMORY) * smallest
        self.threshold[number] = mean if previous > 0 else smallest

    def penalty_weight(self, number: int) -> float:
        """The member's lambda."""
        member = self.config.members[number]
        return self.weight[number].item() if self.config.kind.matched else member.sparsity

    @torch.no_grad()
    def observe_l0(self, number: int, l0: float):
        """Move a matched member's lambda, since `l0` latents a token were active in a training batch."""
        if self.config.kind.matched:  # an L0 of nothing is no reason to fall without end
            wanted = self.config.members[number].sparsity
            self.weight[number] *= max(l0 / wanted, 1 / wanted) ** architectures.MATCHING

    def encode(self, x_MBD: torch.Tensor) -> torch.Tensor:
        """Feature activations of standardised activations, [M, B, F]."""
        return self.activate(self.preactivations(x_MBD))

    def decode(self, features_MBF: torch.Tensor) -> torch.Tensor:
        """Reconstructed standardised activations, [M, B, D]."""
        return torch.baddbmm(self.decoder_bias, features_MBF, self.decoder_weight)

    def forward(self, x_MBD: torch.Tensor, dead_MF: torch.Tensor | None = None) -> Output:
        """Encode, decode and compare; `dead_MF` marks latents that have not fired for long, for AuxK."""
        kind = self.config.kind
        preactivations = self.preactivations(x_MBD)
        features = self.activate(preactivations)
        error, reconstruction, start = 0, self.decoder_bias, 0
        for end in self.config.prefixes:
            part = torch.bmm(features[..., start:end], self.decoder_weight[:, start:end].to(features.dtype))
            reconstruction, start = reconstruction + part, end
            squared = (x_MBD - reconstruction).square()
            error = error + (squared.mean(-1) if kind.mean_error else squared.sum(-1)).mean(-1)
        if kind.penalty == "auxk":
            penalty = torch.stack([self._auxk(m, x_MBD, reconstruction, dead_MF) for m in range(len(x_MBD))])
        else:  # lambda ||f||_1 (Kim & Nam 2025) or lambda L0 (Rajamanoharan et al. 2024, eq. 12)
            jump = features if kind.penalty == "l1" else self._jump(preactivations, scaled=False)
            weights = torch.tensor(list(map(self.penalty_weight, range(len(x_MBD)))), device=x_MBD.device)
            penalty = weights * jump.float().sum(-1).mean(-1)
            if self.training:
                for number, active in enumerate((features > 0).sum((1, 2)) / features.shape[1]):
                    self.observe_l0(number, active.item())
        return Output(features, reconstruction, error, penalty)

    def _auxk(self, number: int, x_MBD, reconstruction_MBD, dead_MF) -> torch.Tensor:
        """The auxiliary loss of one member, 0 where no latent is dead."""
        if dead_MF is None or not dead_MF[number].any():
            return x_MBD.new_zeros(())
        dead = dead_MF[number].nonzero().squeeze(1)
        x_BD, encoder_FD, bias_F = x_MBD[number], self.encoder_weight[number].T, self.encoder_bias[number, 0]
        rows = encoder_FD[dead], bias_F[dead], self.decoder_weight[number][dead]
        residual_BD = (x_BD - reconstruction_MBD[number]).detach()
        return architectures.auxk_penalty(x_BD - self.decoder_bias[number], residual_BD, *rows)

    def views(self) -> Iterator["SparseAutoencoders"]:
        """Every member as a stack of one that shares this stack's memory."""
        for number, member in enumerate(self.config.members):
            single = SparseAutoencoders.__new__(SparseAutoencoders)
            nn.Module.__init__(single)
            part = slice(number, number + 1)
            single.config = replace(self.config, members=(member,))
            single.standardise = self.standardise.rows(part)
            for name, value in self.named_parameters(recurse=False):
                setattr(single, name, nn.Parameter(value.data[part], requires_grad=value.requires_grad))
            for name, buffer in self.named_buffers(recurse=False):
                single.register_buffer(name, buffer[part])
            yield single.train(self.training)

    def only(self, layer: int) -> "SparseAutoencoders":
        """The first autoencoder of one layer, sharing memory. ValueError if there is none."""
        layers = self.config.layers
        if layer not in layers:
            held = ", ".join(map(str, layers))
            raise ValueError(f"no autoencoder for layer {layer}: this stack holds layers {held}")
        return list(self.views())[layers.index(layer)]

    def check_model(self, fingerprint: str, name: str):
        """Refuse activations of another language model than the one trained on."""
        if fingerprint != self.config.fingerprint:
            models = f"{self.config.model} ({self.config.fingerprint}), not on {name} ({fingerprint})"
            raise ValueError(f"these autoencoders were trained on {models}: train others or give theirs")

    def save(self, folder: Path):
        """Write ``config.json`` and one safetensors file a member; each file appears whole or not at all."""
        for number, member in enumerate(self.config.members):
            tensors = {name: value[number].detach().contiguous() for name, value in self.state_dict().items()}
            with writing(folder / self.config.file_name(member)) as temporary:
                save_file(tensors, temporary)
        members = [member._asdict() for member in self.config.members]
        write_json(folder / "config.json", asdict(self.config) | {"members": members})

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None, device: Any = "cpu") -> Self:
        """Read a stack from a folder of `save` or a hub id. ValueError if a file is missing or unfit."""
        folder = Path(source)
        if not folder.is_dir():
            with hub_faults(str(source), "autoencoders"):
                folder = Path(snapshot_download(str(source), revision=revision))
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} holds no config.json: no folder of autoencoders, or not finished")
        try:
            values = json.loads((folder / "config.json").read_text())
            values["members"] = tuple(Member(**member) for member in values["members"])
            config = AutoencoderConfig(**values)
            shape = len(config.members), config.width
            stack = cls(config, Standardiser(torch.zeros(shape), torch.ones(shape)))
            files = [load_file(folder / config.file_name(member)) for member in config.members]
            names = set().union(*files)
            stack.load_state_dict({name: torch.stack([file[name] for file in files]) for name in names})
        except Exception as error:  # of another version, damaged or not whole
            remedy = "delete this folder to train them again, or fetch them whole"
            raise ValueError(f"{folder}: autoencoders that cannot be read ({error!r}); {remedy}") from error
        return stack.to(device).eval()
