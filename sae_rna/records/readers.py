"""RNA records from files.

Records are a pandas DataFrame with one row per RNA. `id` (unique) and `sequence` (upper case, U not T) are
always there; `secondary_structure` (dot-bracket), `element` (letters of `structure.ELEMENTS`), `type`,
`family` and `split` where known. Any other column of the source stays.

A new format is a function from a path to records (a DataFrame, or one dict each), entered in `READERS`.
"""

import gzip
import io
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from Bio import AlignIO
from multimolecule.io import load
from tqdm import tqdm

from sae_rna.records.checks import TEXT, validate
from sae_rna.records.structure import CANONICAL_PAIRS, pair_table, split_pseudoknots

_COLUMNS = {"urs": "id", "rna_class": "type", "rna_type": "type", "rfam_family": "family"}  # theirs: ours


def read_records(source: str | Path) -> pd.DataFrame:
    """Records of a local file, or of a folder of one-record files, checked by `checks.validate`.

    The format is known by the suffix (`READERS`), which ``.gz`` may follow for tables, FASTA, dot-bracket and
    Stockholm. Dot-bracket files have name, sequence and structure lines; Stockholm's consensus structure is
    projected onto every row. Of a folder, all dot-bracket, bpseq, ct and st files are read. A warning says
    what was changed. Raises ValueError naming source, record, place and remedy.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source} is no file or folder here; check the path")
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if suffix_of(file) in _ONE_RECORD)
        if not paths:
            raise ValueError(f"{source} is a folder without any {', '.join(_ONE_RECORD)} file; give one file")
        records = [record for file in tqdm(paths, "reading", delay=1) for record in _read_file(file)]
    else:
        records = _read_file(path)
    return validate(our_names(pd.DataFrame(records)), source)


def our_names(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with our names for columns that public data sets call otherwise."""
    return records.rename(columns={old: new for old, new in _COLUMNS.items() if new not in records})


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in lower case: ``.fa`` of a.FA.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _read_file(path: Path) -> pd.DataFrame | list[dict]:
    """Unchecked records of one file. Raises ValueError naming it and what is wrong."""
    suffix = suffix_of(path)
    if suffix not in READERS:
        raise ValueError(f"{path}: suffix '{suffix}' is of no known format; use one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one record")
    try:
        return READERS[suffix](path)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = "mend the file or give it the suffix of its format"
        raise ValueError(f"{path} cannot be read as {suffix}: {reason}; {remedy}") from error


def _read_table(path: Path) -> pd.DataFrame:
    separator, text = "\t" if suffix_of(path) == ".tsv" else ",", dict.fromkeys([*TEXT, *_COLUMNS], str)
    # An RNA may well be called, or read, "NA": only an empty cell is a missing value.
    return pd.read_csv(path, sep=separator, dtype=text, keep_default_na=False, na_values=[""])


def _open(path: Path) -> io.TextIOBase:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace")  # Rfam has names in other encodings


def _named_blocks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of every block that starts with '>'; a file without any is one, named like the file."""
    with _open(path) as file:
        lines = [line for line in map(str.strip, file) if line and line[0] not in "#;"]
    first, *more = [number for number, line in enumerate(lines) if line[0] == ">"] + [len(lines)]
    if first:
        yield "" if more else Path(path.name.removesuffix(".gz")).stem, lines[:first]
    for start, end in pairwise([first, *more]):
        yield lines[start][1:].strip().partition(" ")[0], lines[start + 1 : end]


def _read_fasta(path: Path) -> list[dict]:
    return [{"id": name, "sequence": "".join(lines)} for name, lines in _named_blocks(path)]


def _read_dot_bracket(path: Path) -> list[dict]:
    records = []
    for number, (name, lines) in enumerate(_named_blocks(path), 1):
        if len(lines) != 2:
            found = f"record '{name}' (number {number}) has {len(lines)} lines"
            raise ValueError(f"{found}, where one of sequence and one of structure belong")
        structure = re.sub(r"\s+\(\s*[-+]?[\d.]+\)$", "", lines[1])  # RNAfold appends the free energy
        records.append({"id": name, "sequence": lines[0], "secondary_structure": structure})
    return records


def _read_one(path: Path) -> list[dict]:
    """The record of a bpseq, ct or st file."""
    record = load(path)
    if suffix_of(path) == ".ct" and len(path.read_text().strip().splitlines()) > 1 + len(record):
        more = f"more lines follow the {len(record)} nucleotides of the first structure"
        raise ValueError(f"{more}; keep the one structure that is meant")
    found = {"secondary_structure": record.dot_bracket}
    if hasattr(record, "structure_array"):
        found["structural_annotation"] = record.structure_array
    return [{"id": record.id or path.stem, "sequence": record.sequence} | found]


def _read_stockholm(path: Path) -> list[dict]:
    with _open(path) as file:
        blocks = [block for block in re.split(r"^//\s*$", file.read(), flags=re.M) if block.strip()]
    records = []
    for block in tqdm(blocks, "alignments", delay=1):
        alignment = AlignIO.read(io.StringIO(block.lstrip() + "//\n"), "stockholm")
        features = dict(re.findall(r"^#=GF (ID|TP)\s+(\S.*?)[;\s]*$", block, re.M))
        family = features.get("ID", "")
        known = {"family": family} if family else {}
        known |= {"type": features["TP"].split("; ")[-1]} if "TP" in features else {}
        prefix = f"{family}/" if len(blocks) > 1 else ""  # one sequence may stand in several families
        consensus = alignment.column_annotations.get("secondary_structure")
        if consensus is not None:
            partner = pair_table(consensus)
            if (split_pseudoknots(re.sub("[A-Za-z]", ".", consensus))[1] >= 0).any():
                raise ValueError(f"brackets of consensus {family} cross; write pseudoknots with letters (Aa)")
        for row in alignment:
            aligned = str(row.seq)
            record = {"id": prefix + row.id, "sequence": re.sub(r"[-.~]", "", aligned).upper()}
            if consensus is not None:
                record["secondary_structure"] = project(aligned, consensus, partner)[1]
            records.append(record | known)
    return records


def project(aligned: str, consensus: str, partner: np.ndarray) -> tuple[str, str]:
    """Ungapped sequence of one alignment row and its dot-bracket structure.

    A consensus pair survives if both its ends are present, are canonical or GU, and enclose 3 nt or more. The
    consensus' brackets (WUSS) become round ones, since they nest; its letters mark pseudoknots and stay.

    aligned, consensus : the row, with gaps (``-.~``), and the ``SS_cons``, each of W symbols
    partner : `structure.pair_table` of the consensus, [W]
    """
    columns = [column for column, letter in enumerate(aligned) if letter not in "-.~"]
    sequence = "".join(aligned[column] for column in columns).upper().replace("T", "U")
    place = dict(zip(columns, range(len(columns))))
    symbols = ["."] * len(sequence)
    for column, position in place.items():
        other = place.get(int(partner[column]), -1)
        if other - position > 3 and sequence[position] + sequence[other] in CANONICAL_PAIRS:
            opening = consensus[column]
            symbols[position], symbols[other] = (opening, opening.lower()) if opening.isalpha() else "()"
    return sequence, "".join(symbols)


_ONE_RECORD = {".bpseq": _read_one, ".ct": _read_one, ".st": _read_one, ".sta": _read_one,
               ".dbn": _read_dot_bracket, ".db": _read_dot_bracket}  # fmt: skip
READERS: dict[str, Callable[[Path], pd.DataFrame | list[dict]]] = {
    ".parquet": pd.read_parquet,
    **dict.fromkeys((".csv", ".tsv"), _read_table),
    **dict.fromkeys((".fa", ".fasta", ".fas", ".fna"), _read_fasta),
    **dict.fromkeys((".sto", ".stk"), _read_stockholm),
    **_ONE_RECORD,
}
