"""What analyses are given: autoencoders by layer, and RNAs as the latents of one kind of them see them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.encoding import features_file, token_table
from sae_rna.sae.features import load_csr, pool_sequences


@dataclass(eq=False)
class Autoencoders:
    """One variant's trained autoencoders by layer, or `of_group` of layers; trained when asked for."""

    groups: list[list[int]]
    key: list[str]
    of_group: Callable[[list[int]], SparseAutoencoders]

    def __getitem__(self, layer: int) -> SparseAutoencoders:
        return self.of_group(next(group for group in self.groups if layer in group)).only(layer)

    def __iter__(self) -> Iterator[int]:
        return (layer for group in self.groups for layer in group)


@dataclass(eq=False)
class Activations:
    """Records with the activations of every latent by layer. Nothing is computed before it is asked for."""

    name: str  # what encoded them, as figures call it, for example "SAE (topk)"
    records: pd.DataFrame  # S rows, with a `split`
    layers: list[int]  # blocks of the language model, ascending
    key: dict  # what the activations depend on, as JSON
    folder_of: Callable[[int], Path]
    summarise: Callable[[], pd.DataFrame]

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """`token_table` of the records, T rows."""
        return token_table(self.records)

    def features(self, layer: int) -> sparse.csr_matrix:
        """Activations [T, F] of one layer."""
        return load_csr(self.folder_of(layer) / features_file(layer))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """By feature and layer, over typed RNAs: density, sequences, explained_variance, tau, retained."""
        return self.summarise()

    def retained(self, layer: int) -> np.ndarray:
        """Which features pass the paper's filter, boolean [F]."""
        return self.summary[self.summary.layer == layer].retained.to_numpy()

    def rows(self, split: str) -> np.ndarray:
        """Which tokens belong to records of `split`, boolean [T]. Raises ValueError if there are none."""
        rows = (self.records.split == split).to_numpy()[self.tokens.record.to_numpy()]
        if not rows.any():
            remedy = "add some, or leave the column 'split' out"
            raise ValueError(f"the data have no records in the split '{split}': {remedy}")
        return rows

    def of_split(self, layer: int, split: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        """Activations and tokens of the records of one split."""
        rows = self.rows(split)
        return self.features(layer)[rows], self.tokens[rows]

    def pooled(self, layer: int, split: str | None = None) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        """Each feature's activation at every RNA's strongest nucleotide [S, F], and the RNAs (of `split`)."""
        features, tokens = self.of_split(layer, split) if split else (self.features(layer), self.tokens)
        records = self.records[self.records.split == split] if split else self.records
        return pool_sequences(features, tokens.record.to_numpy()), records
