"""RNA records from files.

Records are a pandas DataFrame with one row per RNA. `id` (unique) and `sequence` (upper case, U not T) are
always there; `secondary_structure` (dot-bracket), `element` (letters of `structure.ELEMENTS`), `type`,
`family` and `split` where known. Any other column of the source stays.

A new format is a function from a path to records (a DataFrame, or one dict each), entered in `READERS`. It
may give each the number of its line as `_line`, for messages.
"""

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from sae_rna.records.checks import TEXT, check_words, validate
from sae_rna.records.structure import CANONICAL_PAIRS, dot_bracket, pair_table

_COLUMNS = {"urs": "id", "rna_class": "type", "rna_type": "type", "rfam_family": "family"}  # theirs: ours
#: How the files of packers begin that are not read, and the packer's name.
_PACKED = {b"PK\3\4": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_GAPS = "-.~_"  # in alignments
csv.field_size_limit(1 << 30)  # letters of one field: a genome is longer than the 131,072 that csv allows


def read_records(source: str | Path) -> pd.DataFrame:
    """Records of a local file, or of a folder of one-record files, checked by `checks.validate`.

    The format is known by the suffix (`READERS`), which ``.gz`` may follow for all but Parquet.
    Dot-bracket files have name, sequence and structure lines; Stockholm's consensus structure is projected
    onto every row that has no structure of its own. Of a folder, all dot-bracket, bpseq, ct and st files are
    read that are not hidden. A name ends at white space; a record without one is called like its file. A
    warning says what was changed.
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
        shown = (file for file in path.iterdir() if file.name[0] != "." and file not in paths)
        if other := sorted(file.name for file in shown if file.is_dir() or suffix_of(file) in READERS):
            said = (
                f"folders and files of several records in it are not read: {len(other)}, such as {other[0]}"
            )
            warnings.warn(f"{source}: {said}", stacklevel=2)
    else:
        paths = [path]
    files = tqdm(paths, "reading", delay=1, disable=len(paths) == 1)
    records = our_names(pd.concat(map(_read_file, files), ignore_index=True))
    if suffix_of(path) in (".csv", ".tsv", ".parquet"):
        check_words(records, source)
    return validate(records, source)


def our_names(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with our names for columns that public data sets call otherwise."""
    for old, new in _COLUMNS.items():  # of two that mean the same, the first
        records = records if new in records else records.rename(columns={old: new})
    return records


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


def _read_file(path: Path) -> pd.DataFrame:
    """Unchecked records of one file, with `_place`. Raises ValueError naming it and what is wrong."""
    suffix = suffix_of(path)
    if suffix not in READERS:
        raise ValueError(f"{path}: suffix '{suffix}' is of no known format; use one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one record")
    try:
        records = pd.DataFrame(READERS[suffix](path))
    except (ValueError, OSError, EOFError, zlib.error, csv.Error, NotImplementedError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = "mend the file or give it the suffix of its format"
        raise ValueError(f"{path} cannot be read as {suffix}: {reason}; {remedy}") from error
    if "_line" in records:
        records["_place"] = [f"{path}, line {line}" for line in records.pop("_line")]
    return records


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
    rows, header, lines = csv.reader(content.split("\n"), delimiter=separator), 0, list[int]()
    for row in rows:  # pandas fills short rows up, and takes the first columns of long ones for an index
        if not header and (twice := [name for name in row if name.strip() and row.count(name) > 1]):
            raise ValueError(f"the header in line {rows.line_num} names '{twice[0]}' twice")
        header = header or len(row)
        if separator.join(row).strip(" "):
            lines.append(rows.line_num)
            if len(row) != header:
                fault = f"line {rows.line_num} has {len(row)} fields, but the header {header}"
                remedy = "quote a field that holds the separator, and write empty fields too"
                raise ValueError(f"{fault} ({remedy})")
    # An RNA may well be called, or read, "NA": only an empty cell is a missing value.
    options: dict = {"dtype": text, "keep_default_na": False, "na_values": [""], "low_memory": False}
    records = pd.read_csv(io.StringIO(content), sep=separator, **options)
    return records.assign(_line=lines[1:]) if len(lines) == len(records) + 1 else records


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that hold more than white space, with their numbers."""
    return [(n, line.strip()) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]


def _named_blocks(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Name, line and lines of every block after a '>'; a file without any is one, named like the file."""
    lines = [(n, line) for n, line in _lines(path) if line[0] not in "#;"]
    first, *more = [at for at, (_, line) in enumerate(lines) if line[0] == ">"] + [len(lines)]
    if first:
        yield "" if more else _stem(path), lines[0][0], [line for _, line in lines[:first]]
    for start, end in pairwise([first, *more]):
        alone, (n, title) = first == 0 and len(more) == 1, lines[start]
        name = _name(title[1:]) or (_stem(path) if alone else "")
        yield name, n, [line for _, line in lines[start + 1 : end]]


def _read_fasta(path: Path) -> list[dict]:
    return [{"id": name, "sequence": "".join(lines), "_line": n} for name, n, lines in _named_blocks(path)]


def _read_dot_bracket(path: Path) -> list[dict]:
    records = []
    for name, n, lines in _named_blocks(path):
        if len(lines) != 2:
            found = f"record '{name}' (line {n}) has {len(lines)} lines"
            raise ValueError(f"{found}, where one of sequence and one of structure belong")
        structure = re.sub(r"\s+\(\s*[-+]?[\d.]+\)$", "", lines[1])  # RNAfold appends the free energy
        records.append({"id": name, "sequence": lines[0], "secondary_structure": structure, "_line": n})
    return records


def _read_st(path: Path) -> list[dict]:
    lines = _lines(path)
    names = [(n, line.partition(":")[2]) for n, line in lines if re.match(r"(?i)#\s*(name|id)\s*:", line)]
    if len(names) > 1:
        raise ValueError(f"a second record begins in line {names[1][0]}; give each a file of its own")
    body = [(n, line) for n, line in lines if line[0] != "#"]
    if len(body) < 2:
        raise ValueError("Incomplete: a line of sequence and one of structure belong here")
    (first, sequence), (_, structure), *more = body
    found = {"id": _name(names[0][1] if names else "") or _stem(path), "sequence": sequence, "_line": first}
    annotation = [line for _, line in more[:1] if re.fullmatch("[A-Z]+", line)]
    return [found | {"secondary_structure": structure} | dict(zip(["structural_annotation"], annotation))]


def _read_pairs(path: Path) -> list[dict]:
    """The record of a bpseq or ct file: a nucleotide a line, with its position and its partner's."""
    ct = suffix_of(path) == ".ct"
    lines = [(n, line) for n, line in _lines(path) if line[0] not in "#;"]
    # A database's header ends where a line begins with a number.
    lines = list(dropwhile(lambda line: not re.match(r"[-+]?\d+(\s|$)", line[1]), lines))
    if not lines:
        raise ValueError("no line begins with a number")
    (first, title), name = lines[0], ""
    if ct:
        length, _, name = title.partition(" ") if " " in title else title.partition("\t")
        if len(lines) - 1 != int(length):
            more = "give a file for each structure" if len(lines) - 1 > int(length) else "the file is cut off"
            fault = f"line {first} announces {length} nucleotides of the first structure"
            raise ValueError(f"{fault}, and {len(lines) - 1} lines follow; {more}")
        lines = lines[1:]
    sequence, partners = [], []
    for position, (n, line) in enumerate(lines, 1):
        try:
            fields = line.split()
            found, partner, base = int(fields[0]), int(fields[4 if ct else 2]), fields[1]
        except (IndexError, ValueError):
            raise ValueError(f"line {n} has no position, base and partner: {line[:60]}") from None
        if found != position or len(base) > 1 or partner > len(lines) or partner == position:
            raise ValueError(f"line {n} should be of nucleotide {position} and a partner: {line[:60]}")
        sequence.append(base)
        partners.append(max(partner, 0) - 1)
    for i, j in enumerate(partners):
        if j >= 0 and partners[j] != i:
            raise ValueError(f"line {lines[i][0]} pairs {i + 1} -> {j + 1}, and line {lines[j][0]} does not")
    structure = dot_bracket(np.array(partners))
    record = {"id": _name(name) or _stem(path), "sequence": "".join(sequence), "_line": first}
    return [record | {"secondary_structure": structure}]


@dataclass
class _Alignment:
    """One alignment of a Stockholm file: the lines that are read, by row; wrapped ones are joined."""

    rows: dict[str, str] = field(default_factory=dict)
    structures: dict[str, str] = field(default_factory=dict)  # of single rows; the consensus' is that of ""
    features: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # where each row or structure begins

    def add(self, n: int, line: str):
        """Take line number `n`. Annotations of other kinds are not looked at."""
        structure = re.match(r"#=G(?:C|R\s+(?P<row>\S+))\s+SS(?(row)|_cons)\s+(\S+)$", line)
        if feature := re.match(r"#=GF\s+(ID|AC|TP)\s+(\S.*?)[;\s]*$", line):
            self.features[feature[1]] = feature[2]
        elif structure:
            name = structure["row"] or ""
            self.lines.setdefault(f"SS of {name}", n)
            self.structures[name] = self.structures.get(name, "") + structure[2]
        elif line[0] != "#":
            if len(fields := line.split()) != 2:
                raise ValueError(f"line {n} is no name with its aligned sequence: {line[:60]}")
            self.lines.setdefault(fields[0], n)
            self.rows[fields[0]] = self.rows.get(fields[0], "") + fields[1]

    def structure(self, name: str, width: int) -> np.ndarray:
        """Pair table of a row's structure, "" for the consensus. Raises ValueError naming row and line."""
        of = f"record {name} has" if name else "the consensus has"
        symbols, place = self.structures[name], f"in line {self.lines[f'SS of {name}']}"
        if len(symbols) != width:
            raise ValueError(f"{of} {len(symbols)} symbols of SS for {width} columns {place}")
        try:
            return pair_table(symbols)
        except ValueError as error:
            raise ValueError(f"{of} a faulty SS {place}: {error}") from None

    def records(self, prefix: str) -> Iterator[dict]:
        """The records of all rows, `prefix` before their names."""
        width = len(next(iter(self.rows.values()), ""))
        consensus = self.structure("", width) if "" in self.structures else None
        known = {"family": self.features["ID"]} if "ID" in self.features else {}
        known |= {"type": self.features["TP"].split("; ")[-1]} if "TP" in self.features else {}
        for name, aligned in self.rows.items():
            if len(aligned) != width:
                fault = f"record {name} (line {self.lines[name]}) has {len(aligned)} columns"
                raise ValueError(f"{fault}, and the first row {width}")
            own = name in self.structures
            partner = self.structure(name, width) if own else consensus
            sequence, structure = project(aligned, np.full(width, -1) if partner is None else partner, own)
            record = {"id": prefix + name, "sequence": sequence, "_line": self.lines[name]} | known
            yield record | ({} if partner is None else {"secondary_structure": structure})


def _read_stockholm(path: Path) -> list[dict]:
    lines = _lines(path)
    if not lines or not lines[0][1].startswith("# STOCKHOLM"):
        raise ValueError("the first line is not '# STOCKHOLM 1.0'")
    alignments = [_Alignment()]
    for n, line in lines:
        if line == "//":
            alignments.append(_Alignment())
        else:
            alignments[-1].add(n, line)
    if alignments[-1].rows:
        said = "the last alignment does not end with //; the file may be cut off"
        warnings.warn(f"{path}: {said}", stacklevel=2)
    alignments = [alignment for alignment in alignments if alignment.rows]
    records: list[dict] = []
    for number, alignment in enumerate(tqdm(alignments, "alignments", delay=1), 1):
        if lost := [name for name in alignment.structures if name and name not in alignment.rows]:
            said = f"structures of {', '.join(lost)} are dropped: there are no such rows"
            warnings.warn(f"{path}: {said}", stacklevel=2)
        name = alignment.features.get("ID") or alignment.features.get("AC") or f"alignment-{number}"
        # One sequence may stand in several families.
        records += alignment.records(f"{name}/" if len(alignments) > 1 else "")
    return records


def project(aligned: str, partner: np.ndarray, own: bool = False) -> tuple[str, str]:
    """Ungapped sequence of one alignment row and its dot-bracket structure.

    A pair survives if both its ends are present and, unless the structure is the row's `own`, are canonical
    or GU and enclose 3 nt or more.

    aligned : the row, with gaps (``-.~_``), of W symbols
    partner : `structure.pair_table` of the consensus or of the row's own structure, [W]
    """
    columns = [column for column, letter in enumerate(aligned) if letter not in _GAPS]
    sequence = "".join(aligned[column] for column in columns).upper()
    bases, place = sequence.replace("T", "U"), dict(zip(columns, range(len(columns))))
    found = np.full(len(columns), -1)
    for position, column in enumerate(columns):
        other = place.get(int(partner[column]), -1)
        pairs = own or (abs(other - position) > 3 and bases[position] + bases[other] in CANONICAL_PAIRS)
        found[position] = other if other >= 0 and pairs else -1
    return sequence, dot_bracket(found)


_ONE_RECORD = {".bpseq": _read_pairs, ".ct": _read_pairs, ".st": _read_st, ".sta": _read_st,
               ".dbn": _read_dot_bracket, ".db": _read_dot_bracket}  # fmt: skip
READERS: dict[str, Callable[[Path], pd.DataFrame | list[dict]]] = {
    ".parquet": pd.read_parquet,
    **dict.fromkeys((".csv", ".tsv"), _read_table),
    **dict.fromkeys((".fa", ".fasta", ".fas", ".fna"), _read_fasta),
    **dict.fromkeys((".sto", ".stk"), _read_stockholm),
    **_ONE_RECORD,
}
