"""Training a little of a language model: gains of latents, other methods beside them, and what all share.

In a layer h becomes h + ((g - 1) f(h)) W_d std, with f(h) the latents of the standardised state, W_d the
decoder's rows and std the layer's scale. Gains g of 1 change nothing, and what the autoencoder does not
explain always stays. IA3 (Liu et al. 2022, arXiv:2205.05638) and LoRA (Hu et al. 2022, arXiv:2106.09685) are
those of `peft`. All start from the states of the same layer, which are read once; what is trained lies above.
Shapes: B RNAs of a batch, W tokens, D width, F latents, S RNAs, M masked bases.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from peft import IA3Config, LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn.functional import cross_entropy, pad

from sae_rna.analysis.controls import untrained
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import encode_bases
from sae_rna.sae.autoencoder import SparseAutoencoders

BATCH = 6  # RNAs a training step
CHECKS, PATIENCE = 3, 2  # looks at the validation RNAs; the training ends after so many without a new best
GAINS, LORA, IA3, ALL = "gains of latents", "LoRA", "IA3", "all weights above"
UNTRAINED, NEURONS = "gains, untrained SAE", "gains of neurons"


class Example(NamedTuple):
    """One RNA, its lower blocks already read."""

    ids_W: torch.Tensor
    state_WD: torch.Tensor  # of the layer, special tokens included
    target: torch.Tensor  # base (0 to 3) of each masked token [W], -1 elsewhere; or a number, the RNA's type


class Batch(NamedTuple):
    """Examples, padded."""

    tokens: dict[str, torch.Tensor]
    states_BWD: torch.Tensor
    target: torch.Tensor  # [B, W] or [B]


class Gains(nn.Module):
    """A gain for each latent, 1 at first; `excess_F` is g - 1."""

    def __init__(self, sae: SparseAutoencoders):
        super().__init__()
        self.sae, self.excess_F = sae.requires_grad_(False), nn.Parameter(torch.zeros(sae.config.latents))

    def forward(self, states_BWD: torch.Tensor) -> torch.Tensor:
        x_1TD = self.sae.standardise(states_BWD).flatten(0, 1)[None]
        change_TD = (self.excess_F * self.sae.encode(x_1TD)[0]) @ self.sae.decoder_weight[0]
        return states_BWD + change_TD.view_as(states_BWD) * self.sae.standardise.std


class NeuronGains(nn.Module):
    """A gain for each dimension of the state."""

    def __init__(self, width: int):
        super().__init__()
        self.excess_D = nn.Parameter(torch.zeros(width))

    def forward(self, states_BWD: torch.Tensor) -> torch.Tensor:
        return states_BWD * (1 + self.excess_D)


class Above(nn.Module):
    """The blocks above a layer and the head for masked bases; what is trained of it is up to a method.

    `change` is applied to the states of the layer; `head` classifies the mean of an RNA's last states.
    """

    def __init__(self, model: LanguageModel, layer: int, head: nn.Module | None = None):
        super().__init__()
        self.net, self.of_model, self.head = copy.deepcopy(model.model), model, head
        self.change: nn.Module = nn.Identity()
        self.state_BWD = torch.empty(0)  # that the blocks go on from
        encoder = self.net.base_model.encoder
        encoder.layer = encoder.layer[layer:]
        encoder.layer[0].register_forward_pre_hook(lambda _, given: (self.state_BWD, *given[1:]))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits of every masked base [M, 4], or of the types of every RNA."""
        if batch.target.ndim == 2:
            self.state_BWD = self.change(batch.states_BWD)
            return self.net(**batch.tokens).logits[batch.target >= 0][:, self.of_model.base_ids]
        return self.head(self.pooled(batch)) if self.head else self.pooled(batch)

    def pooled(self, batch: Batch) -> torch.Tensor:
        """Mean of the last states over the nucleotides of every RNA, [B, D]."""
        self.state_BWD = self.change(batch.states_BWD)
        last_BWD = self.net.base_model(**batch.tokens).last_hidden_state
        weight_BW = self.of_model.nucleotide_mask(batch.tokens["input_ids"]).float()
        return torch.einsum("bwd,bw->bd", last_BWD, weight_BW / weight_BW.sum(1, keepdim=True))

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


@torch.no_grad()
def read(model: LanguageModel, layer: int, sequences: Sequence[str], masked=None, labels=None):
    """An `Example` of every sequence, with `masked` positions hidden, or with a label each."""
    examples, states = dict[int, Example](), list[torch.Tensor]()
    for rows in model.batches(sequences, 4096):
        tokens = model.tokenize([sequences[row] for row in rows])
        target_BW = torch.full_like(tokens["input_ids"], -1)
        for line, row in enumerate(rows if masked else ()):
            columns = torch.as_tensor(masked[row] + model.first, device=model.device)
            bases = encode_bases([sequences[row]])[0][masked[row]]
            target_BW[line, columns] = torch.as_tensor(bases, dtype=torch.long, device=model.device)
            tokens["input_ids"][line, columns] = model.tokenizer.mask_token_id
        with model.hooked(layer, lambda state_BWD: states.append(state_BWD.clone())):
            model.model(**tokens)
        for line, row in enumerate(rows):
            real = tokens["attention_mask"][line].bool()
            target = target_BW[line, real] if labels is None else torch.tensor(labels[row])
            examples[row] = Example(tokens["input_ids"][line, real], states[-1][line, real], target)
    return [examples[row] for row in range(len(sequences))]


def together(examples: Sequence[Example], model: LanguageModel) -> Batch:
    """Examples in one batch, padded on the right."""
    width = max(len(example.ids_W) for example in examples)
    padded = lambda of, value: torch.stack([pad(one, (0, width - len(one)), value=value) for one in of])  # noqa: E731
    ids_BW = padded([example.ids_W for example in examples], model.tokenizer.pad_token_id)
    mask_BW = padded([torch.ones_like(example.ids_W) for example in examples], 0)
    states = [pad(of.state_WD, (0, 0, 0, width - len(of.ids_W))) for of in examples]
    target = [example.target for example in examples]
    target = torch.stack(target) if target[0].ndim == 0 else padded(target, -1)
    tokens = {"input_ids": ids_BW, "attention_mask": mask_BW}
    return Batch(tokens, torch.stack(states), target.to(model.device))


def in_batches(examples: Sequence[Example], model: LanguageModel, sequences: Sequence[str]) -> list[Batch]:
    """All examples, those of similar length together."""
    return [together([examples[row] for row in rows], model) for rows in model.batches(sequences, 4096)]


@torch.no_grad()
def check(model: LanguageModel, layer: int, batch: Batch):
    """ValueError if blocks hand on more than states, as ERNIE-RNA's do: what starts above then errs.

    batch : with masked bases
    """
    own = model.model(**batch.tokens).logits[batch.target >= 0][:, model.base_ids]
    if not torch.allclose(Above(model, layer)(batch), own, atol=1e-3, rtol=1e-3):
        fault = f"{model.source} cannot be tuned above layer {layer}: its blocks hand on more than states"
        raise ValueError(f"{fault}, which alone are kept here; leave this page out")


@torch.no_grad()
def losses(above: Above, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy (nats) of every RNA, summed over its targets, and the number of these, [S] each."""
    sums, counts = [], []
    for batch in batches:
        rows = (batch.target >= 0).nonzero()[:, 0].cpu().numpy()  # of a masked base, or of an RNA
        wanted = batch.target[batch.target >= 0]
        loss = cross_entropy(above(batch), wanted, reduction="none").double().cpu().numpy()
        counts.append(np.bincount(rows, minlength=len(batch.target)))
        sums.append(np.bincount(rows, loss, minlength=len(batch.target)))
    return np.concatenate(sums), np.concatenate(counts)


def mean_loss(above: Above, batches: Sequence[Batch]) -> float:
    """Nats a target."""
    sum_S, count_S = losses(above, batches)
    return sum_S.sum() / count_S.sum()


def methods(model: LanguageModel, dictionaries: Mapping, layer: int) -> dict[str, Callable[[Above], None]]:
    """What each method adds to the model above a layer, by name; the first is under test.

    dictionaries : trained autoencoders of the layer by name, the first one that under test

    LoRA and IA3 get as many parameters as there are gains, or as near to it as they can: LoRA's rank on the
    value matrix of the next block, and for IA3 the number of blocks whose keys and values it scales. LoRA
    stands there with eight times the rank, too.
    """
    first = next(iter(dictionaries.values()))
    blocks, ratio = model.blocks - layer, max(round(first.config.latents / (2 * model.width)), 1)
    numbers = "|".join(map(str, range(min(ratio, blocks))))

    def with_change(change: Callable[[], nn.Module]) -> Callable[[Above], None]:
        def add(above: Above):
            above.change = change().to(above.of_model.device)

        return add

    def with_adapter(config: type, part: str, **options) -> Callable[[Above], None]:
        modules = rf".*encoder\.layer\.{part}"

        def add(above: Above):
            inject_adapter_in_model(config(target_modules=modules, **options), above.net)

        return add

    def release(above: Above):
        for part in above.net.base_model.encoder, above.net.lm_head:
            part.requires_grad_(True)

    found = {name: with_change(partial(Gains, sae)) for name, sae in dictionaries.items()}
    found[UNTRAINED] = with_change(lambda: Gains(untrained(first)))
    found[NEURONS] = with_change(lambda: NeuronGains(model.width))
    found[IA3] = with_adapter(IA3Config, rf"({numbers})\..*\.(key|value)", feedforward_modules=[])
    for name, rank in {LORA: ratio, f"{LORA}, rank {8 * ratio}": 8 * ratio}.items():
        found[name] = with_adapter(LoraConfig, r"0\..*\.value", r=rank, lora_alpha=rank)
    return found | {ALL: release}


class Run(NamedTuple):
    """A trained method."""

    above: Above
    validation: float  # nats a target, the lowest seen
    step: int  # after which it was seen; 0 is before the first


def tune(
    above: Above, examples: Sequence[Example], validation: Sequence[Batch], rate: float, steps: int, seed: int
) -> Run:
    """Train by Adam, its rate falling to zero, and take what did best on the validation RNAs."""
    rng, parameters = np.random.default_rng(seed), above.trained
    optimizer = torch.optim.Adam(parameters, lr=rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / steps, steps)
    best = Run(above, mean_loss(above, validation), 0)
    kept = [parameter.detach().clone() for parameter in parameters]
    every = max(steps // CHECKS, 1)
    for step in range(1, steps + 1):
        rows = rng.choice(len(examples), min(BATCH, len(examples)), replace=False)
        batch = together([examples[row] for row in rows], above.of_model)
        loss = cross_entropy(above(batch), batch.target[batch.target >= 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if step % every == 0:
            if (value := mean_loss(above, validation)) < best.validation:
                best, kept = Run(above, value, step), [of.detach().clone() for of in parameters]
            elif step - best.step >= PATIENCE * every:
                break
    for parameter, value in zip(parameters, kept):
        parameter.data.copy_(value)
    return best
