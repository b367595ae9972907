"""Training batches: RNAs of families and of the grammar, masked, with exact conditional targets, almost
without padding.

RNAs are drawn a pool at a time, sorted by length and cut into batches. A pool is a pure function of the
recipe and its number.

Shapes: S RNAs, N nucleotides (all RNAs of a collection, one behind the other), B RNAs of a batch padded to W
tokens, M chosen positions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import synthetic
from multimolecule import RnaTokenizer
from safetensors.numpy import load_file
from synthetic import BASES, STAGES, draw_structure, draw_with_targets, stack_pair_tables

from sae_rna.records.structure import dot_bracket, pair_table, split_pseudoknots

#: Fates of a chosen position: mask token, random base, and the rest stays. More random ones than BERT's 10 %:
#: a visible base that must be checked against its partner makes the model represent pairing at visible bases
#: too, where it is read later.
HIDDEN, REPLACED = 0.5, 0.35
#: Share of chosen positions: more than RiNALMo's 15 %, as a loss costs next to nothing beside the forward
#: pass that it needs.
CHOSEN = 0.28
#: Share of RNAs whose mask spares partners, of families and of the generator.
SPARED_OF_FAMILIES, SPARED_OF_SYNTHETIC = 0.5, 0.75


class Rnas(NamedTuple):
    """RNAs of one source, one behind the other."""

    bases: np.ndarray
    """[N], indices into ACGU."""
    partner: np.ndarray
    """[N], index in this array of the pairing partner, -1 unpaired."""
    probability: np.ndarray
    """[N, 4], the source's probability of every base at each place, given the base of the pairing partner."""
    lengths: np.ndarray
    """[S]"""

    @classmethod
    def joined(cls, parts: list["Rnas"]) -> "Rnas":
        first = np.cumsum([0] + [len(part.bases) for part in parts[:-1]])
        moved = [np.where(part.partner >= 0, part.partner + start, -1) for part, start in zip(parts, first)]
        parts = [part._replace(partner=partner) for part, partner in zip(parts, moved)]
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts)))


class Batch(NamedTuple):
    """RNAs of like length."""

    ids: np.ndarray
    """[B, W] token ids, some of them hidden or replaced."""
    lengths: np.ndarray
    """[B] tokens of each row, special ones included."""
    chosen: np.ndarray
    """[M] places in the flattened batch where there is a loss."""
    targets: np.ndarray
    """[M, 4] probability of every base there."""
    paired: np.ndarray
    """[M] whether the place is paired."""
    nucleotides: int


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices start, start + 1, ... of every run, one run behind the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


class Corpus:
    """The training families' RNAs.

    From a safetensors file with the tensors ``bases`` [N], ``partner`` and ``cm_partner`` [N] (index within
    the RNA of the partner in its own structure and in the covariance model's, -1 none), ``target`` [N] (first
    of five rows of ``targets``: P(base | partner's base A, C, G or U) and, last, P(base) without a partner;
    -1 where only the base itself is known), ``targets`` [R, 4], ``start`` [S+1], ``family`` and ``type`` [S],
    ``noise`` [S] (the exponent that sharpened the covariance model; 0 for natural RNAs) and ``natural`` [S].
    """

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.bases, self.partner = tensors["bases"], tensors["partner"]
        self.cm_partner = tensors["cm_partner"]
        self.target, self.targets, self.start = tensors["target"], tensors["targets"], tensors["start"]
        self.family, self.type = tensors["family"].astype(int), tensors["type"].astype(int)
        self.noise, self.natural = tensors["noise"], tensors["natural"].astype(bool)
        self.lengths = np.diff(self.start)

    @classmethod
    def read(cls, path: Path) -> "Corpus":
        """A corpus file, or the training split of a table of records, whose targets are the bases."""
        if path.suffix == ".parquet":
            records = pd.read_parquet(path)
            return cls.of_records(records[records.split == "train"])
        return cls(load_file(path))

    @classmethod
    def of_records(cls, records: pd.DataFrame) -> "Corpus":
        lengths = records.sequence.str.len().to_numpy()
        nested = [dot_bracket(split_pseudoknots(text)[0]) for text in records.secondary_structure]
        total = lengths.sum()
        return cls({
            "bases": encode("".join(records.sequence)),
            "partner": np.concatenate([pair_table(text) for text in nested]),
            "cm_partner": np.full(total, -1), "target": np.full(total, -1), "targets": np.full((5, 4), 0.25),
            "start": np.concatenate([[0], np.cumsum(lengths)]),
            "family": pd.factorize(records.family)[0], "type": pd.factorize(records.type)[0],
            "noise": np.zeros(len(records)), "natural": (records.origin == "natural").to_numpy(),
        })  # fmt: skip

    def joined(self, other: "Corpus") -> "Corpus":
        """Both corpora; the families and types of `other` count as further ones."""
        moved = vars(other) | {
            "target": np.where(other.target >= 0, other.target + len(self.targets), -1),
            "family": other.family + self.family.max() + 1, "type": other.type + self.type.max() + 1,
            "start": other.start[1:] + self.start[-1],
        }  # fmt: skip
        return Corpus({
            name: np.concatenate([values, moved[name]]).astype(values.dtype)
            for name, values in vars(self).items() if name != "lengths"
        })  # fmt: skip

    def take(self, rows: np.ndarray) -> Rnas:
        """Some RNAs with their exact targets, one-hot where no distribution is known."""
        lengths, first = self.lengths[rows], np.repeat(self.start[rows], self.lengths[rows])
        place = ragged(self.start[rows], lengths)
        offset = np.repeat(np.cumsum(lengths) - lengths, lengths)
        bases, target, model_partner = (
            self.bases[place].astype(int),
            self.target[place],
            self.cm_partner[place],
        )
        code = np.where(model_partner >= 0, self.bases[first + model_partner], 4)
        probability = np.where(
            (target >= 0)[:, None], self.targets[np.maximum(target, 0) + code], np.eye(4)[bases]
        )
        partner = self.partner[place].astype(int)
        return Rnas(bases, np.where(partner >= 0, partner + offset, -1), probability, lengths)

    def pair_tables(self, rows: np.ndarray) -> np.ndarray:
        """Structures [S, W] alone, as `synthetic.stack_pair_tables` stacks them."""
        table = np.full((len(rows), self.lengths[rows].max()), synthetic.PADDING)
        inside = np.arange(table.shape[1]) < self.lengths[rows][:, None]
        table[inside] = self.partner[ragged(self.start[rows], self.lengths[rows])]
        return table

    def weights(self, natural: float, sharpness: float) -> np.ndarray:
        """Probability of each RNA, up to a factor.

        Natural RNAs get the share `natural` of all nucleotides. Sampled types get nucleotides by the square
        root of their number of families, which share them alike; natural families by the square root of their
        number of RNAs. `sharpness` > 0 prefers samples of a high exponent (little noise).
        """
        weights = np.zeros(len(self.lengths))
        for chosen, share in ((self.natural, natural), (~self.natural, 1 - natural)):
            if chosen.any():
                tokens = np.exp(sharpness * self.noise[chosen])
                family, member = np.unique(self.family[chosen], return_inverse=True)
                kind = np.zeros(len(family), dtype=int)
                kind[member] = self.type[chosen]
                families = np.bincount(kind)[kind]
                of_family = np.bincount(member) ** 0.5 if chosen is self.natural else families**-0.5
                tokens *= (of_family / np.bincount(member, tokens))[member]
                weights[chosen] = share * tokens / tokens.sum() / self.lengths[chosen]
        return weights


def encode(sequence: str) -> np.ndarray:
    """Indices into ACGU."""
    table = np.full(128, -1)
    table[[ord(base) for base in BASES]] = range(4)
    codes = table[np.frombuffer(sequence.encode("ascii"), np.uint8)]
    if (codes < 0).any():
        raise ValueError(
            f"a sequence for training holds {sequence[int(np.argmax(codes < 0))]!r}: not A, C, G, U"
        )
    return codes


@dataclass(frozen=True)
class Mixture:
    """What a pool is made of; shares of its nucleotides. The rest are freshly drawn helices."""

    families: float
    redrawn: float
    """Structures of the training families with freshly drawn bases."""
    natural: float
    """Of the nucleotides of the families."""
    sharpness: float
    """See `Corpus.weights`."""


#: Shares of the grammars' nucleotides.
SHARES = (0.15, 0.15, 0.15, 0.15, 0.4)


def draw_helices(tokens: float, rng: np.random.Generator, shares=SHARES) -> list[Rnas]:
    """Synthetic RNAs of every grammar that has a share."""
    drawn = []
    for grammar, share in zip(STAGES, shares):
        structures, left = [], share * tokens
        while left > 0:
            structures.append(draw_structure(grammar, rng))
            left -= len(structures[-1])
        if structures:
            drawn.append(of_tables(stack_pair_tables(structures), rng, grammar.wobble, grammar.tetraloops))
    return drawn


def of_tables(table_SW: np.ndarray, rng: np.random.Generator, wobble: float, tetraloops: float) -> Rnas:
    """RNAs with freshly drawn bases for the structures of `table_SW`."""
    bases, probability = draw_with_targets(table_SW, rng, wobble, tetraloops)
    inside = table_SW != synthetic.PADDING
    lengths = inside.sum(1)
    partner = table_SW + (np.cumsum(lengths) - lengths)[:, None]
    return Rnas(bases[inside], np.where(table_SW >= 0, partner, -1)[inside], probability[inside], lengths)


class Pools:
    """Batches of a run.

    Rows of a batch are as long as its longest RNA or, given `widths`, as the next of those (in tokens).
    """

    def __init__(
        self, corpus: Corpus, seed: int, batch_tokens: int, batches: int, widths: tuple[int, ...] = ()
    ):
        self.corpus, self.seed, self.batch_tokens, self.batches = corpus, seed, batch_tokens, batches
        self.widths = widths
        tokenizer = RnaTokenizer()
        names = ("cls_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
        self.special = tuple(getattr(tokenizer, name) for name in names)
        self.base_ids = np.array(tokenizer.convert_tokens_to_ids(list(BASES)))

    def draw(self, number: int, mixture: Mixture) -> tuple[list[Batch], int]:
        """The batches of one pool in random order, and how many of its nucleotides the generator drew (about:
        RNAs are left out whatever their source)."""
        rng = np.random.default_rng([self.seed, number])
        tokens = self.batch_tokens * self.batches
        families = []
        if mixture.families:
            weights = np.cumsum(self.corpus.weights(mixture.natural, mixture.sharpness))
            families = [self.corpus.take(self._some(weights, mixture.families * tokens, rng))]
        drawn = draw_helices((1 - mixture.families - mixture.redrawn) * tokens, rng)
        if mixture.redrawn:
            rows = self._some(np.cumsum(self.corpus.weights(0.02, 0.0)), mixture.redrawn * tokens, rng)
            drawn.append(of_tables(self.corpus.pair_tables(rows), rng, wobble=0.1, tetraloops=0.3))
        rnas = Rnas.joined(families + drawn)
        of_families = sum(len(part.lengths) for part in families)
        spared = np.where(np.arange(len(rnas.lengths)) < of_families, SPARED_OF_FAMILIES, SPARED_OF_SYNTHETIC)
        batches = self.cut(rnas, *self.mask(rnas, spared, rng), rng, self.batches)
        kept = sum(batch.nucleotides for batch in batches) / len(rnas.bases)
        return batches, kept * sum(part.lengths.sum() for part in drawn)

    def _some(self, cumulated: np.ndarray, tokens: float, rng: np.random.Generator) -> np.ndarray:
        """Rows of RNAs with about so many nucleotides together."""
        mean = (np.diff(cumulated, prepend=0) * self.corpus.lengths).sum() / cumulated[-1]
        rows = np.searchsorted(
            cumulated, rng.random(max(1, round(tokens / mean))) * cumulated[-1], side="right"
        )
        return np.minimum(rows, len(cumulated) - 1)

    def mask(self, rnas: Rnas, spared_S: np.ndarray, rng: np.random.Generator):
        """Token ids [N], chosen positions [N] and targets [N, 4].

        The chosen positions are random ones or, for the share `spared_S` of RNAs, never both ends of a pair
        but one end of half of the pairs: that teaches pairing several times faster. Targets are the source's
        distributions where the base is hidden or replaced, and the base itself where it stays.
        """
        spare = np.repeat(rng.random(len(rnas.lengths)) < spared_S, rnas.lengths)
        paired = rnas.partner >= 0
        chosen = rng.random(len(paired)) < CHOSEN
        both = spare & paired & chosen & chosen[rnas.partner]
        chosen &= ~(both & (rnas.partner < np.arange(len(paired))))
        fate = rng.random(len(paired))
        ids = self.base_ids[rnas.bases]
        ids[chosen & (fate < HIDDEN)] = self.special[3]
        replaced = chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED)
        ids[replaced] = self.base_ids[rng.integers(4, size=replaced.sum())]
        targets = np.where((fate < HIDDEN + REPLACED)[:, None], rnas.probability, np.eye(4)[rnas.bases])
        return ids, chosen, targets

    def cut(
        self, rnas: Rnas, ids, chosen, targets, rng: np.random.Generator, count: int | None = None
    ) -> list[Batch]:
        """Batches of RNAs of like length; RNAs are left out at random until they fit into `count` batches."""
        order = rng.permutation(len(rnas.lengths))
        while True:
            by_length = order[np.argsort(-rnas.lengths[order], kind="stable")]
            groups, first = [], 0
            while first < len(by_length):
                rows = self.batch_tokens // self._width(rnas.lengths[by_length[first]])
                groups.append(by_length[first : first + max(1, rows)])
                first += len(groups[-1])
            if count is None or len(groups) <= count:
                return [
                    self._batch(rnas, ids, chosen, targets, groups[number])
                    for number in rng.permutation(len(groups))
                ]
            order = order[: int(len(order) * 0.995) - 1]

    def _width(self, longest: int) -> int:
        """Tokens of a row whose longest RNA has so many nucleotides."""
        return next((width for width in self.widths if width >= longest + 2), longest + 2)

    def _batch(self, rnas: Rnas, ids, chosen, targets, members: np.ndarray) -> Batch:
        cls, eos, pad, _ = self.special
        lengths = rnas.lengths[members]
        place = ragged((np.cumsum(rnas.lengths) - rnas.lengths)[members], lengths)
        column = np.arange(self._width(lengths.max()))
        grid = np.full((len(members), len(column)), pad)
        inside = (column >= 1) & (column <= lengths[:, None])
        grid[inside] = ids[place]
        grid[:, 0] = cls
        grid[np.arange(len(members)), lengths + 1] = eos
        picked = chosen[place]
        where = np.nonzero(inside.ravel())[0][picked]
        targets = targets[place][picked].astype(np.float32)
        return Batch(grid, lengths + 2, where, targets, rnas.partner[place][picked] >= 0, len(place))
