"""The one rule for records: what is refused in a file, left out of a hub data set, changed, or only said."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from sae_rna.records.structure import ELEMENTS, pair_table

KNOWN_LETTERS = "ACGUNRYSWKMBDHVIX"  # to multimolecule: bases, IUPAC codes, inosine (I), any base (X)
_PER_NUCLEOTIDE = ("secondary_structure", "element", "structural_annotation")  # columns as long as sequences
TEXT = ("id", "sequence", *_PER_NUCLEOTIDE, "type", "family", "split")
#: What no value of a column may contain: column, pattern, name of the fault, remedy.
_PATTERNS = (
    ("sequence", r"[ \t.~_-]", "a gap or space", "take gaps and spaces out of the sequences"),
    ("sequence", f"[^{KNOWN_LETTERS}TP{KNOWN_LETTERS.lower()}tp]", "an unknown letter",
     f"known are {', '.join(KNOWN_LETTERS)} and T (read as U): write N for unknown bases, or remove it"),
    ("element", f"[^{''.join(ELEMENTS)}]", "an unknown element",
     f"elements are {', '.join(ELEMENTS)}: mend it, or leave the column out to have it computed"),
)  # fmt: skip


def validate(records: pd.DataFrame, source: str | Path) -> pd.DataFrame:
    """Checked copy of `records`, the sequences in upper case and with U.

    Messages call them `source`, and each by its `_place` (file and line) where it has one.

    Letters other than A, C, G and U that the tokenizers know are kept, and P (a modified base of a few bpRNA
    records) becomes N: the language model reads them, the analysis leaves such nucleotides out. One warning
    counts what was changed. Pairs need not be canonical. Columns without a value are dropped.

    Raises ValueError for no records, a missing column or id, an id used twice, an empty sequence, a gap or
    unknown letter, unknown elements, and a structure that is unbalanced or not as long as its sequence.
    """
    if records.empty:
        raise ValueError(f"{source} holds no records; give at least one")
    check_columns(records, ("id", "sequence"), source, "add or rename it")
    records = records.reset_index(drop=True)
    empty = [column for column in TEXT[2:] if column in records and records[column].isna().all()]
    records = as_text(records.drop(columns=empty))
    nameless, twice = records.id.fillna("").str.strip() == "", records.id.duplicated()
    if nameless.any():
        fault = f"record number {nameless.idxmax() + 1} has no id{how_many(nameless)}"
        raise ValueError(f"{_place(records[nameless].iloc[0], source)}: {fault}; give every record one")
    if twice.any():
        name = records.id[twice.idxmax()]
        first, second = records.index[records.id == name][:2]
        numbers = f"number {first + 1} and number {second + 1}"
        fault = f"record '{name}' stands twice, as {numbers}{how_many(twice)}"
        where = " and ".join(dict.fromkeys(str(_place(records.loc[at], source)) for at in (first, second)))
        raise ValueError(f"{where}: {fault}; give every record an id of its own")
    records = check_records(records, source, changed := Counter[str]())
    if said := listed(changed):
        warnings.warn(f"{source}: of {len(records):,} records {said}", stacklevel=3)
    return records.drop(columns="_place", errors="ignore")


def _place(row: pd.Series, source: str | Path) -> str | Path:
    """File and line of a record, or `source` where they are not known."""
    return row.get("_place", source)


def check_columns(records: pd.DataFrame, columns: Iterable[str], source: str | Path, remedy: str) -> None:
    """ValueError naming the first of `columns` that `records` lack, and those they have."""
    for column in columns:
        if column not in records:
            have = ", ".join(name for name in map(str, records.columns) if not name.startswith("_"))
            raise ValueError(f"{source} has no column '{column}', only {have}; {remedy}")


def check_words(records: pd.DataFrame, source: str | Path) -> None:
    """ValueError if most of the column `sequence` are words: 'tRNA' has the letters of a sequence too."""
    if "sequence" not in records or records.empty:
        return
    sequence = records.sequence.astype("str").fillna("").str.upper()
    bases, short = sequence.str.count("[ACGTU]"), sequence.str.fullmatch(f"[{KNOWN_LETTERS}TP]{{2,12}}")
    odd = short & sequence.str.contains("[RYSWKMBDHVIXP]") & (bases < 0.6 * sequence.str.len())
    words = odd | sequence.str.fullmatch(r"\w*\d\w*|\w{0,9}[RD]NA")  # identifiers, and names of types
    if words.mean() > 0.5:
        row = records.iloc[words.argmax()]
        fault = f"column 'sequence' holds words such as '{row.sequence}' (record number {words.argmax() + 1})"
        raise ValueError(f"{_place(row, source)}: {fault}; give the column of the sequences this name")


def as_text(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with the columns of `TEXT` as strings."""
    return records.astype({column: "str" for column in TEXT if column in records})


def check_records(
    records: pd.DataFrame, source: str | Path, changed: Counter, left_out: Counter | None = None
) -> pd.DataFrame:
    """`records` with their sequences in upper case and with U; `changed` counts what was changed.

    A faulty record raises a ValueError, as in a file that its owner can mend; with the counter `left_out` it
    is left out and counted there, as in a data set of the hub.
    """
    bad = pd.Series(False, records.index)
    for faulty, name, remedy, place in _faults(records):
        faulty &= ~bad
        if left_out is not None:
            left_out[f"with {name}"] += int(faulty.sum())
        elif faulty.any():
            row = records[faulty].iloc[0]
            fault = f"record '{row.id}' has {name}{place(row)}{how_many(faulty)}"
            raise ValueError(f"{_place(row, source)}: {fault}; {remedy}")
        bad |= faulty
    records = records[~bad]
    upper = records.sequence.str.upper()
    sequence = upper.str.replace("T", "U").str.replace("P", "N")
    changed["in lower case, read as upper case"] += int((upper != records.sequence).sum())
    changed["with T, read as U"] += int(upper.str.contains("T").sum())
    changed["with P (a modified base), read as N"] += int(upper.str.contains("P").sum())
    others = "with letters other than A, C, G and U: those nucleotides are left out of the analysis"
    changed[others] += int(sequence.str.contains("[^ACGU]").sum())
    return records.assign(sequence=sequence)


def _faults(records: pd.DataFrame) -> Iterator[tuple[pd.Series, str, str, Callable[..., str]]]:
    """All that can be wrong: which records are faulty, the fault, the remedy, and where it is in a row."""

    def match(column: str, pattern: str, row) -> str:
        found = next(re.finditer(pattern, getattr(row, column)))
        return f": '{found.group()}' at position {found.start() + 1}"

    def lengths(column: str, row) -> str:
        return f": {len(row.sequence)} nucleotides, but {len(getattr(row, column))} symbols of {column}"

    nowhere, remedy = lambda _: "", "remove it or give its sequence"
    yield records.sequence.fillna("") == "", "an empty sequence", remedy, nowhere
    for column, pattern, fault, remedy in _PATTERNS:
        if column in records:
            yield records[column].str.contains(pattern), fault, remedy, partial(match, column, pattern)
    for column in [column for column in _PER_NUCLEOTIDE if column in records]:
        missing = records[column].isna()
        if column != "structural_annotation":  # a hint: st files have it, others cannot
            remedy = f"give it one as others have, or leave the column {column} out"
            yield missing, f"no {column}", remedy, nowhere
        faulty = (records[column].str.len() != records.sequence.str.len()) & ~missing
        fault, remedy = f"a {column} of another length than its sequence", "give one symbol per nucleotide"
        yield faulty, fault, remedy, partial(lengths, column)
    if "secondary_structure" in records:
        faults = {}
        for structure in records.secondary_structure.dropna().unique():
            try:
                pair_table(structure)
            except ValueError as error:
                faults[structure] = f": {error}"
        faulty, fault = records.secondary_structure.isin(faults), "a faulty secondary_structure"
        yield faulty, fault, "mend or remove it", lambda row: faults[row.secondary_structure]


def listed(counts: Counter) -> str:
    """What was counted, for a warning; empty if nothing was."""
    return "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def how_many(faulty: pd.Series) -> str:
    """The end of a message that names one record: how many have its fault, if several do."""
    return f" ({faulty.sum():,} records have this fault)" if faulty.sum() > 1 else ""
