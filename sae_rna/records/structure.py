"""Secondary structure: dot-bracket in, structural element of every nucleotide out; folding.

The decomposition is forgi's (Kerpedjiev, Hoener zu Siederdissen & Hofacker 2015, RNA 21:1110), the letters of
the elements are bpRNA's (Danaee et al. 2018, NAR 46:5381), whose own annotation the same code can read.
"""

import re
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase

import numpy as np
import pandas as pd
from multimolecule.utils.rna.secondary_structure import (
    crossing_mask,
    dot_bracket_to_pairs,
    split_pseudoknot_pairs,
)
from tqdm import tqdm

#: bpRNA's letter of each structural element, in the order used in every table and figure.
ELEMENTS = {"S": "stem", "H": "hairpin loop", "I": "internal loop", "B": "bulge",
            "M": "multiloop", "X": "external loop", "E": "end", "K": "pseudoknot"}  # fmt: skip
CANONICAL_PAIRS = frozenset({"GC", "CG", "AU", "UA", "GU", "UG"})
_BRACKETS = list(zip("([{<" + ascii_uppercase, ")]}>" + ascii_lowercase))
_WUSS_UNPAIRED = str.maketrans(",:_-~", ".....")  # "unpaired" in Stockholm's notation (Nawrocki & Eddy 2013)


def pair_table(structure: str) -> np.ndarray:
    """Partner of every position, -1 where unpaired. Shape [length], int64.

    Every bracket type nests on its own, so pseudoknots in ``[] {} <> Aa ...`` are read too (multimolecule's
    parser). Raises ValueError naming the position (1-based) of an unknown symbol or of an unbalanced bracket.
    """
    partner = np.full(len(structure), -1)
    try:
        pairs = dot_bracket_to_pairs(structure.translate(_WUSS_UNPAIRED))
    except ValueError as error:  # the parser counts from 0 and repeats the whole structure
        ((what, symbol, position),) = re.findall(r"^(\w+) symbol (.) at position (\d+)", str(error))
        meaning = "is no dot-bracket symbol" if what == "Invalid" else "has no partner"
        raise ValueError(f"'{symbol}' at position {int(position) + 1} {meaning}") from None
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return partner


def split_pseudoknots(structure: str) -> tuple[np.ndarray, np.ndarray]:
    """Nested pairs and crossing pairs of a dot-bracket string, as two pair tables; see `_split`."""
    return _split(pair_table(structure))


def _split(partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nested part of a pair table and the pseudoknots. The pairs alone decide, not what wrote them.

    Of helices that cross, those with the most pairs together that cross none of each other are nested; of
    two that are alike in pairs and span, the first.
    """
    last, opening = len(partner) - 1, np.nonzero(partner > np.arange(len(partner)))[0]
    pairs = np.column_stack([opening, partner[opening]])
    crossing = np.full_like(partner, -1)
    if (mask := crossing_mask(pairs)).any():  # other helices would only cost memory
        mirrored = last - pairs[mask][:, ::-1]  # multimolecule prefers the last of two
        _, (j, i) = map(np.transpose, split_pseudoknot_pairs(mirrored[mirrored[:, 0].argsort()]))
        crossing[last - i], crossing[last - j] = last - j, last - i
    return np.where(crossing < 0, partner, -1), crossing


def dot_bracket(partner: np.ndarray) -> str:
    """Dot-bracket string of a pair table: nested pairs are round, what crosses them is [], then {}, <>, Aa.

    Raises ValueError for pairs that cross more often than there are brackets.
    """
    position, symbols = np.arange(len(partner)), np.full(len(partner), ".")
    for opening, closing in _BRACKETS:
        nested, partner = _split(partner)
        symbols[nested > position] = opening
        symbols[(nested >= 0) & (nested < position)] = closing
        if (partner < 0).all():
            return "".join(symbols)
    raise ValueError(f"more than {len(_BRACKETS)} helices cross each other")


@lru_cache(maxsize=1 << 16)
def element_string(structure: str) -> str:
    """Structural element of every nucleotide, one letter of `ELEMENTS` each; as long as `structure`.

    Nested pairs are decomposed into loops. Positions whose pair crosses the nested structure become ``K``
    whatever loop they stand in. An RNA without pairs is all ``E``, as in bpRNA.
    """
    nested, crossing = split_pseudoknots(structure)
    letters, inside = np.full(len(structure), "S"), [[-1]]  # ends of helices in every loop that is open
    for position, partner in enumerate(nested):
        if partner > position:
            inside[-1].append(position)
            inside.append([position])
        elif partner >= 0:
            _fill(letters, [*inside.pop(), position])
            inside[-1].append(position)
    (outside,) = inside
    _fill(letters, [*outside, len(structure)], "X")
    for end in (slice(outside[1] if len(outside) > 1 else None), slice(outside[-1] + 1, None)):
        letters[end] = "E"
    letters[crossing >= 0] = "K"
    return "".join(letters)


def _fill(letters: np.ndarray, ends: list[int], letter: str = ""):
    """Write the letter of a loop to its unpaired stretches, each between two of the `ends` of its helices."""
    stretches = [slice(start + 1, stop) for start, stop in zip(ends[::2], ends[1::2])]
    if not letter:  # the loop is closed by a pair
        both = all(stretch.start < stretch.stop for stretch in stretches)
        letter = {1: "H", 2: "I" if both else "B"}.get(len(stretches), "M")
    for stretch in stretches:
        letters[stretch] = letter


def add_elements(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with the column `element`, computed if it can and need be."""
    if "element" in records or "secondary_structure" not in records:
        return records
    structures = records.secondary_structure.unique()
    element = {structure: element_string(structure) for structure in tqdm(structures, "elements", delay=1)}
    return records.assign(element=records.secondary_structure.map(element))


def fold(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with `secondary_structure`: where there is none, of minimum free energy, by ViennaRNA.

    `structure_source` says so. Raises ImportError, naming the remedy, if ViennaRNA is not installed.
    """
    if "secondary_structure" in records:
        return records
    try:
        import RNA
    except ImportError as error:
        raise ImportError("ViennaRNA is missing: run 'pip install ViennaRNA', or leave fold false") from error
    sequences = records.sequence.unique()
    predicted = {sequence: RNA.fold(sequence)[0] for sequence in tqdm(sequences, "folding", delay=1)}
    source = f"predicted (ViennaRNA {RNA.__version__}, MFE)"
    return records.assign(secondary_structure=records.sequence.map(predicted), structure_source=source)
