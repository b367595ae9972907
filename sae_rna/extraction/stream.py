"""Hidden states of a few sequences all at once, and of many as a stream of standardised, shuffled batches."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.memory import BATCH_TOKENS
from sae_rna.records.composition import NUCLEOTIDES


def hidden_states(model: LanguageModel, sequences: list[str], layers: Sequence[int]) -> np.ndarray:
    """Hidden states [T, L, D] of all nucleotides of `sequences`, in their order."""
    parts = list(model.hidden_states(sequences, layers))
    sequence_T, position_T = (np.concatenate(values) for values in list(zip(*parts))[:2])
    states_TLD = torch.cat([part.values_TLD for part in parts]).cpu().numpy()
    return states_TLD[np.lexsort((position_T, sequence_T))]


class Standardiser(torch.nn.Module):
    """x = (h - mean) / std for every layer and dimension, with statistics [L, D] of the training tokens."""

    def __init__(self, mean_LD: torch.Tensor, std_LD: torch.Tensor):
        super().__init__()
        self.mean, self.std = torch.nn.Buffer(mean_LD.float()), torch.nn.Buffer(std_LD.float())

    @classmethod
    def fit(cls, values_TLD: torch.Tensor) -> "Standardiser":
        """Statistics of `values_TLD`. A dimension that never changes keeps scale 1: it standardises to 0."""
        std = values_TLD.std(0, correction=0)
        return cls(values_TLD.mean(0), torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, values_TLD: torch.Tensor) -> torch.Tensor:
        return (values_TLD - self.mean) / self.std

    def rows(self, numbers: slice | list[int]) -> "Standardiser":
        """The statistics of some of the layers."""
        return Standardiser(self.mean[numbers], self.std[numbers])


class ActivationStream:
    """Standardised activations [L, B, D] in random order, from one pass of the language model an epoch.

    The sequences are read in blocks of at most `buffer_tokens` nucleotides, in an order drawn anew for every
    epoch; the tokens of a block are shuffled and given out. Data that fit into the buffer are one block and
    are read once. Batches depend on the seed and the buffer alone: a training can be resumed anywhere, and a
    layer sees the same tokens whatever layers are read with it. The statistics come from the first block. The
    buffer takes 4 bytes x `buffer_tokens` x layers x width of the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        sequences: Sequence[str],
        layers: Sequence[int],
        *,
        batch: int = 1024,
        buffer_tokens: int = 300_000,
        seed: int = 0,
    ):
        """Raises ValueError for a layer that the model lacks, a small buffer, and less data than a batch."""
        self.model, self.sequences, self.layers = model, list(sequences), model.check_layers(layers)
        self.batch, self.seed, self._capacity = batch, seed, buffer_tokens
        least = max(2 * batch, *map(len, self.sequences))
        if buffer_tokens < least:
            problem = f"a buffer of {buffer_tokens} tokens is too small for two batches or the longest RNA"
            raise ValueError(f"{problem}: set buffer_tokens to {least} or more")
        self._nucleotides = np.array([sum(map(sequence.count, NUCLEOTIDES)) for sequence in self.sequences])
        self.tokens = int(self._nucleotides.sum())  # of one epoch
        if self.tokens < batch:
            raise ValueError(f"{self.tokens} nucleotides are too few for a batch of {batch}: lower 'batch'")
        self.fits = self.tokens <= buffer_tokens
        shape = len(self.layers), min(buffer_tokens, self.tokens), model.width
        self.buffer = torch.empty(shape, device=model.device)
        self._held: tuple[int, int] | None = None
        filled = self._fill(0, 0, self._blocks(0)[0])
        self.standardise = Standardiser.fit(self.buffer[:, :filled].transpose(0, 1))

    @property
    def key(self) -> dict:
        """What decides the batches, for JSON: a training that is resumed must have the same."""
        sequences = hashlib.sha256("\n".join(self.sequences).encode()).hexdigest()
        numbers = {"batch": self.batch, "capacity": self._capacity, "seed": self.seed}
        return self.model.key | {"layers": self.layers, "sequences": sequences} | numbers

    def _blocks(self, epoch: int) -> list[list[np.ndarray]]:
        """The epoch's language-model batches, block by block: neighbours until the buffer is full."""
        rng = np.random.default_rng([self.seed, 0 if self.fits else epoch])  # read once if it fits
        largest = min(BATCH_TOKENS, max(self._capacity // 8, self.model.longest))
        blocks, free = list[list[np.ndarray]](), 0
        for rows in self.model.batches(self.sequences, largest, rng):
            size = self._size([rows])
            if size > free:
                blocks.append([])
                free = self._capacity
            blocks[-1].append(rows)
            free -= size
        return blocks

    def _size(self, block: list[np.ndarray]) -> int:
        """Nucleotides in a block."""
        return int(sum(self._nucleotides[rows].sum() for rows in block))

    def _fill(self, epoch: int, number: int, block: list[np.ndarray]) -> int:
        """Read a block with the language model unless the buffer holds it already; returns its tokens."""
        if self._held != (epoch, number):
            filled, bar = 0, tqdm(block, "language model", mininterval=1, leave=False)
            for states in self.model.hidden_states(self.sequences, self.layers, bar):
                end = filled + len(states.values_TLD)
                self.buffer[:, filled:end] = states.values_TLD.transpose(0, 1)
                filled = end
            self._held = epoch, number
        return self._size(block)

    def epochs(self, count: float, start: int = 0) -> Iterator[torch.Tensor]:
        """Batches [L, B, D] of `count` epochs (a fraction is allowed) from batch number `start` on.

        What is left of a block after its last whole batch is left out.
        """
        wanted, given, epoch = int(count * self.tokens) // self.batch, 0, 0
        mean, std = self.standardise.mean[:, None], self.standardise.std[:, None]
        while given < wanted:
            for number, block in enumerate(self._blocks(epoch)):
                batches = self._size(block) // self.batch
                if given + batches <= start:
                    given += batches
                    continue
                filled = self._fill(0 if self.fits else epoch, number, block)
                order = np.random.default_rng([self.seed, epoch, number]).permutation(filled)
                order = torch.from_numpy(order).to(self.buffer.device)
                for rows in order[: batches * self.batch].split(self.batch):
                    if given == wanted:
                        return
                    given += 1
                    if given > start:
                        yield self.buffer.index_select(1, rows).sub_(mean).div_(std)
            epoch += 1
