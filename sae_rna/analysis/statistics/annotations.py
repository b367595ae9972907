"""What is known of nucleotides and sequences: concepts, many of which may hold of one row, and their instances.

Concepts of nucleotides (`TOKEN_GROUPS`) come from sequence and secondary structure, concepts of sequences (`SEQUENCE_GROUPS`) from the
columns of the records. Shapes: N rows (tokens, or sequences), C concepts, S records, L positions of all records end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.records.structure import ELEMENTS, split_pseudoknots
from sae_rna.sae.features import record_runs, type_codes

#: Groups of concepts of nucleotides, see `annotate`.
TOKEN_GROUPS = ("element", "strand", "closing pair", "hairpin size", "tetraloop", "pair", "position")
#: Groups of concepts of sequences: columns of the records.
SEQUENCE_GROUPS = ("type", "family", "clan")


@dataclass(frozen=True)
class Annotations:
    """Which concepts every row has, and which instance of each."""

    concepts: tuple[str, ...]
    """Names of the concepts, in the order of every axis C."""
    groups: tuple[str, ...]
    """Group of every concept, [C]."""
    instance_NC: sparse.csr_matrix
    """Number of the instance of the concept that the row belongs to, from 1; not stored where the row lacks the concept. [N, C], int32.

    An instance is a maximal run of adjacent rows of one record that have the concept; of shifted annotations, what such a run became."""
    record_N: np.ndarray
    """Number of the row's record, from 0 in row order, [N]."""

    @classmethod
    def of(
        cls,
        concepts: Sequence[str],
        groups: Sequence[str],
        rows_C: Sequence[np.ndarray],
        record_N: np.ndarray,
    ) -> "Annotations":
        """Annotations of concepts given by the numbers of the rows that have them."""
        column = np.repeat(np.arange(len(concepts)), [len(rows) for rows in rows_C])
        row = np.concatenate([*rows_C, np.empty(0, np.int64)]).astype(np.int64)
        members = sparse.csr_matrix(
            (np.ones(len(row), np.int32), (row, column)), shape=(len(record_N), len(concepts))
        )
        return cls(tuple(concepts), tuple(groups), _numbered(members, record_N), record_N)

    @cached_property
    def members(self) -> sparse.csr_matrix:
        """Which rows have which concept, bool [N, C]."""
        return self.instance_NC.astype(bool)

    @cached_property
    def rows_C(self) -> np.ndarray:
        """Number of rows of every concept, [C]."""
        return np.bincount(self.instance_NC.indices, minlength=len(self.concepts))

    @cached_property
    def elements_C(self) -> np.ndarray:
        """Number of instances of every concept, [C]."""
        concept_E = np.zeros(self.instance_NC.data.max(initial=0), np.int64)
        concept_E[self.instance_NC.data - 1] = self.instance_NC.indices
        return np.bincount(concept_E, minlength=len(self.concepts))

    @property
    def per_sequence(self) -> bool:
        """Whether every row is a record of its own."""
        return len(self.record_N) > 0 and self.record_N[-1] + 1 == len(self.record_N)

    def shuffled(self, rng: np.random.Generator, family_S: np.ndarray | None = None) -> "Annotations":
        """Annotations that agree with the rows by chance alone: `shifted` tokens, or `permuted` sequences."""
        return self.permuted(rng, family_S) if self.per_sequence else self.shifted(rng, family_S)

    def shifted(self, rng: np.random.Generator, family_S: np.ndarray | None = None) -> "Annotations":
        """Annotations of which each record's is rotated by its own random offset of 1 to length - 1.

        Lengths, composition and instances stay, agreement with the sequence goes. An instance that comes to lie across the end of the
        record goes on at its beginning and is still one: cut in two it would be harder to find than the instances it is a null for. A
        record of one nucleotide stays as it is. Where `family_S` numbers the records' families, all records of a
        family are rotated by the same share of their length: they are copies of one structure, and chance would strike them together.
        """
        start_S = np.flatnonzero(np.diff(self.record_N, prepend=-1))
        length_S = np.diff(start_S, append=len(self.record_N))
        family_S = (
            np.arange(len(start_S)) if family_S is None else np.unique(family_S, return_inverse=True)[1]
        )
        share_S = rng.random(family_S.max(initial=-1) + 1)[family_S]
        offset_S = 1 + np.floor(share_S * (length_S - 1)).astype(np.int64)
        start_N, length_N, offset_N = start_S[self.record_N], length_S[self.record_N], offset_S[self.record_N]
        source_N = start_N + (np.arange(len(start_N)) - start_N + offset_N) % length_N
        return Annotations(self.concepts, self.groups, self.instance_NC[source_N], self.record_N)

    def permuted(self, rng: np.random.Generator, family_S: np.ndarray | None = None) -> "Annotations":
        """Annotations of sequences that change places, whole families at a time where `family_S` numbers them."""
        family_S = np.arange(len(self.record_N)) if family_S is None else family_S
        _, first, number_S = np.unique(family_S, return_index=True, return_inverse=True)
        taken_NC = self.instance_NC[rng.permutation(first)[number_S]]
        return Annotations(self.concepts, self.groups, _numbered(taken_NC, self.record_N), self.record_N)


def _numbered(labels_NC: sparse.csr_matrix, record_N: np.ndarray) -> sparse.csr_matrix:
    """Instances numbered from 1 in row order; an instance ends where the label in its column, or the record, changes."""
    labels_NC.sort_indices()
    number = _number(
        labels_NC.indptr,
        labels_NC.indices,
        labels_NC.data,
        np.asarray(record_N, np.int64),
        labels_NC.shape[1],
    )
    return sparse.csr_matrix((number, labels_NC.indices, labels_NC.indptr), shape=labels_NC.shape)


@numba.njit(cache=True)
def _number(start, concepts, labels, record_N, count):
    number, instances = np.empty(len(concepts), np.int32), 0
    last_row, last_entry = np.full(count, -2), np.zeros(count, np.int64)
    for row in range(len(record_N)):
        for entry in range(start[row], start[row + 1]):
            concept = concepts[entry]
            before = last_entry[concept]
            if (
                last_row[concept] == row - 1
                and record_N[row - 1] == record_N[row]
                and labels[before] == labels[entry]
            ):
                number[entry] = number[before]
            else:
                instances += 1
                number[entry] = instances
            last_row[concept], last_entry[concept] = row, entry
    return number


def annotate_elements(tokens: pd.DataFrame) -> Annotations:
    """Structural elements of a token table (columns record, position, element) as concepts, letters in the order of `ELEMENTS`.

    The two strands of a helix count as two instances, and so do the sides of an internal loop and the stretches of a multiloop; helices
    that touch on a strand count as one there. Raises ValueError naming a nucleotide without an element.
    """
    return Annotations.of(
        tuple(ELEMENTS),
        ("element",) * len(ELEMENTS),
        _element_rows(tokens),
        record_runs(tokens["record"].to_numpy()),
    )


def _element_rows(tokens: pd.DataFrame) -> list[np.ndarray]:
    letters = np.asarray(tokens["element"], dtype=object)
    element_N = pd.Index(list(ELEMENTS)).get_indexer(letters)
    if (element_N < 0).any():
        row = int((element_N < 0).argmax())
        record, position = tokens["record"].iloc[row], tokens["position"].iloc[row]
        raise ValueError(
            f"record {record}, position {position + 1}: '{letters[row]}' is no element; one of {' '.join(ELEMENTS)} is needed"
        )
    return [np.flatnonzero(element_N == number) for number in range(len(ELEMENTS))]


def annotate_types(type_S: Sequence[str], types: Sequence[str]) -> Annotations:
    """RNA types of sequences as concepts; every sequence is one row, one instance and one record."""
    codes_S, names = type_codes(type_S, types)
    rows_C = [np.flatnonzero(codes_S == number) for number in range(len(names))]
    return Annotations.of(tuple(names), ("type",) * len(names), rows_C, np.arange(len(codes_S)))


def annotate(
    tokens: pd.DataFrame, records: pd.DataFrame, groups: Sequence[str] = TOKEN_GROUPS
) -> Annotations:
    """Every concept of the chosen groups: of the nucleotides in `tokens`, or of the sequences they make up.

    tokens : columns record, position (0-based), base, element; one row per nucleotide in record order, some may be missing
    records : columns sequence, secondary_structure and those of the sequence groups; `record` is the number of a row here

    Pairs are those of the nested structure, a helix is a run of stacked pairs (i, j), (i + 1, j - 1), ..., and its strands are runs of
    nucleotides. The groups are

    element
        The eight of `structure.ELEMENTS`, by name.
    strand
        5' or 3' strand of a helix.
    closing pair
        The pair that closes a hairpin loop; the first and the last pair of every helix. Both nucleotides of either.
    hairpin size
        Hairpin loops of 3, 4, 5, 6, and 7 or more nucleotides. Nucleotides of a pseudoknot count for the size but are not marked.
    tetraloop
        Hairpin loops of 4 nucleotides that read GNRA or UNCG (N any, R = A or G).
    pair
        GC, AU and GU pairs, in either direction; both nucleotides.
    position
        First (5'-most), last and other nucleotides of a helix strand; one that stands alone is first and last.
    type, family, clan
        Columns of `records`; the rows are the sequences in order of appearance, as in `features.pool_sequences`. A sequence whose type
        (family, clan) is not known has none. Splits keep families together, so that a family or clan that one split has the other
        lacks: score these groups on two halves of the same families' sequences, or not at all.

    Concepts are the same for all tokens of one `records` table. Raises ValueError where groups of nucleotides and of sequences are mixed,
    where a column is missing and where tokens do not fit the records, naming the first of them.
    """
    groups = tuple(groups)
    kinds = [set(groups) <= set(TOKEN_GROUPS), set(groups) <= set(SEQUENCE_GROUPS)]
    if not groups or not any(kinds):
        token, sequence = ", ".join(TOKEN_GROUPS), ", ".join(SEQUENCE_GROUPS)
        raise ValueError(
            f"groups are either of nucleotides ({token}) or of sequences ({sequence}), not {', '.join(groups) or 'none'}"
        )
    needed = ("sequence", "secondary_structure") if kinds[0] else groups
    missing = [name for name in needed if name not in records]
    if missing:
        raise ValueError(
            f"the records have no column {missing[0]}, which the concepts need: add it or leave out its group"
        )
    record_N = record_runs(tokens["record"].to_numpy())
    number_S = tokens["record"].to_numpy()[np.flatnonzero(np.diff(record_N, prepend=-1))]
    if len(number_S) and not 0 <= number_S.min() <= number_S.max() < len(records):
        raise ValueError(
            f"tokens are of records up to {number_S.max()}, but there are {len(records)}: both must come from one table"
        )
    if kinds[1]:
        return _sequence_concepts(records, groups, number_S)
    place_N, base_L, partner_L, crossing_L = _end_to_end(tokens, records, record_N, number_S)
    marked = _structure_concepts(base_L, partner_L, crossing_L)
    concepts, labels, rows_C = [], [], []
    for group in groups:
        if group == "element":
            made = dict(zip(ELEMENTS.values(), _element_rows(tokens)))
        else:
            made = {name: np.flatnonzero(mask_L[place_N]) for name, mask_L in marked[group].items()}
        concepts += made.keys()
        labels += [group] * len(made)
        rows_C += made.values()
    return Annotations.of(concepts, labels, rows_C, record_N)


def _sequence_concepts(records: pd.DataFrame, groups: tuple[str, ...], number_S: np.ndarray) -> Annotations:
    concepts, labels, rows_C = [], [], []
    for group in groups:
        codes, names = pd.factorize(records[group], sort=True)
        order = np.argsort(codes[number_S], kind="stable")
        ends = np.searchsorted(codes[number_S][order], np.arange(len(names) + 1))
        concepts += map(str, names)
        labels += [group] * len(names)
        rows_C += np.split(order, ends)[1:-1]
    return Annotations.of(concepts, labels, rows_C, np.arange(len(number_S)))


def _end_to_end(tokens, records, record_N, number_S) -> tuple[np.ndarray, ...]:
    """All positions of the records in `tokens`, one record after another: place of every token [N], base, partner and crossing [L]."""
    used = records.iloc[number_S]
    length_S = used["sequence"].str.len().to_numpy(dtype=np.int64)
    start_S = np.cumsum(length_S) - length_S
    partners, crossings = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for number, start, length, structure in zip(number_S, start_S, length_S, used["secondary_structure"]):
        if not isinstance(structure, str) or len(structure) != length:
            what = f"{len(structure)} symbols" if isinstance(structure, str) else "nothing"
            raise ValueError(
                f"record {number} has {length} nucleotides and a secondary structure of {what}: one symbol each is needed"
            )
        nested, crossing = split_pseudoknots(structure)
        partners.append(np.where(nested < 0, -1, nested + start))
        crossings.append(crossing >= 0)
    base_L = np.frombuffer("".join(used["sequence"]).encode("ascii", "replace"), np.uint8)
    position_N = tokens["position"].to_numpy()
    place_N = start_S[record_N] + position_N
    wrong_N = position_N >= length_S[record_N]
    if "base" in tokens and not wrong_N.any():
        wrong_N = base_L[place_N] != np.asarray(tokens["base"], dtype="S1").view(np.uint8)
    if wrong_N.any():
        row = int(wrong_N.argmax())
        record, position = tokens["record"].iloc[row], position_N[row]
        raise ValueError(
            f"record {record}, position {position + 1}: token and sequence differ; both must come from one table of records"
        )
    return place_N, base_L, np.concatenate(partners), np.concatenate(crossings)


def _structure_concepts(
    base_L: np.ndarray, partner_L: np.ndarray, crossing_L: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Group -> concept -> positions that have it, bool [L]. No pair leaves its record, so that records need no border here."""
    paired = partner_L >= 0
    five = partner_L > np.arange(len(partner_L))
    three = paired & ~five
    after = np.zeros(len(partner_L), bool)  # the next position goes on with the same strand
    after[:-1] = paired[:-1] & paired[1:] & (five[:-1] == five[1:]) & (partner_L[1:] == partner_L[:-1] - 1)
    before = np.zeros_like(after)
    before[1:] = after[:-1]

    place = np.flatnonzero(paired)
    closes = partner_L[place[:-1]] == place[1:]  # nothing paired between the two
    left, right = place[:-1][closes], place[1:][closes]
    left, right = left[right - left > 1], right[right - left > 1]

    def loops(chosen: np.ndarray) -> np.ndarray:
        edge = np.zeros(len(partner_L) + 1, np.int64)
        edge[left[chosen] + 1] += 1
        edge[right[chosen]] -= 1
        return (np.cumsum(edge[:-1]) > 0) & ~crossing_L

    size = right - left - 1
    sizes = {f"hairpin loop of {length} nt": loops(size == length) for length in (3, 4, 5, 6)}
    first, _, third, fourth = (base_L[np.minimum(left + offset, len(base_L) - 1)] for offset in (1, 2, 3, 4))
    gnra = (first == ord("G")) & ((third == ord("A")) | (third == ord("G"))) & (fourth == ord("A"))
    uncg = (first == ord("U")) & (third == ord("C")) & (fourth == ord("G"))
    closing = np.zeros_like(paired)
    closing[left] = closing[right] = True

    def pairs(a: str, b: str) -> np.ndarray:
        here, there = base_L, base_L[partner_L]
        return paired & (((here == ord(a)) & (there == ord(b))) | ((here == ord(b)) & (there == ord(a))))

    return {
        "strand": {"5' strand": five, "3' strand": three},
        "closing pair": {"hairpin-closing pair": closing, "helix-end pair": paired & ~(before & after)},
        "hairpin size": sizes | {"hairpin loop of 7+ nt": loops(size >= 7)},
        "tetraloop": {
            "GNRA tetraloop": loops((size == 4) & gnra),
            "UNCG tetraloop": loops((size == 4) & uncg),
        },
        "pair": {f"{name} pair": pairs(*name) for name in ("GC", "AU", "GU")},
        "position": {
            "strand start": paired & ~before,
            "strand end": paired & ~after,
            "strand middle": before & after,
        },
    }
