"""RNAs as the latents of one kind of autoencoders see them: what every analysis is given."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.sae.encoding import features_file, token_table
from sae_rna.sae.features import load_csr, pool_sequences


class Activations:
    """Records with the activations of every latent by layer. Nothing is computed before it is asked for.

    Attributes
    ----------
    name : what encoded them, as figures call it, for example "SAE (topk)"
    records : S rows, with a `split`
    layers : blocks of the language model, ascending
    key : what the activations depend on, as JSON; naming it computes nothing
    """

    def __init__(
        self,
        name: str,
        records: pd.DataFrame,
        layers: list[int],
        key: dict,
        folder_of: Callable[[int], Path],
        summarise: Callable[[], pd.DataFrame],
    ):
        self.name, self.records, self.layers, self.key = name, records, layers, key
        self._folder_of, self._summarise = folder_of, summarise

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """`token_table` of the records, T rows."""
        return token_table(self.records)

    def features(self, layer: int) -> sparse.csr_matrix:
        """Activations [T, F] of one layer."""
        return load_csr(self._folder_of(layer) / features_file(layer))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per feature and layer, over the evaluation RNAs of known type: density (share of
        nucleotides), sequences, explained_variance and tau of the layer, retained (the paper's filter)."""
        return self._summarise()

    def retained(self, layer: int) -> np.ndarray:
        """Which features pass the paper's filter, boolean [F]."""
        return self.summary[self.summary.layer == layer].retained.to_numpy()

    def rows(self, split: str) -> np.ndarray:
        """Which tokens belong to records of `split`, boolean [T]. Raises ValueError if there are none."""
        rows = (self.records.split == split).to_numpy()[self.tokens.record.to_numpy()]
        if not rows.any():
            raise ValueError(
                f"the data have no records in the split '{split}': add some, or leave the column 'split' out"
            )
        return rows

    def of_split(self, layer: int, split: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        """Activations and tokens of the records of one split."""
        rows = self.rows(split)
        return self.features(layer)[rows], self.tokens[rows]

    def pooled(self, layer: int, split: str | None = None) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        """Each feature's activation at every RNA's strongest nucleotide, [S, F], and the RNAs (of
        `split`)."""
        if split is None:
            return pool_sequences(self.features(layer), self.tokens.record.to_numpy()), self.records
        features, tokens = self.of_split(layer, split)
        return pool_sequences(features, tokens.record.to_numpy()), self.records[self.records.split == split]
