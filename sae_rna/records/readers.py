"""RNA records from files.

Records are a pandas DataFrame with one row per RNA. `id` (unique) and `sequence` (upper case, U not T) are
always there; `secondary_structure` (dot-bracket), `element` (letters of `structure.ELEMENTS`), `type`,
`family` and `split` where known. Any other column of the source stays.

A new format is a function from a path to records (a DataFrame, or one dict each), entered in `READERS`.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import dropwhile, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from Bio import AlignIO
from multimolecule.io import load
from tqdm import tqdm

from sae_rna.records.checks import TEXT, check_words, validate
from sae_rna.records.structure import CANONICAL_PAIRS, pair_table, split_pseudoknots

_COLUMNS = {"urs": "id", "rna_class": "type", "rna_type": "type", "rfam_family": "family"}  # theirs: ours
#: How the files of packers begin that are not read, and the packer's name.
_PACKED = {b"PK\3\4": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
csv.field_size_limit(1 << 30)  # letters of one field: a genome is longer than the 131,072 that csv allows


def read_records(source: str | Path) -> pd.DataFrame:
    """Records of a local file, or of a folder of one-record files, checked by `checks.validate`.

    The format is known by the suffix (`READERS`), which ``.gz`` may follow for all but Parquet.
    Dot-bracket files have name, sequence and structure lines; Stockholm's consensus structure is projected
    onto every row. Of a folder, all dot-bracket, bpseq, ct and st files are read that are not hidden. A name
    ends at white space; a record without one is called like its file. A warning says what was changed.
    Raises ValueError naming source, record, place and remedy.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source} is no file or folder here; check the path")
    if path.is_dir():
        seen = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
        paths = sorted(file for file in seen if suffix_of(file) in _ONE_RECORD)
        if not paths:
            raise ValueError(f"{source} is a folder without any {', '.join(_ONE_RECORD)} file; give one file")
        records = [record for file in tqdm(paths, "reading", delay=1) for record in _read_file(file)]
    else:
        records = _read_file(path)
    records = our_names(pd.DataFrame(records))
    if suffix_of(path) in (".csv", ".tsv", ".parquet"):
        check_words(records, source)
    return validate(records, source)


def our_names(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with our names for columns that public data sets call otherwise."""
    return records.rename(columns={old: new for old, new in _COLUMNS.items() if new not in records})


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in lower case: ``.fa`` of a.FA.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    """What a record without a name is called: ``a`` of a.ct.gz."""
    return Path(re.sub(r"(?i)\.gz$", "", path.name)).stem


def _name(title: str) -> str:
    """First word of a title, after the free energy that folding programs put there."""
    energy = r"(?i)\s*((energy|(d|delta)\s*g)\s*[=:]\s*\S+\s*)?(kcal/mol\s*)?(\[initially[^]]*\])?"
    return (re.sub(energy, "", title, count=1).split() or [""])[0]


def _read_file(path: Path) -> pd.DataFrame | list[dict]:
    """Unchecked records of one file. Raises ValueError naming it and what is wrong."""
    suffix = suffix_of(path)
    if suffix not in READERS:
        raise ValueError(f"{path}: suffix '{suffix}' is of no known format; use one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one record")
    try:
        return READERS[suffix](path)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = "mend the file or give it the suffix of its format"
        raise ValueError(f"{path} cannot be read as {suffix}: {reason}; {remedy}") from error


def _text(path: Path) -> str:
    """A file's text, whatever its name says of compression; UTF-8, UTF-16 or, failing these, Latin-1."""
    data = path.read_bytes()
    if path.suffix.lower() == ".gz" or data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    for start, packer in _PACKED.items():
        if data.startswith(start):
            raise ValueError(f"it is packed with {packer}, and only gzip is known; unpack it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16")
    elif b"\0" in data[:2]:  # every other byte of UTF-16 is 0, mark or no mark
        text = data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    elif b"\0" in data:
        raise ValueError("it is no text")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_table(path: Path) -> pd.DataFrame:
    separator, text = "\t" if suffix_of(path) == ".tsv" else ",", dict.fromkeys([*TEXT, *_COLUMNS], str)
    content = _text(path)
    rows, header = csv.reader(content.split("\n"), delimiter=separator), 0
    for row in rows:  # pandas fills short rows up, and takes the first columns of long ones for an index
        header = header or len(row)
        if separator.join(row).strip(" ") and len(row) != header:
            fault = f"line {rows.line_num} has {len(row)} fields, but the header {header}"
            raise ValueError(f"{fault} (quote a field that holds the separator, and write empty fields too)")
    # An RNA may well be called, or read, "NA": only an empty cell is a missing value.
    return pd.read_csv(io.StringIO(content), sep=separator, dtype=text, keep_default_na=False, na_values=[""])


def _named_blocks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of every block that starts with '>'; a file without any is one, named like the file."""
    lines = [line for line in map(str.strip, _text(path).split("\n")) if line and line[0] not in "#;"]
    first, *more = [number for number, line in enumerate(lines) if line[0] == ">"] + [len(lines)]
    if first:
        yield "" if more else _stem(path), lines[:first]
    for start, end in pairwise([first, *more]):
        alone = first == 0 and len(more) == 1
        yield _name(lines[start][1:]) or (_stem(path) if alone else ""), lines[start + 1 : end]


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
    suffix = suffix_of(path)
    lines = [(n, line.strip()) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    if suffix in (".bpseq", ".ct"):  # a database's header ends where a line begins with a number
        lines = [(n, line) for n, line in lines if line[0] not in "#;"]
        lines = list(dropwhile(lambda line: not re.match(r"[-+]?\d+(\s|$)", line[1]), lines))
    with TemporaryDirectory() as folder:  # multimolecule reads plain files only
        plain = Path(folder) / f"-{suffix}"
        plain.write_text("\n".join(line for _, line in lines), errors="replace")
        try:
            record = load(plain)
        except ValueError as error:  # it counts the lines that it was given
            said = str(error).replace(f" in {plain}", "")
            said = re.sub(r"\bline (\d+)", lambda n: f"line {lines[int(n[1]) - 1][0]}", said, count=1)
            raise ValueError(said) from error
    if suffix == ".ct" and len(lines) > 1 + len(record):
        more = f"more lines follow the {len(record)} nucleotides of the first structure"
        raise ValueError(f"{more}; keep the one structure that is meant")
    found = {"secondary_structure": record.dot_bracket}
    if hasattr(record, "structure_array"):
        found["structural_annotation"] = record.structure_array
    name = "" if record.id in (None, plain.stem) else _name(record.id)
    return [{"id": name or _stem(path), "sequence": record.sequence} | found]


def _read_stockholm(path: Path) -> list[dict]:
    blocks = [block for block in re.split(r"^//\s*$", _text(path), flags=re.M) if block.strip()]
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
