"""Secondary structure: dot-bracket in, structural element of every nucleotide out; folding.

The decomposition is forgi's (Kerpedjiev, Hoener zu Siederdissen & Hofacker 2015, RNA 21:1110), the letters of
the elements are bpRNA's (Danaee et al. 2018, NAR 46:5381), whose own annotation the same code can read.
"""

import re
import sys
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase

import numpy as np
import pandas as pd
from tqdm import tqdm

# forgi's compiled helper was built against NumPy 1: under NumPy 2 its import prints a page of warnings and
# fails. Hidden, forgi takes its own pure-Python path; nothing used here needs the helper.
sys.modules.setdefault("forgi.threedee.utilities.cytvec", None)  # type: ignore[arg-type]
import forgi.graph.bulge_graph as forgi_graph  # noqa: E402
from multimolecule.utils.rna import secondary_structure as multimolecule  # noqa: E402

#: bpRNA's letter of each structural element, in the order used in every table and figure.
ELEMENTS = {"S": "stem", "H": "hairpin loop", "I": "internal loop", "B": "bulge",
            "M": "multiloop", "X": "external loop", "E": "end", "K": "pseudoknot"}  # fmt: skip
CANONICAL_PAIRS = frozenset({"GC", "CG", "AU", "UA", "GU", "UG"})
LONGEST_AT_ONCE = 500  # nucleotides that forgi decomposes at a time
_BRACKETS = list(zip("([{<" + ascii_uppercase, ")]}>" + ascii_lowercase))
_WUSS_UNPAIRED = str.maketrans(",:_-~", ".....")  # "unpaired" in Stockholm's notation (Nawrocki & Eddy 2013)


def pair_table(structure: str) -> np.ndarray:
    """Partner of every position, -1 where unpaired. Shape [length], int64.

    Every bracket type nests on its own, so pseudoknots in ``[] {} <> Aa ...`` are read too (multimolecule's
    parser). Raises ValueError naming the position (1-based) of an unknown symbol or of an unbalanced bracket.
    """
    partner = np.full(len(structure), -1)
    try:
        pairs = multimolecule.dot_bracket_to_pairs(structure.translate(_WUSS_UNPAIRED))
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
    if (mask := multimolecule.crossing_mask(pairs)).any():  # other helices would only cost memory
        mirrored = last - pairs[mask][:, ::-1]  # multimolecule prefers the last of two
        split = multimolecule.split_pseudoknot_pairs(mirrored[mirrored[:, 0].argsort()])
        _, (j, i) = map(np.transpose, split)
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

    Nested pairs are decomposed by forgi. Positions whose pair crosses the nested structure become ``K``
    whatever loop they stand in. An RNA without pairs is all ``E``, as in bpRNA.
    """
    nested, crossing = split_pseudoknots(structure)
    letters = np.array(list(_decomposed(nested)), dtype="U1")
    letters[crossing >= 0] = "K"
    return "".join(letters)


def _decomposed(nested: np.ndarray) -> str:
    """`element_string` of a nested pair table.

    forgi takes seconds for thousands of loops. A loop depends on its own pairs alone: so a long structure is
    cut at a pair, whose inside is decomposed by itself and stands in the rest as a hairpin loop of 3 nt.
    """
    opening = np.nonzero(nested > np.arange(len(nested)))[0]
    span = nested[opening] - opening + 1
    saved = np.minimum(span, len(nested) - span + 5)
    if len(nested) <= LONGEST_AT_ONCE or saved.max(initial=0) <= 10:
        return _by_forgi(dot_bracket(nested)) if len(opening) else "E" * len(nested)
    first = opening[saved.argmax()]
    last = nested[first]
    inside = nested[first : last + 1]
    rest = np.concatenate([nested[: first + 1], [-1] * 3, nested[last:]])
    shortened = last - first - 4
    rest[rest >= last] -= shortened
    outside = _decomposed(rest)
    return outside[:first] + _decomposed(np.where(inside < 0, -1, inside - first)) + outside[first + 5 :]


def _by_forgi(structure: str) -> str:
    """`element_string` of a dot-bracket string of nested pairs."""
    letters, graph = np.full(len(structure), "E"), forgi_graph.BulgeGraph.from_dotbracket(structure)
    loops = [loop for loop in graph.junctions if "open" in graph.describe_multiloop(loop)]
    exterior = {name for loop in loops for name in loop}
    for name in graph.defines:
        letter = _letter(graph, name, exterior)
        for position in graph.define_residue_num_iterator(name):
            letters[position - 1] = letter
    return "".join(letters)


def _letter(graph, name: str, exterior: set[str]) -> str:
    """Letter of one of forgi's elements. It calls m every stretch between helices, also outside them all."""
    if name[0] == "m":
        return "X" if name in exterior else "M"
    if name[0] == "i":
        return "I" if all(graph.get_bulge_dimensions(name)) else "B"
    return {"s": "S", "h": "H", "f": "E", "t": "E"}[name[0]]


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
