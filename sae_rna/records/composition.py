"""What a sequence is made of: base codes, windows, k-mers, GC content, length; dinucleotides shuffled."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

NUCLEOTIDES = "ACGU"


def encode_bases(sequences: Sequence[str]) -> list[np.ndarray]:
    """Index into ACGU of every base, -1 for any other letter."""
    table = np.full(128, -1)
    table[[ord(base) for base in NUCLEOTIDES]] = range(4)
    return [table[np.frombuffer(sequence.encode("ascii"), np.uint8)] for sequence in sequences]


def _around(sequences: Sequence[str], before: int, after: int) -> np.ndarray:
    """Codes of the bases around every A, C, G and U, [T, before + 1 + after]; -1 for any other or none."""
    rows = [np.empty((0, before + 1 + after), np.int64)]
    for codes in encode_bases(sequences):
        padded = np.pad(codes, (before, after), constant_values=-1)
        rows.append(np.lib.stride_tricks.sliding_window_view(padded, before + 1 + after)[codes >= 0])
    return np.concatenate(rows)


def one_hot_windows(sequences: Sequence[str], reach: int = 5) -> np.ndarray:
    """One-hot bases of the window of `reach` on both sides of every position, [T, 4 (2 reach + 1)].

    The columns of A come first, from left to right, then those of C, G and U; beyond the ends all is 0.
    Positions that are no A, C, G or U have no row, as in `LanguageModel.hidden_states`.
    """
    around = _around(sequences, reach, reach)
    one_hot = around[:, None] == np.arange(4)[:, None]
    return one_hot.reshape(len(around), 4 * (2 * reach + 1)).astype(np.float32)


def windows(sequences: Sequence[str], reach: int = 5) -> sparse.csr_matrix:
    """`one_hot_windows` as a sparse matrix."""
    return sparse.csr_matrix(one_hot_windows(sequences, reach))


def kmers(sequences: Sequence[str], k: int) -> sparse.csr_matrix:
    """The k-mer around every nucleotide, the middle one or left of it, one-hot, [T, 4^k]; see `kmer_names`.

    A row is empty where the k-mer reaches beyond the ends or holds a letter other than A, C, G and U. Such
    letters have no row themselves.
    """
    if k < 1:
        raise ValueError(f"k-mers of {k} nucleotides are impossible: k is 1 or more")
    around, powers = _around(sequences, (k - 1) // 2, k // 2), 4 ** np.arange(k)[::-1]
    column_T, present_T = around @ powers, (around >= 0).all(axis=1)
    indptr = np.concatenate([[0], present_T.cumsum()])
    ones = np.ones(indptr[-1], np.float32)
    return sparse.csr_matrix((ones, column_T[present_T], indptr), shape=(len(column_T), 4**k))


def kmer_names(k: int) -> list[str]:
    """Names of the columns of `kmers`, from AA...A to UU...U."""
    return ["".join(letters) for letters in product(NUCLEOTIDES, repeat=k)]


def kmer_frequencies(sequences: Sequence[str], k: int) -> sparse.csr_matrix:
    """Share of each k-mer among all k-mers of A, C, G and U in every sequence, [S, 4^k]; see `kmer_names`."""
    counter = CountVectorizer(analyzer="char", ngram_range=(k, k), lowercase=False, vocabulary=kmer_names(k))
    return normalize(counter.transform(sequences).astype(float), norm="l1")


def gc_content(sequences: Sequence[str]) -> np.ndarray:
    """Share of G and C among the A, C, G and U of every sequence, [S]; 0 if there are none."""
    return kmer_frequencies(sequences, 1)[:, [NUCLEOTIDES.index(base) for base in "GC"]].sum(axis=1).A1


def length_and_gc(sequences: Sequence[str]) -> np.ndarray:
    """Log length and GC content of every sequence, [S, 2]: what types may differ in without any feature."""
    return np.column_stack([np.log([max(len(sequence), 1) for sequence in sequences]), gc_content(sequences)])


def shuffle_dinucleotides(sequence: str, rng: np.random.Generator) -> str:
    """A sequence with the same number of every dinucleotide and the same first and last letter.

    Drawn uniformly from all there are (Altschul & Erickson 1985, Molecular Biology and Evolution 2:526): a
    walk that takes every dinucleotide once, whose last exits from each letter all lead to the last letter.
    """
    if len(sequence) < 4:  # there is no other
        return sequence
    exits = {letter: [b for a, b in pairwise(sequence) if a == letter] for letter in sorted(set(sequence))}
    others = sorted(set(sequence) - {sequence[-1]})
    while True:
        last = {letter: exits[letter][rng.integers(len(exits[letter]))] for letter in others}
        arrived = {sequence[-1]}
        for _ in others:
            arrived |= {letter for letter in others if last[letter] in arrived}
        if arrived.issuperset(others):
            break
    walk = sequence[0]
    for letter, letters in exits.items():
        if letter in last:
            letters.remove(last[letter])
        rng.shuffle(letters)
        exits[letter] = [last[letter], *letters] if letter in last else letters
    while exits[walk[-1]]:
        walk += exits[walk[-1]].pop()
    return walk
