"""RNA records: reading, checking, balancing and splitting them.

Records are a pandas DataFrame with one row per RNA. `id` (unique) and `sequence` (upper case, U not T) are always there;
`secondary_structure` (dot-bracket), `element` (letters of `structure.ELEMENTS`), `type`, `family` and `split` where known.
Any other column of the source stays. Bad input raises a ValueError that says where the fault is and what to do about it; what
was changed or left out is said by one warning per file.
"""

import gzip
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from Bio import AlignIO
from multimolecule.io import load
from tqdm import tqdm

from sae_rna.structure import CANONICAL_PAIRS, ELEMENTS, element_string, pair_table, split_pseudoknots

#: What multimolecule's tokenizers know: the bases, the IUPAC codes of several bases, inosine (I) and any base (X).
KNOWN_LETTERS = "ACGUNRYSWKMBDHVIX"
#: Share of the families (or, without families, of the sequences) in each split.
SPLITS = {"train": 0.8, "selection": 0.1, "heldout": 0.1}
#: Column names of public data sets -> ours.
_COLUMNS = {"urs": "id", "rna_class": "type", "rna_type": "type", "rfam_family": "family"}
_PER_NUCLEOTIDE = ("secondary_structure", "element", "structural_annotation")
_TEXT = ("id", "sequence", *_PER_NUCLEOTIDE, "type", "family", "split")
#: Other people's names of splits -> ours, where ours is not there already.
_SPLIT_NAMES = {"training": "train", "validation": "selection", "valid": "selection", "val": "selection", "dev": "selection",
                "test": "heldout", "held-out": "heldout"}  # fmt: skip
#: Splits of the embedded data that stand beside the three: unseen sequences of training families, and natural records.
_FURTHER_SPLITS = ("validation", "natural")
#: Fewest families of a type for which the type gets a share of its own in every split.
_FEWEST = 5


# ---- reading


def read_records(source: str | Path, revision: str | None = None) -> pd.DataFrame:
    """Records of a local file, of a folder of one-record files, or of a data set on the Hugging Face hub.

    Parameters
    ----------
    source
        A file, known by its suffix: ``.parquet``, ``.csv``, ``.tsv``, FASTA (``.fa``, ``.fasta``, ``.fas``, ``.fna``), dot-bracket
        (``.dbn``, ``.db``: name, sequence and structure lines), Stockholm (``.sto``, ``.stk``: the consensus structure is projected
        onto every row), or one RNA in ``.bpseq``, ``.ct``, ``.st``. FASTA, dot-bracket, Stockholm, CSV and TSV may be gzipped.
        A folder is read as all the bpseq, ct, st and dot-bracket files in it. Anything else of the form ``owner/name`` is a
        data set of the hub, such as ``multimolecule/bprna-90``.
    revision
        Branch, tag or commit of a hub data set; None is its newest.

    Returns
    -------
    Records as in the module's description, checked by `validate`. Structural elements are not computed here, since that takes
    longer than all the reading: see `add_elements`.

    Raises ValueError, naming the source, the record and the place, where the source cannot be read or `validate` finds a fault.
    """
    path = Path(source)
    if not path.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or _suffix(path) in _READERS:
            raise ValueError(f"{source} is no file or folder here and no hub data set of the form owner/name; check the path")
        records = _read_hub(str(source), revision)
    elif revision is not None:
        raise ValueError(f"{source} is a local file or folder, so revision '{revision}' means nothing; leave the revision out")
    elif path.is_dir():
        paths = sorted(file for file in path.iterdir() if _suffix(file) in _ONE_RECORD)
        if not paths:
            raise ValueError(f"{source} is a folder without any {', '.join(_ONE_RECORD)} file; give the file itself for other formats")
        records = pd.DataFrame([record for file in tqdm(paths, "reading", delay=1) for record in _read_file(file)])
    else:
        records = pd.DataFrame(_read_file(path))
    return validate(records.rename(columns={old: new for old, new in _COLUMNS.items() if new not in records}), source)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _read_file(path: Path) -> pd.DataFrame | list[dict]:
    suffix = _suffix(path)
    if suffix not in _READERS:
        raise ValueError(f"{path}: the suffix '{suffix}' is of no known format; use one of {', '.join(_READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one record")
    try:
        return _READERS[suffix](path)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} cannot be read as {suffix}: {reason}; mend the file or give it the suffix of its format") from error


def _read_hub(name: str, revision: str | None) -> pd.DataFrame:
    import datasets  # takes a second to import, and only this source needs it

    try:
        parts = datasets.load_dataset(name, revision=revision)
    except Exception as error:  # the hub, the network and the data set's own files each fail in their own ways
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} is no file or folder here, and as a hub data set it cannot be loaded: {reason}") from error
    frames = {split: part.to_pandas() for split, part in parts.items()}
    if len(frames) > 1:  # a data set of one part calls it "train", which says nothing
        frames = {split: frame if "split" in frame else frame.assign(split=split) for split, frame in frames.items()}
    return pd.concat(frames.values(), ignore_index=True)


def _read_table(path: Path) -> pd.DataFrame:
    # An RNA may well be called, or read, "NA": only an empty cell is a missing value.
    text = dict.fromkeys([*_TEXT, *_COLUMNS], str)
    return pd.read_csv(path, sep="\t" if _suffix(path) == ".tsv" else ",", dtype=text, keep_default_na=False, na_values=[""])


def _open(path: Path) -> io.TextIOBase:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace")  # Rfam's files hold authors' names in other encodings


def _blocks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of every block that starts with '>'; a file without any name is one block, named like the file."""
    name, body = None, []
    with _open(path) as lines:
        for line in map(str.strip, lines):
            if line.startswith(">"):
                if name is not None or body:
                    yield name or "", body
                name, body = line[1:].strip().partition(" ")[0], []
            elif line and line[0] not in "#;":
                body.append(line)
    if name is not None or body:
        yield Path(path.name.removesuffix(".gz")).stem if name is None else name, body


def _read_fasta(path: Path) -> list[dict]:
    return [{"id": name, "sequence": "".join(lines)} for name, lines in _blocks(path)]


def _read_dot_bracket(path: Path) -> list[dict]:
    records = []
    for number, (name, lines) in enumerate(_blocks(path), 1):
        if len(lines) != 2:
            raise ValueError(f"record '{name}' (number {number}) has {len(lines)} lines, where one of sequence and one of structure belong")
        structure = re.sub(r"\s+\(\s*[-+]?[\d.]+\)$", "", lines[1])  # RNAfold writes the free energy behind the structure
        records.append({"id": name, "sequence": lines[0], "secondary_structure": structure})
    return records


def _read_one(path: Path) -> list[dict]:
    record = load(path)
    if _suffix(path) == ".ct" and len(path.read_text().strip().splitlines()) > 1 + len(record):
        raise ValueError(f"more lines follow the {len(record)} nucleotides of the first structure; keep the one structure that is meant")
    fields = {"id": record.id or path.stem, "sequence": record.sequence, "secondary_structure": record.dot_bracket}
    return [fields | ({"structural_annotation": record.structure_array} if hasattr(record, "structure_array") else {})]


def _read_stockholm(path: Path) -> list[dict]:
    with _open(path) as file:
        blocks = [block for block in re.split(r"^//\s*$", file.read(), flags=re.M) if block.strip()]
    records = []
    for block in tqdm(blocks, "alignments", delay=1):
        alignment = AlignIO.read(io.StringIO(block.lstrip() + "//\n"), "stockholm")
        features = dict(re.findall(r"^#=GF (ID|TP)\s+(\S.*?)[;\s]*$", block, re.M))
        known = {"family": features["ID"]} if "ID" in features else {}
        if "TP" in features:
            known["type"] = features["TP"].split("; ")[-1]
        prefix = f"{features.get('ID', '')}/" if len(blocks) > 1 else ""  # one sequence may stand in several families
        consensus = alignment.column_annotations.get("secondary_structure")
        if consensus is not None:
            partner = pair_table(consensus)
            if (split_pseudoknots(re.sub("[A-Za-z]", ".", consensus))[1] >= 0).any():
                raise ValueError(f"brackets of consensus structure {features.get('ID', '')} cross; write pseudoknots with letters (Aa Bb)")
        for row in alignment:
            aligned = str(row.seq)
            record = {"id": prefix + row.id, "sequence": re.sub(r"[-.~]", "", aligned).upper()}
            if consensus is not None:
                record["secondary_structure"] = project(aligned, consensus, partner)[1]
            records.append(record | known)
    return records


def project(aligned: str, consensus: str, partner: np.ndarray) -> tuple[str, str]:
    """Ungapped sequence of one alignment row and its dot-bracket structure.

    A consensus pair survives if both its ends are present, are canonical or GU, and enclose 3 nt or more. Brackets of the
    consensus (WUSS) become round ones, since they nest; its letters mark pseudoknots and stay.

    Parameters
    ----------
    aligned
        The row, ``-``, ``.`` and ``~`` being gaps. Length W.
    consensus
        Consensus structure of the alignment (``SS_cons``). Length W.
    partner
        `structure.pair_table` of `consensus`. Shape [W].
    """
    columns = [column for column, letter in enumerate(aligned) if letter not in "-.~"]
    sequence = "".join(aligned[column] for column in columns).upper().replace("T", "U")
    place = {column: position for position, column in enumerate(columns)}
    symbols = ["."] * len(sequence)
    for column, position in place.items():
        other = place.get(int(partner[column]), -1)
        if other - position > 3 and sequence[position] + sequence[other] in CANONICAL_PAIRS:
            opening = consensus[column]
            symbols[position], symbols[other] = (opening, opening.lower()) if opening.isalpha() else "()"
    return sequence, "".join(symbols)


_ONE_RECORD = {".bpseq": _read_one, ".ct": _read_one, ".st": _read_one, ".sta": _read_one,
               ".dbn": _read_dot_bracket, ".db": _read_dot_bracket}  # fmt: skip
_READERS: dict[str, Callable] = {
    ".parquet": pd.read_parquet,
    **dict.fromkeys((".csv", ".tsv"), _read_table),
    **dict.fromkeys((".fa", ".fasta", ".fas", ".fna"), _read_fasta),
    **dict.fromkeys((".sto", ".stk"), _read_stockholm),
    **_ONE_RECORD,
}


# ---- checking


def validate(records: pd.DataFrame, source: str | Path) -> pd.DataFrame:
    """Checked copy of `records`, the sequences in upper case and with U; `source` is the name used in messages.

    Letters other than A, C, G and U that the tokenizers know (`KNOWN_LETTERS`) are kept, and P (a modified base of a few bpRNA
    records from the PDB, unknown to the tokenizers) becomes N: the language model reads them, the analysis leaves such nucleotides
    out. One warning says how many records were changed or hold such letters. Pairs need not be canonical. Columns without a
    single value are dropped.

    Raises ValueError for no records, a missing column or id, an id used twice, an empty sequence, a gap, space or unknown letter
    in a sequence, a structure that is unbalanced or not as long as its sequence, and unknown element letters.
    """
    if records.empty:
        raise ValueError(f"{source} holds no records; give at least one")
    for column in ("id", "sequence"):
        if column not in records:
            raise ValueError(f"{source} has no column '{column}', only {', '.join(map(str, records.columns))}; add or rename it")
    records = records.reset_index(drop=True)
    empty = [column for column in _TEXT[2:] if column in records and records[column].isna().all()]
    records = records.drop(columns=empty).astype({column: "str" for column in _TEXT if column in records and column not in empty})

    nameless = records.id.fillna("").str.strip() == ""
    if nameless.any():
        raise ValueError(f"{source}: record number {nameless.idxmax() + 1} has no id{_count(nameless)}; give every record one")
    _refuse(source, records, records.id.duplicated(), lambda row: f"stands twice, as number {records.id.eq(row.id).idxmax() + 1} "
            f"and number {row.Index + 1}", "give every record an id of its own")  # fmt: skip
    records["sequence"] = _sequences(records, source)
    _check_structures(records, source)
    return records


def _sequences(records: pd.DataFrame, source: str | Path) -> pd.Series:
    given = records.sequence.fillna("")
    _refuse(source, records, given == "", lambda row: "has an empty sequence", "remove it or give its sequence")
    readable = KNOWN_LETTERS + "TP"
    gap, unknown = r"[\s.~_-]", f"[^{readable}{readable.lower()}]"
    _refuse(source, records, given.str.contains(gap), lambda row: f"has the gap or space {_first(gap, row.sequence)}",
            "take gaps and spaces out of the sequences")  # fmt: skip
    _refuse(source, records, given.str.contains(unknown), lambda row: f"has the unknown letter {_first(unknown, row.sequence)}",
            f"known are {', '.join(KNOWN_LETTERS)} and T (read as U): write N for an unknown base, or remove the record")  # fmt: skip
    upper = given.str.upper()
    sequence = upper.str.replace("T", "U").str.replace("P", "N")
    notes = {
        "in lower case, read as upper case": upper != given,
        "with T, read as U": upper.str.contains("T"),
        "with P (a modified base), read as N": upper.str.contains("P"),
        "with letters other than A, C, G and U: those nucleotides are left out of the analysis": sequence.str.contains("[^ACGU]"),
    }
    said = [f"{mask.sum():,} {what}" for what, mask in notes.items() if mask.any()]
    if said:
        warnings.warn(f"{source}: of {len(records):,} records {'; '.join(said)}", stacklevel=4)
    return sequence


def _check_structures(records: pd.DataFrame, source: str | Path) -> None:
    for column in _PER_NUCLEOTIDE:
        if column in records:
            _refuse(source, records, records[column].isna(), lambda row, column=column: f"has no {column}, but others have one",
                    f"give it one, or leave the column {column} out")  # fmt: skip
            _refuse(source, records, records[column].str.len() != records.sequence.str.len(),
                    lambda row, column=column: f"has {len(row.sequence)} nucleotides, but {len(getattr(row, column))} symbols of {column}",
                    "give one symbol per nucleotide")  # fmt: skip
    if "secondary_structure" in records:
        structures = records.secondary_structure.unique()
        faults = {structure: fault for structure in structures if (fault := _bracket_fault(structure))}
        _refuse(source, records, records.secondary_structure.isin(faults),
                lambda row: f"has a faulty secondary_structure, where {faults[row.secondary_structure]}", "mend or remove it")  # fmt: skip
    if "element" in records:
        foreign = f"[^{''.join(ELEMENTS)}]"
        _refuse(source, records, records.element.str.contains(foreign),
                lambda row: f"has the unknown element {_first(foreign, row.element)}",
                f"elements are {', '.join(ELEMENTS)}: mend it, or leave the column out to have it computed")  # fmt: skip


def _bracket_fault(structure: str) -> str | None:
    try:
        pair_table(structure)
    except ValueError as error:
        return str(error)
    return None


def _refuse(source: str | Path, records: pd.DataFrame, faulty: pd.Series, say: Callable, remedy: str) -> None:
    """Raise one sentence about the first of the `faulty` records, if there is any; `say` words the fault of a row."""
    if faulty.any():
        row = next(records[faulty].itertuples())
        raise ValueError(f"{source}: record '{row.id}' {say(row)}{_count(faulty)}; {remedy}")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return f"'{found.group()}' at position {found.start() + 1}"


def _count(faulty: pd.Series) -> str:
    return f" ({faulty.sum():,} records have this fault)" if faulty.sum() > 1 else ""


# ---- choosing


def add_elements(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with the column `element`, computed from `secondary_structure` (`structure.element_string`) where it is not there yet.

    A record costs a millisecond or more, long RNAs much more: choose records first (`select_length`, `balanced_sample`).
    Records without structures come back as they are.
    """
    if "element" in records or "secondary_structure" not in records:
        return records
    structures = records.secondary_structure.unique()
    element = {structure: element_string(structure) for structure in tqdm(structures, "elements", delay=1)}
    return records.assign(element=records.secondary_structure.map(element))


def select_length(records: pd.DataFrame, longest: int) -> pd.DataFrame:
    """Records of at most `longest` nucleotides; a warning says how many were skipped.

    Raises ValueError if none is left.
    """
    short = records.sequence.str.len() <= longest
    if not short.any():
        raise ValueError(f"all {len(records):,} records are longer than the {longest} nt that can be read; give shorter ones")
    if not short.all():
        warnings.warn(f"{(~short).sum():,} of {len(records):,} records are longer than {longest} nt and are skipped", stacklevel=2)
    return records[short].reset_index(drop=True)


def balanced_sample(records: pd.DataFrame, by: str, per_group: int, seed: int) -> pd.DataFrame:
    """At most `per_group` records of every value of column `by`, in the order of `records`.

    Which ones depends on `seed` and the records' ids alone, not on their order. Records without a value of `by` are left out.
    """
    if by not in records:
        raise ValueError(f"the records have no column '{by}' to balance by, only {', '.join(records.columns)}")
    if per_group < 1:
        raise ValueError(f"{per_group} records of every {by} are impossible; ask for 1 or more")
    records = records.reset_index(drop=True)
    drawn = records.id.map(lambda name: _uniform(seed, name)).sort_values().index
    kept = records.loc[drawn].groupby(by).head(per_group).index
    return records.loc[kept.sort_values()].reset_index(drop=True)


def assign_splits(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`records` with the column `split`: train, selection or heldout in the shares of `SPLITS`; given splits are kept.

    ``records.attrs["split_by"]`` says which way was taken:

    - ``"given"``: the records have a column `split` with all three. Without a selection set, validation is read as one, likewise
      test as heldout; the embedded data's further splits stay. A warning says if held-out families stand in train or selection
      too. Where one of the three is missing, all are made anew, with a warning.
    - ``"family"``: no family is on two sides. Shares are of families, within every type that has five families or more; the
      families of rarer types are split together. A record of no known family counts as a family of its own.
    - ``"sequence"``: fewer than three families are known. Identical sequences are on the same side; homologues may not be. The side
      depends on the sequence and `seed` alone, so a record keeps it when others are added (unless a side would be empty).

    Raises ValueError for an unknown name of a split, and for fewer than three distinct sequences.
    """
    if "split" in records:
        named = records.split.str.lower()
        named = named.replace({old: new for old, new in _SPLIT_NAMES.items() if new not in set(named)})
        strange = ~named.isin([*SPLITS, *_FURTHER_SPLITS])
        if strange.any():
            raise ValueError(f"record '{records.id[strange].iloc[0]}' has the split '{records.split[strange].iloc[0]}'{_count(strange)}; "
                             f"use {', '.join(SPLITS)}, or leave the column split out to have it made")  # fmt: skip
        absent = [split for split in SPLITS if split not in set(named)]
        if not absent:
            _warn_of_shared_families(records, named)
            return _with_split(records, named, "given")
        warnings.warn(f"the given splits have no {' and no '.join(absent)} set: the records are split anew", stacklevel=2)
    if "family" in records and records.family.nunique() >= 3:
        return _with_split(records, _split_families(records, seed), "family")
    sequences = records.sequence.drop_duplicates()
    if len(sequences) < 3:
        raise ValueError(f"{len(sequences)} distinct sequences cannot be split into {', '.join(SPLITS)}; give three or more")
    bounds = np.cumsum([*SPLITS.values()])[:-1]
    split = {sequence: [*SPLITS][np.searchsorted(bounds, _uniform(seed, sequence), "right")] for sequence in sequences}
    if len(set(split.values())) < len(SPLITS):
        split = _deal(sequences, seed)
    return _with_split(records, records.sequence.map(split), "sequence")


def _with_split(records: pd.DataFrame, split: pd.Series, split_by: str) -> pd.DataFrame:
    records = records.assign(split=split)
    records.attrs["split_by"] = split_by
    return records


def _warn_of_shared_families(records: pd.DataFrame, named: pd.Series) -> None:
    if "family" in records:
        heldout = set(records.family[named == "heldout"].dropna())
        shared = heldout & set(records.family[named.isin(["train", "selection"])])
        if shared:
            warnings.warn(f"{len(shared):,} of {len(heldout):,} families of the given held-out split stand in train or selection too: "
                          "held-out scores are not of unseen families", stacklevel=3)  # fmt: skip


def _split_families(records: pd.DataFrame, seed: int) -> pd.Series:
    family = records.family.fillna("sequence " + records.sequence)
    rna_type = records["type"].fillna("") if "type" in records else pd.Series("", records.index)
    strata = rna_type.groupby(family).min()  # one type per family, whatever the order of the records
    strata = strata.where(strata.map(strata.value_counts()) >= _FEWEST, "")
    split = {}
    for _, stratum in strata.groupby(strata):
        split |= _deal(stratum.index, seed) if len(stratum) >= _FEWEST else dict.fromkeys(stratum.index, "train")
    if len(set(split.values())) < len(SPLITS):
        split = _deal(strata.index, seed)
    return family.map(split)


def _deal(names, seed: int) -> dict[str, str]:
    """Every name's split, at random in the shares of `SPLITS`; at least one selection and one held-out."""
    order = sorted(names, key=lambda name: _uniform(seed, name))
    selection, heldout = (max(1, round(SPLITS[split] * len(order))) for split in ("selection", "heldout"))
    sides = np.repeat([*SPLITS], [len(order) - selection - heldout, selection, heldout]).tolist()
    return dict(zip(order, sides, strict=True))


def _uniform(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on `seed` and `text` alone, on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=6).digest()) / 2**48
