"""The stream of activations: standardised, shuffled batches of tokens, all layers at once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from sae_rna.language_model import LanguageModel


class Standardiser(torch.nn.Module):
    """x = (h - mean) / std for every layer and dimension; statistics of the training tokens. Shapes [L, D]."""

    def __init__(self, mean_LD: torch.Tensor, std_LD: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean_LD.float())
        self.register_buffer("std", std_LD.float())

    @classmethod
    def fit(cls, values_TLD: torch.Tensor) -> "Standardiser":
        """Statistics of `values_TLD`. A dimension that never changes is left at scale 1, so that it standardises to 0."""
        std = values_TLD.std(0, correction=0)
        return cls(values_TLD.mean(0), torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, values_TLD: torch.Tensor) -> torch.Tensor:
        return (values_TLD - self.mean) / self.std


class ActivationStream:
    """Batches [L, B, D] of standardised activations in random order, from one pass of the language model an epoch.

    A shuffle buffer holds as many tokens as `buffer_mib` allows. Data that fit into it whole are read by the language model once
    and shuffled anew for every epoch; larger data are streamed: the buffer is filled, shuffled, half of it is given
    out, and it is filled again. The standardisation statistics come from the first full buffer.
    """

    def __init__(
        self,
        model: LanguageModel,
        sequences: Sequence[str],
        layers: Sequence[int],
        *,
        batch: int = 1024,
        buffer_mib: int = 2048,
        seed: int = 0,
    ):
        self.model, self.sequences, self.layers = model, list(sequences), model.check_layers(layers)
        self.batch, self.seed = batch, seed
        capacity = buffer_mib * 2**20 // (4 * len(self.layers) * model.width)
        if capacity < 2 * batch:
            raise ValueError(
                f"a buffer of {buffer_mib} MiB holds {capacity} tokens of {len(self.layers)} layers, "
                f"fewer than two batches of {batch}: raise buffer_mib"
            )
        total = sum(map(len, self.sequences))
        self.fits = total <= capacity
        self.buffer = torch.empty(min(capacity, total), len(self.layers), model.width, device=model.device)
        self.filled = 0
        self._source = self._read(np.random.default_rng(seed))
        self._left_over: torch.Tensor | None = None
        self._fill()
        if self.filled < batch:
            raise ValueError(f"{self.filled} nucleotides are too few to train on: at least one batch of {batch} is needed")
        self.standardise = Standardiser.fit(self.buffer[: self.filled])
        if self.fits:
            self.buffer[: self.filled] = self.standardise(self.buffer[: self.filled])

    @property
    def tokens(self) -> int:
        """Nucleotides that one epoch holds, as far as known: exact when the data fit into the buffer, else the sum of the lengths."""
        return self.filled if self.fits else sum(map(len, self.sequences))

    def _read(self, rng) -> Iterator[torch.Tensor]:
        batches = self.model.batches(self.sequences, rng=rng)
        for states in self.model.hidden_states(self.sequences, self.layers, tqdm(batches, "language model", mininterval=1, leave=False)):
            yield states.values_TLD

    def _fill(self) -> bool:
        """Fill the buffer from the language model; False at the end of the data."""
        while self.filled < len(self.buffer):
            values, self._left_over = self._left_over, None
            if values is None:
                values = next(self._source, None)
            if values is None:
                return False
            taken = min(len(values), len(self.buffer) - self.filled)
            self.buffer[self.filled : self.filled + taken] = values[:taken]
            self.filled += taken
            if taken < len(values):
                self._left_over = values[taken:]
        return True

    def epochs(self, count: float) -> Iterator[torch.Tensor]:
        """Batches of `count` epochs (a fraction is allowed), each batch [L, B, D]; a last incomplete batch is left out."""
        wanted = int(count * self.tokens) // self.batch
        generator = torch.Generator().manual_seed(self.seed)
        given = 0
        epoch = 0
        while given < wanted:
            for chunk in self._epoch(epoch, generator):
                for start in range(0, len(chunk) - self.batch + 1, self.batch):
                    if given == wanted:
                        return
                    given += 1
                    rows = chunk[start : start + self.batch].to(self.buffer.device)
                    values = self.buffer[rows]
                    yield (values if self.fits else self.standardise(values)).transpose(0, 1)
            epoch += 1

    def _epoch(self, epoch: int, generator) -> Iterator[torch.Tensor]:
        """Random row numbers of the buffer, chunk by chunk, the buffer being filled again in between where data are streamed."""
        if self.fits:
            yield torch.randperm(self.filled, generator=generator)
            return
        if epoch:
            self._source, self.filled = self._read(np.random.default_rng([self.seed, epoch])), 0
            self._fill()
        more = True
        while more:
            order = torch.randperm(self.filled, generator=generator)
            half = len(order) // 2 // self.batch * self.batch
            yield order[:half]
            kept = self.buffer[order[half:].to(self.buffer.device)]
            self.buffer[: len(kept)] = kept
            self.filled = len(kept)
            more = self._fill()
        yield torch.randperm(self.filled, generator=generator)
