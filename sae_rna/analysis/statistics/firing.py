"""Where single features fire: how strongly, in which RNAs, on which letters, and where not.

Shapes: T nucleotides, N of them on which a feature fires, S RNAs, L nucleotides of one, P peaks, W positions
around one, A and B features.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sae_rna.analysis.statistics.annotations import annotate
from sae_rna.analysis.structure_features import rna_name
from sae_rna.records.composition import NUCLEOTIDES, encode_bases
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import dense

EXAMPLES, COUNTEREXAMPLES = 8, 2  # RNAs shown of a feature over its range, and of what speaks against a name
BINS = 20  # of the histogram
PEAKS, REACH = 100, 5  # RNAs whose strongest nucleotide the logo is made of, and letters on each side of it


def correlations(one_TA, other_TB) -> np.ndarray:
    """Pearson's correlations of the columns of two sparse matrices, [A, B]; 0 with one that never changes."""
    tokens, scales, means = one_TA.shape[0], [], []
    for values in (one_TA, other_TB):
        mean = np.asarray(values.mean(0), float).ravel()
        variance = np.asarray(values.astype(float).power(2).mean(0)).ravel() - mean**2
        means.append(mean)
        scales.append(np.sqrt(np.where(variance > 1e-12 * mean**2, variance, np.inf)))
    covariance_AB = dense(one_TA.astype(float).T @ other_TB.astype(float)) / tokens - np.outer(*means)
    return covariance_AB / np.outer(*scales)


class Example(NamedTuple):
    """An RNA with a feature's activation."""

    name: str
    split: str
    sequence: str
    structure: str
    share_L: np.ndarray  # of the feature's maximum
    marked_L: np.ndarray  # which nucleotides have the concept


class Known:
    """What the pages of all features read of the RNAs."""

    def __init__(self, rnas: Activations):
        self.records, tokens = rnas.records, rnas.tokens
        self.record_T, self.position_T = tokens.record.to_numpy(), tokens.position.to_numpy()
        self.start_S = np.searchsorted(self.record_T, np.arange(len(rnas.records) + 1))
        self.names = [rna_name(record) for _, record in rnas.records.iterrows()]
        self.family_S = rnas.records.get("family", rnas.records.id).fillna(rnas.records.id).to_numpy()
        self.heldout_S = (rnas.records.split == "heldout").to_numpy()
        self.labels = annotate(tokens, rnas.records)
        self.members = self.labels.members.tocsc()
        padded = [np.pad(codes, REACH, constant_values=-1) for codes in encode_bases(rnas.records.sequence)]
        self.code_L, size_S = np.concatenate(padded), np.array(list(map(len, padded)))
        self.place_T = (np.cumsum(size_S) - size_S)[
            self.record_T
        ] + self.position_T  # a window's first letter
        base_T = pd.Categorical(tokens.base, categories=list(NUCLEOTIDES)).codes
        element_T = pd.Categorical(tokens.element, categories=list(ELEMENTS)).codes
        self.kinds = {"base": (list(NUCLEOTIDES), base_T), "element": (list(ELEMENTS.values()), element_T)}
        self.shares = {
            kind: np.bincount(code_T, minlength=len(of)) / len(code_T)
            for kind, (of, code_T) in self.kinds.items()
        }

    def has(self, group: str, concept: str) -> np.ndarray:
        """Which tokens have a concept, boolean [T]; none has the concept without a name."""
        has_T = np.zeros(len(self.record_T), bool)
        if not concept:
            return has_T
        column = [*zip(self.labels.groups, self.labels.concepts)].index((group, concept))
        has_T[self.members.indices[slice(*self.members.indptr[column : column + 2])]] = True
        return has_T


class Firing:
    """Where one feature fires (rows of the token table, ascending) and how strongly."""

    def __init__(self, known: Known, row_N: np.ndarray, value_N: np.ndarray):
        fires = value_N > 0
        self.known, self.row_N, self.value_N = known, row_N[fires], value_N[fires]
        self.maximum, self.record_N = float(self.value_N.max(initial=0)), known.record_T[self.row_N]
        self.records_S, start = np.unique(self.record_N, return_index=True)
        self.most_S = np.maximum.reduceat(self.value_N, start) if len(start) else self.value_N
        self.order_S = np.argsort(-self.most_S, kind="stable")

    def histogram(self) -> tuple[np.ndarray, float]:
        return np.histogram(self.value_N, BINS, (0, self.maximum or 1))[0], self.maximum

    def where(self) -> pd.DataFrame:
        tables = []
        for kind, (names, code_T) in self.known.kinds.items():
            share = np.bincount(code_T[self.row_N], minlength=len(names)) / max(len(self.row_N), 1)
            columns = {"kind": kind, "name": names, "firing": share, "all": self.known.shares[kind]}
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def logo(self) -> tuple[np.ndarray, int, int]:
        """Shares of the letters around the strongest nucleotide of the `PEAKS` RNAs where it is strongest,
        every family counting as one; how many RNAs and families."""
        strongest = self.order_S[:PEAKS]
        most_N = np.full(len(self.known.records), np.inf)
        most_N[self.records_S[strongest]] = self.most_S[strongest]
        rows = np.flatnonzero(self.value_N == most_N[self.record_N])
        rows = rows[np.unique(self.record_N[rows], return_index=True)[1]]  # the first of equals
        window_PW = self.known.code_L[self.known.place_T[self.row_N[rows], None] + np.arange(2 * REACH + 1)]
        family_P = np.unique(self.known.family_S[self.record_N[rows]], return_inverse=True)[1]
        weight_P = 1 / np.bincount(family_P)[family_P] if len(rows) else np.empty(0)
        count_W4 = np.stack([weight_P @ (window_PW == code) for code in range(len(NUCLEOTIDES))], axis=1)
        with np.errstate(invalid="ignore"):
            share_W4 = count_W4 / count_W4.sum(1, keepdims=True)
        return share_W4, len(rows), int(family_P.max(initial=-1)) + 1

    def examples(self, has_T: np.ndarray) -> list[Example]:
        """RNAs at even ranks from the one where it is strongest to the one where it is weakest."""
        ranks = np.unique(np.linspace(0, len(self.order_S) - 1, EXAMPLES).round().astype(int))
        return [self._example(int(self.records_S[self.order_S[rank]]), has_T) for rank in ranks]

    def _example(self, record: int, has_T: np.ndarray) -> Example:
        facts, known = self.known.records.iloc[record], self.known
        rows = slice(*known.start_S[record : record + 2])
        share_L, marked_L = np.zeros(len(facts.sequence)), np.zeros(len(facts.sequence), bool)
        own = slice(*np.searchsorted(self.row_N, [rows.start, rows.stop]))
        share_L[known.position_T[self.row_N[own]]] = self.value_N[own] / self.maximum
        marked_L[known.position_T[rows]] = has_T[rows]
        structure = facts.secondary_structure
        return Example(known.names[record], facts.split, facts.sequence, structure, share_L, marked_L)

    def counterexamples(self, has_T: np.ndarray) -> tuple[list[Example], list[Example], dict]:
        """Held-out RNAs with most of a concept in which it never fires there, those in which it is strongest
        outside of it, and how many there are. has_T : which tokens have the concept"""
        known, size = self.known, len(self.known.records)
        having_S = np.bincount(known.record_T[has_T], minlength=size) * known.heldout_S
        within_N = has_T[self.row_N]
        hits_S = np.bincount(self.record_N[within_N], minlength=size)
        astray_S = np.zeros(size)
        np.maximum.at(astray_S, self.record_N[~within_N], self.value_N[~within_N])
        astray_S *= known.heldout_S
        missed_S = np.where(hits_S == 0, having_S, 0)
        fires_S = np.bincount(self.record_N, minlength=size) * known.heldout_S > 0
        numbers = {"having": int((having_S > 0).sum()), "missed": int((missed_S > 0).sum())}
        numbers |= {"firing": int(fires_S.sum()), "astray": int((fires_S & (hits_S == 0)).sum())}
        silent, outside = (
            [
                self._example(s, has_T)
                for s in np.argsort(-of_S, kind="stable")[:COUNTEREXAMPLES]
                if of_S[s] > 0
            ]
            for of_S in (missed_S, astray_S)
        )
        return silent, outside, numbers
