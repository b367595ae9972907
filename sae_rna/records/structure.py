"""Secondary structure: dot-bracket in, structural element of every nucleotide out; folding.

The decomposition is forgi's (Kerpedjiev, Hoener zu Siederdissen & Hofacker 2015, RNA 21:1110), the letters of
the elements are bpRNA's (Danaee et al. 2018, NAR 46:5381), whose own annotation the same code can read.
"""

import re
import sys
from functools import lru_cache

import numpy as np
import pandas as pd
from tqdm import tqdm

# forgi's compiled helper was built against NumPy 1: under NumPy 2 its import prints a page of warnings and
# fails. Hidden, forgi takes its own pure-Python path; nothing used here needs the helper.
sys.modules.setdefault("forgi.threedee.utilities.cytvec", None)  # type: ignore[arg-type]
import forgi.graph.bulge_graph as forgi_graph  # noqa: E402
from multimolecule.utils.rna.secondary_structure import dot_bracket_to_pairs  # noqa: E402

#: bpRNA's letter of each structural element, in the order used in every table and figure.
ELEMENTS = {"S": "stem", "H": "hairpin loop", "I": "internal loop", "B": "bulge",
            "M": "multiloop", "X": "external loop", "E": "end", "K": "pseudoknot"}  # fmt: skip
CANONICAL_PAIRS = frozenset({"GC", "CG", "AU", "UA", "GU", "UG"})
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
    """Nested pairs and crossing pairs of a dot-bracket string, as two pair tables.

    Helices (runs of stacked pairs) are taken one by one, those of round brackets first, as they are kept for
    the nested part, then the longest; one that crosses a helix already taken is a pseudoknot.
    """
    partner = pair_table(structure)
    opening = np.nonzero(partner > np.arange(len(partner)))[0]
    ends = np.nonzero((np.diff(opening) != 1) | (np.diff(partner[opening]) != -1))[0] + 1
    helices = [helix for helix in np.split(opening, ends) if len(helix)]
    nested, crossing = np.full_like(partner, -1), np.full_like(partner, -1)
    taken: list[tuple[int, int]] = []
    for helix in sorted(helices, key=lambda helix: (structure[helix[0]] != "(", -len(helix))):
        i, j = helix[0], partner[helix[0]]
        clash = any(i < a < j < b or a < i < b < j for a, b in taken)
        taken += [] if clash else [(i, j)]
        target = crossing if clash else nested
        target[helix], target[partner[helix]] = partner[helix], helix
    return nested, crossing


def dot_bracket(partner: np.ndarray) -> str:
    """Dot-bracket string of a nested pair table."""
    position = np.arange(len(partner))
    return "".join(np.where(partner < 0, ".", np.where(partner > position, "(", ")")))


@lru_cache(maxsize=1 << 16)
def element_string(structure: str) -> str:
    """Structural element of every nucleotide, one letter of `ELEMENTS` each; as long as `structure`.

    Nested pairs are decomposed by forgi. Positions whose pair crosses the nested structure become ``K``
    whatever loop they stand in. An RNA without pairs is all ``E``, as in bpRNA.
    """
    nested, crossing = split_pseudoknots(structure)
    letters = np.full(len(structure), "E")
    if (nested >= 0).any():
        graph = forgi_graph.BulgeGraph.from_dotbracket(dot_bracket(nested))
        loops = [loop for loop in graph.junctions if "open" in graph.describe_multiloop(loop)]
        exterior = {name for loop in loops for name in loop}
        for name in graph.defines:
            letter = _letter(graph, name, exterior)
            for position in graph.define_residue_num_iterator(name):
                letters[position - 1] = letter
    letters[crossing >= 0] = "K"
    return "".join(letters)


def _letter(graph, name: str, exterior: set[str]) -> str:
    """Letter of one of forgi's elements. It calls m every stretch between helices, also outside them all."""
    if name[0] == "m":
        return "X" if name in exterior else "M"
    if name[0] == "i":
        return "I" if all(graph.get_bulge_dimensions(name)) else "B"
    return {"s": "S", "h": "H", "f": "E", "t": "E"}[name[0]]


def add_elements(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with the column `element`, computed if it can and need be: a millisecond a record or more."""
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
