"""What is known of nucleotides and sequences: concepts, several of which may hold of one row.

Shapes: N rows (tokens or sequences), C concepts, E entries (concepts of rows), S records, L their positions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.records.structure import ELEMENTS, split_pseudoknots
from sae_rna.sae.features import run_numbers, to_csr


@dataclass(frozen=True)
class Annotations:
    """Which concepts every row has, and which instance of each."""

    concepts: tuple[str, ...]
    groups: tuple[str, ...]  # of every concept
    instance_NC: sparse.csr_matrix
    """Number, from 1, of the instance (run of adjacent rows of a record) of each concept that a row has."""
    record_N: np.ndarray  # number of the row's record, from 0 in row order

    @classmethod
    def of(cls, concepts: Sequence[str], groups: Sequence[str], members_NC, record_N: np.ndarray):
        """From which rows have which concept, bool [N, C], dense or sparse."""
        instance_NC = number_instances(to_csr(members_NC), record_N)
        return cls(tuple(concepts), tuple(groups), instance_NC, record_N)

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
        concept_by_instance = np.zeros(self.instance_NC.data.max(initial=0), np.int64)
        concept_by_instance[self.instance_NC.data - 1] = self.instance_NC.indices
        return np.bincount(concept_by_instance, minlength=len(self.concepts))

    @property
    def per_sequence(self) -> bool:
        """Whether every row is a record of its own."""
        return len(self.record_N) > 0 and self.record_N[-1] + 1 == len(self.record_N)


def number_instances(labels_NC: sparse.spmatrix, record_N: np.ndarray) -> sparse.csr_matrix:
    """Instances numbered from 1, [N, C]; one ends with its record and where the label changes or is none."""
    labels = sparse.csc_matrix(labels_NC)
    labels.sort_indices()
    row_E, concept_E = labels.indices, np.repeat(np.arange(labels.shape[1]), np.diff(labels.indptr))
    run_E = run_numbers(concept_E, record_N[row_E], labels.data, row_E - np.arange(len(row_E)))
    number_E = (1 + run_E).astype(np.int32)
    return sparse.csc_matrix((number_E, row_E, labels.indptr), shape=labels.shape).tocsr()


def annotate_elements(tokens: pd.DataFrame) -> Annotations:
    """Structural elements, by letter, of a token table (columns record, element).

    The strands of a helix, the sides of an internal loop and the stretches of a multiloop are instances of
    their own; helices that touch are one.
    """
    record_N = run_numbers(tokens["record"].to_numpy())
    members_NC = _members(tokens["element"], list(ELEMENTS))
    return Annotations.of(list(ELEMENTS), ["element"] * len(ELEMENTS), members_NC, record_N)


def annotate_types(type_S: Sequence[str], types: Sequence[str]) -> Annotations:
    """RNA types of sequences as concepts; every sequence is one row, one instance and one record."""
    return Annotations.of(types, ["type"] * len(types), _members(type_S, types), np.arange(len(type_S)))


def _members(label_N: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Which row has which name, bool [N, names]."""
    return pd.Categorical(label_N, categories=names).codes[:, None] == np.arange(len(names))


def annotate(tokens: pd.DataFrame, records: pd.DataFrame) -> Annotations:
    """Every concept of nucleotides, by group.

    tokens : columns record, position (0-based), element; in record order, nucleotides may be missing
    records : columns sequence, secondary_structure; `record` is the number of a row here

    Pairs are those of the nested structure; a helix is a run of stacked pairs (i, j), (i + 1, j - 1), ...

    element : the eight of `structure.ELEMENTS`, by name; strand : 5' or 3' strand of a helix
    closing pair : both nucleotides of the pair that closes a hairpin loop; of the first and last of a helix
    hairpin size : loops of 3, 4, 5, 6, and 7 or more; pseudoknotted nucleotides count but are not marked
    tetraloop : hairpin loops of 4 nucleotides that read GNRA or UNCG (N any, R = A or G)
    pair : both nucleotides of GC, AU and GU pairs, in either direction
    position : first (5'-most), last and middle nucleotides of a strand; a single one is first and last
    """
    record_N = run_numbers(tokens["record"].to_numpy())
    used = records.iloc[tokens["record"].unique()]
    length_S = used["sequence"].str.len().to_numpy(dtype=np.int64)
    start_S = np.cumsum(length_S) - length_S  # of every record, all of them laid end to end: places L
    partners, crossings = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for start, structure in zip(start_S, used["secondary_structure"]):
        nested, crossing = split_pseudoknots(structure)
        partners.append(np.where(nested < 0, -1, nested + start))
        crossings.append(crossing >= 0)
    base_L = np.frombuffer("".join(used["sequence"]).encode(), np.uint8)
    marked = _structure_concepts(base_L, np.concatenate(partners), np.concatenate(crossings))
    place_N = start_S[record_N] + tokens["position"].to_numpy()
    elements = dict(zip(ELEMENTS.values(), _members(tokens["element"], list(ELEMENTS)).T))
    found = {("element", name): mask_N for name, mask_N in elements.items()}
    found |= {(group, name): mask_L[place_N] for group in marked for name, mask_L in marked[group].items()}
    groups, names = zip(*found)
    return Annotations.of(names, groups, np.column_stack([*found.values()]), record_N)


def _structure_concepts(base_L, partner_L, crossing_L) -> dict[str, dict[str, np.ndarray]]:
    """Group -> concept -> places that have it, bool [L]; no pair leaves its record: borders do not matter."""
    length, paired, five = len(partner_L), partner_L >= 0, partner_L > np.arange(len(partner_L))
    stacked = paired[:-1] & paired[1:] & (five[:-1] == five[1:]) & (np.diff(partner_L) == -1)
    # whether the position before, or after, is of the same strand
    before, after = np.append(False, stacked)[:length], np.append(stacked, False)[:length]
    start, end = paired & ~before, paired & ~after
    place = np.flatnonzero(paired)
    closes = (partner_L[place[:-1]] == place[1:]) & (np.diff(place) > 1)  # nothing paired between the two
    left, right = place[:-1][closes], place[1:][closes]
    size, letters = right - left - 1, base_L.tobytes().decode()
    closing = np.zeros_like(paired)
    closing[left] = closing[right] = True

    def loops(chosen: np.ndarray) -> np.ndarray:
        edge = np.zeros(length, np.int64)
        edge[left[chosen] + 1], edge[right[chosen]] = 1, -1
        return (np.cumsum(edge) > 0) & ~crossing_L

    def tetraloops(pattern: str) -> np.ndarray:
        reads = [bool(re.match(pattern, letters[at : at + 4])) for at in left + 1]
        return loops((size == 4) & np.array(reads, bool))

    def pairs(a: str, b: str) -> np.ndarray:
        is_a, is_b = base_L == ord(a), base_L == ord(b)
        return paired & (is_a & is_b[partner_L] | is_b & is_a[partner_L])

    sizes = {f"hairpin loop of {bases} nt": loops(size == bases) for bases in (3, 4, 5, 6)}
    return {
        "strand": {"5' strand": five, "3' strand": paired & ~five},
        "closing pair": {"hairpin-closing pair": closing, "helix-end pair": start | end},
        "hairpin size": sizes | {"hairpin loop of 7+ nt": loops(size >= 7)},
        "tetraloop": {"GNRA tetraloop": tetraloops("G.[AG]A"), "UNCG tetraloop": tetraloops("U.CG")},
        "pair": {f"{name} pair": pairs(*name) for name in ("GC", "AU", "GU")},
        "position": {"strand start": start, "strand end": end, "strand middle": before & after},
    }
