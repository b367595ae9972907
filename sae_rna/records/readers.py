"""RNA records: reading, checking, balancing and splitting them.

Records are a pandas DataFrame with one row per RNA. `id` (unique) and `sequence` (upper case, U not T) are always there;
`secondary_structure` (dot-bracket), `element` (letters of `structure.ELEMENTS`), `type`, `family` and `split` where known.
Any other column of the source stays. Bad input raises a ValueError that says where the fault is and what to do about it; what
was changed or left out is said by one warning per file.

Files are read whole (`read_records`). Data sets of the Hugging Face hub may have tens of millions of rows: they are read as a
stream, of which a balanced sample is kept (`sample_hub`).
"""

import gzip
import hashlib
import io
import re
import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from Bio import AlignIO
from multimolecule.io import load
from tqdm import tqdm

from sae_rna.records.structure import CANONICAL_PAIRS, ELEMENTS, element_string, pair_table, split_pseudoknots

#: What multimolecule's tokenizers know: the bases, the IUPAC codes of several bases, inosine (I) and any base (X).
KNOWN_LETTERS = "ACGUNRYSWKMBDHVIX"
#: Share of the families (or, without families, of the sequences) in each split.
SPLITS = {"train": 0.8, "selection": 0.1, "heldout": 0.1}
_BOUNDS = [*accumulate(SPLITS.values())][:-1]
#: Column names of public data sets -> ours.
_COLUMNS = {"urs": "id", "rna_class": "type", "rna_type": "type", "rfam_family": "family"}
_PER_NUCLEOTIDE = ("secondary_structure", "element", "structural_annotation")
_TEXT = ("id", "sequence", *_PER_NUCLEOTIDE, "type", "family", "split")
#: Other people's names of splits -> ours, where ours is not there already.
_SPLIT_NAMES = {"training": "train", "validation": "selection", "valid": "selection", "val": "selection", "dev": "selection",
                "test": "heldout", "held-out": "heldout"}  # fmt: skip
#: Splits of the embedded data that stand beside the three: unseen sequences of training families, and natural records.
_FURTHER_SPLITS = ("validation", "natural")
#: Rows of a stream that are looked at together.
_ROWS = 5_000
#: What a sample of a stream is balanced by: its split and, mostly, its type.
_GROUP = ["split", "_group"]
#: Fewest families of a type for which the type gets a share of its own in every split.
_FEWEST = 5


# ---- reading


def read_records(source: str | Path) -> pd.DataFrame:
    """Records of a local file, or of a folder of one-record files.

    Parameters
    ----------
    source
        A file, known by its suffix: ``.parquet``, ``.csv``, ``.tsv``, FASTA (``.fa``, ``.fasta``, ``.fas``, ``.fna``), dot-bracket
        (``.dbn``, ``.db``: name, sequence and structure lines), Stockholm (``.sto``, ``.stk``: the consensus structure is projected
        onto every row), or one RNA in ``.bpseq``, ``.ct``, ``.st``. FASTA, dot-bracket, Stockholm, CSV and TSV may be gzipped.
        A folder is read as all the bpseq, ct, st and dot-bracket files in it.

    Returns
    -------
    Records as in the module's description, checked by `validate`. Structural elements are not computed here, since that takes
    longer than all the reading: see `add_elements`.

    Raises ValueError, naming the source, the record and the place, where the source cannot be read or `validate` finds a fault.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source} is no file or folder here; check the path")
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if _suffix(file) in _ONE_RECORD)
        if not paths:
            raise ValueError(
                f"{source} is a folder without any {', '.join(_ONE_RECORD)} file; give the file itself for other formats"
            )
        records = pd.DataFrame(
            [record for file in tqdm(paths, "reading", delay=1) for record in _read_file(file)]
        )
    else:
        records = pd.DataFrame(_read_file(path))
    return validate(_our_names(records), source)


def _our_names(records: pd.DataFrame) -> pd.DataFrame:
    return records.rename(columns={old: new for old, new in _COLUMNS.items() if new not in records})


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _read_file(path: Path) -> pd.DataFrame | list[dict]:
    suffix = _suffix(path)
    if suffix not in _READERS:
        raise ValueError(
            f"{path}: the suffix '{suffix}' is of no known format; use one of {', '.join(_READERS)}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one record")
    try:
        return _READERS[suffix](path)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{path} cannot be read as {suffix}: {reason}; mend the file or give it the suffix of its format"
        ) from error


def _read_table(path: Path) -> pd.DataFrame:
    # An RNA may well be called, or read, "NA": only an empty cell is a missing value.
    text = dict.fromkeys([*_TEXT, *_COLUMNS], str)
    return pd.read_csv(
        path, sep="\t" if _suffix(path) == ".tsv" else ",", dtype=text, keep_default_na=False, na_values=[""]
    )


def _open(path: Path) -> io.TextIOBase:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(
        path, "rt", encoding="utf-8-sig", errors="replace"
    )  # Rfam's files hold authors' names in other encodings


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
            raise ValueError(
                f"record '{name}' (number {number}) has {len(lines)} lines, where one of sequence and one of structure belong"
            )
        structure = re.sub(
            r"\s+\(\s*[-+]?[\d.]+\)$", "", lines[1]
        )  # RNAfold writes the free energy behind the structure
        records.append({"id": name, "sequence": lines[0], "secondary_structure": structure})
    return records


def _read_one(path: Path) -> list[dict]:
    record = load(path)
    if _suffix(path) == ".ct" and len(path.read_text().strip().splitlines()) > 1 + len(record):
        raise ValueError(
            f"more lines follow the {len(record)} nucleotides of the first structure; keep the one structure that is meant"
        )
    fields = {
        "id": record.id or path.stem,
        "sequence": record.sequence,
        "secondary_structure": record.dot_bracket,
    }
    return [
        fields
        | ({"structural_annotation": record.structure_array} if hasattr(record, "structure_array") else {})
    ]


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
        prefix = (
            f"{features.get('ID', '')}/" if len(blocks) > 1 else ""
        )  # one sequence may stand in several families
        consensus = alignment.column_annotations.get("secondary_structure")
        if consensus is not None:
            partner = pair_table(consensus)
            if (split_pseudoknots(re.sub("[A-Za-z]", ".", consensus))[1] >= 0).any():
                raise ValueError(
                    f"brackets of consensus structure {features.get('ID', '')} cross; write pseudoknots with letters (Aa Bb)"
                )
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
            raise ValueError(
                f"{source} has no column '{column}', only {', '.join(map(str, records.columns))}; add or rename it"
            )
    records = records.reset_index(drop=True)
    empty = [column for column in _TEXT[2:] if column in records and records[column].isna().all()]
    records = _as_text(records.drop(columns=empty))
    nameless = records.id.fillna("").str.strip() == ""
    if nameless.any():
        raise ValueError(
            f"{source}: record number {nameless.idxmax() + 1} has no id{_count(nameless)}; give every record one"
        )
    twice = records.id.duplicated()
    if twice.any():
        name = records.id[twice.idxmax()]
        raise ValueError(f"{source}: record '{name}' stands twice, as number {records.id.eq(name).idxmax() + 1} and number "
                         f"{twice.idxmax() + 1}{_count(twice)}; give every record an id of its own")  # fmt: skip
    changed = Counter()
    records = _sound(records, source, changed)
    if said := _say(changed):
        warnings.warn(f"{source}: of {len(records):,} records {said}", stacklevel=3)
    return records


def _as_text(records: pd.DataFrame) -> pd.DataFrame:
    return records.astype({column: "str" for column in _TEXT if column in records})


def _say(counts: Counter) -> str:
    return "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _sound(
    records: pd.DataFrame, source: str | Path, changed: Counter, left_out: Counter | None = None
) -> pd.DataFrame:
    """`records` with their sequences in upper case and with U, all checked; `changed` counts what was changed or needs a word.

    This is the one rule for sequences and structures. A faulty record raises a ValueError, as in a file that its owner can mend;
    with the counter `left_out` it is left out and counted there, as in a data set of the hub that a few bad rows must not stop.
    """

    def reject(faulty: pd.Series, fault: str, detail: Callable, remedy: str) -> None:
        nonlocal records
        if left_out is not None:
            left_out[f"with {fault}"] += int(faulty.sum())
            records = records[~faulty]
        elif faulty.any():
            row = next(records[faulty].itertuples())
            raise ValueError(
                f"{source}: record '{row.id}' has {fault}{detail(row)}{_count(faulty)}; {remedy}"
            )

    readable = KNOWN_LETTERS + "TP"
    gap, unknown = r"[ \t.~_-]", f"[^{readable}{readable.lower()}]"
    reject(
        records.sequence.fillna("") == "",
        "an empty sequence",
        lambda row: "",
        "remove it or give its sequence",
    )
    reject(records.sequence.str.contains(gap), "a gap or space", lambda row: f": {_first(gap, row.sequence)}",
           "take gaps and spaces out of the sequences")  # fmt: skip
    reject(records.sequence.str.contains(unknown), "an unknown letter", lambda row: f" {_first(unknown, row.sequence)}",
           f"known are {', '.join(KNOWN_LETTERS)} and T (read as U): write N for an unknown base, or remove the record")  # fmt: skip
    for column in _PER_NUCLEOTIDE:
        if column in records:
            reject(records[column].isna(), f"no {column}", lambda row: ", but others have one",
                   f"give it one, or leave the column {column} out")  # fmt: skip
            reject(records[column].str.len() != records.sequence.str.len(), f"a {column} of another length than its sequence",
                   lambda row, column=column: f": {len(row.sequence)} nucleotides, but {len(getattr(row, column))} symbols of {column}",
                   "give one symbol per nucleotide")  # fmt: skip
    if "secondary_structure" in records:
        structures = records.secondary_structure.unique()
        faults = {structure: fault for structure in structures if (fault := _bracket_fault(structure))}
        reject(records.secondary_structure.isin(faults), "a faulty secondary_structure",
               lambda row: f", where {faults[row.secondary_structure]}", "mend or remove it")  # fmt: skip
    if "element" in records:
        foreign = f"[^{''.join(ELEMENTS)}]"
        reject(records.element.str.contains(foreign), "an unknown element", lambda row: f" {_first(foreign, row.element)}",
               f"elements are {', '.join(ELEMENTS)}: mend it, or leave the column out to have it computed")  # fmt: skip

    upper = records.sequence.str.upper()
    sequence = upper.str.replace("T", "U").str.replace("P", "N")
    changed["in lower case, read as upper case"] += int((upper != records.sequence).sum())
    changed["with T, read as U"] += int(upper.str.contains("T").sum())
    changed["with P (a modified base), read as N"] += int(upper.str.contains("P").sum())
    changed["with letters other than A, C, G and U: those nucleotides are left out of the analysis"] += int(
        sequence.str.contains("[^ACGU]").sum()
    )
    return records.assign(sequence=sequence)


def _bracket_fault(structure: str) -> str | None:
    try:
        pair_table(structure)
    except ValueError as error:
        return str(error)
    return None


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return f"'{found.group()}' at position {found.start() + 1}"


def _count(faulty: pd.Series) -> str:
    return f" ({faulty.sum():,} records have this fault)" if faulty.sum() > 1 else ""


# ---- sampling a hub data set


def is_hub_name(source: str | Path) -> bool:
    """Whether `source` is no file or folder here, but may be a data set of the hub: ``owner/name`` without the suffix of a format."""
    return (
        not Path(source).exists()
        and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)))
        and _suffix(Path(source)) not in _READERS
    )


def sample_hub(name: str, revision: str | None = None, **choice) -> pd.DataFrame:
    """A balanced sample of a data set on the Hugging Face hub, such as ``multimolecule/rnacentral``, of which nothing else is stored.

    Parameters
    ----------
    name
        The data set, ``owner/name``.
    revision
        Branch, tag or commit; None is its newest.
    choice
        What to take: the parameters of `sample_stream`.

    Returns
    -------
    As `sample_stream`; ``attrs`` also hold the data set's `source` and its `revision`, the commit that was read.

    Raises
    ------
    ValueError
        As `sample_stream`, and if the hub, the network or the data set's files fail for longer than `datasets` goes on trying (minutes).
    """
    import datasets  # takes a second to import, and only this source needs it
    from huggingface_hub import HfApi

    with _hub_faults(name):
        commit = HfApi().dataset_info(name, revision=revision).sha
        builder = datasets.load_dataset_builder(name, revision=commit)
    sample = sample_stream(_batches(builder, name), name, **choice)
    sample.attrs = {"source": name, "revision": commit} | sample.attrs
    return sample


@contextmanager
def _hub_faults(name: str) -> Iterator[None]:
    try:
        yield
    except (
        Exception
    ) as error:  # the hub, the network and the data set's own files each fail in their own ways
        reason = shorten(str(error), 300, placeholder=" ...").rstrip(".: ") or type(error).__name__
        raise ValueError(f"{name} cannot be read as a data set of the Hugging Face hub ({reason}): check its name, its revision and "
                         "the network, then run this again, or give a file") from error  # fmt: skip


def _batches(builder, name: str) -> Iterator[pd.DataFrame]:
    """The rows of the data set of a ``datasets.DatasetBuilder`` in frames of at most `_ROWS`, with their `split` if that says anything."""
    total = builder.info.splits.total_num_examples if builder.info.splits else None
    with (
        _hub_faults(name),
        tqdm(desc=name, total=total, unit=" records", unit_scale=True, mininterval=1) as progress,
    ):
        if builder.name == "parquet":
            parts = {
                split: chain.from_iterable(map(_parquet_batches, files))
                for split, files in builder.config.data_files.items()
            }
        else:
            parts = {
                split: part.with_format("pandas").iter(_ROWS)
                for split, part in builder.as_streaming_dataset().items()
            }
        # a data set of one part calls it "train", which says nothing
        named = len(parts) > 1 and {split.lower() for split in parts} <= {
            *SPLITS,
            *_SPLIT_NAMES,
            *_FURTHER_SPLITS,
        }
        for split, batches in parts.items():
            for batch in batches:
                progress.update(len(batch))
                yield batch.assign(split=str(split)) if named and "split" not in batch else batch


def _parquet_batches(url: str) -> Iterator[pd.DataFrame]:
    """Rows of a Parquet file, in frames of at most `_ROWS`.

    `datasets` decodes whole row groups and keeps what it has read of a file: 0.9 GB for half a million RNAs, where this way takes 0.1.
    Its way to open files stays: it goes on asking for minutes when the network fails.
    """
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    # columns are read in turns, 4 MiB at a time: what is read ahead for one of them would be thrown away for the next
    config = DownloadConfig(storage_options={"hf": {"block_size": 1 << 16}})
    with xopen(url, "rb", download_config=config) as file:
        for batch in pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 22).iter_batches(_ROWS):
            yield batch.to_pandas()


def sample_stream(
    batches: Iterable[pd.DataFrame],
    source: str,
    *,
    per_train: int,
    per_split: int,
    longest: int,
    seed: int,
    by: str | None = None,
    needs: Sequence[str] = (),
) -> pd.DataFrame:
    """A balanced sample of a stream of records, in one pass and in memory that does not grow with the stream.

    Of every split and value of `by`, the records whose sequences have the smallest seeded hashes are kept. So the sample does not
    depend on the order of the stream, and a sequence is in it once: under several ids as the first of them in alphabetical order,
    and if it is kept under several types or splits, in the first of these. Splits are the stream's own, in a column `split`;
    without one, every family, or without families every sequence, has its side by a hash of its own, in the shares of `SPLITS`.

    Sequences and structures obey the rule of `validate`, but a faulty record is left out instead of refused, and so are longer
    records and those without an id or a value of `by`. One warning counts them.

    Parameters
    ----------
    batches
        Frames of some thousand rows; columns as in `read_records`.
    source
        Name of the stream in messages.
    per_train
        Most training records of each value of `by` (of all records, if `by` is None).
    per_split
        Most records in each other split, shared out equally among the values of `by` that stand in it.
    longest
        Most nucleotides of a record.
    seed
        Another seed gives another sample.
    by
        Column to balance by, such as ``type``.
    needs
        Columns that must be there besides `id`, `sequence` and `by`.

    Returns
    -------
    Records in the order of their splits, types and ids, with the column `split`. ``attrs`` count the stream's records (`records`)
    and those left out (`left_out`).

    Raises ValueError if a column is missing or no record is left.
    """
    read, changed, left_out = 0, Counter(), Counter()
    pool, largest = [], None
    for batch in batches:
        read += len(batch)
        batch = _usable(_our_names(batch), source, by, needs, longest, changed, left_out)
        if "split" not in batch:
            unit = batch.family.fillna(batch.sequence) if "family" in batch else batch.sequence
            batch = batch.assign(split=[_side(seed, text) for text in unit])
        draw = np.array([_uniform(seed, f"sample/{sequence}") for sequence in batch.sequence])
        batch = batch.assign(_draw=draw, _group=batch[by] if by else "")
        if (
            largest is not None
        ):  # in a full group only smaller draws matter, and the largest itself under another id
            batch = batch[~(draw > largest.reindex(pd.MultiIndex.from_frame(batch[_GROUP])).to_numpy())]
        pool.append(
            batch.astype({column: object for column in _TEXT if column in batch})
        )  # sorting then copies no sequences
        if len(pool) > 50 or sum(map(len, pool[1:])) > 20_000:
            kept, largest = _smallest(pool, per_train, per_split)
            pool = [kept]
    if not sum(map(len, pool)):
        raise ValueError(
            f"{source}: none of {read:,} records can be used ({_say(left_out) or 'it is empty'}); use another data set"
        )
    kept, _ = _smallest(pool, per_train, per_split)
    # one record for a sequence and one for an id, whatever the order of the stream
    sample = kept.sort_values([*_GROUP, "id", "_draw"]).drop_duplicates("_draw").drop_duplicates("id")
    sample = _as_text(sample.drop(columns=["_draw", "_group"])).reset_index(drop=True)
    sample.attrs = {"records": read, "left_out": {what: count for what, count in left_out.items() if count}}
    if said := "; ".join(filter(None, [_say(left_out) and f"{_say(left_out)}, all left out", _say(changed)])):
        warnings.warn(f"{source}: of {read:,} records {said}", stacklevel=2)
    return sample


def _usable(
    records: pd.DataFrame,
    source: str,
    by: str | None,
    needs: Sequence[str],
    longest: int,
    changed: Counter,
    left_out: Counter,
) -> pd.DataFrame:
    """The records of one batch that a sample may hold, by the rule of `_sound`."""
    known = ["id", *([by] if by else []), *(["split"] if "split" in records else [])]
    for column in ("sequence", *known, *needs):
        if column not in records:
            raise ValueError(
                f"{source} has no column '{column}', only {', '.join(map(str, records.columns))}; use another data set"
            )
    records = _as_text(records)
    known_S = (records[known].notna() & (records[known] != "")).all(axis=1)
    short_S = ~(records.sequence.str.len() > longest)
    left_out[f"without {' or '.join(known)}"] += int((~known_S).sum())
    left_out[f"longer than {longest:,} nt"] += int((known_S & ~short_S).sum())
    return _sound(records[known_S & short_S], source, changed, left_out)


def _smallest(frames: list[pd.DataFrame], per_train: int, per_split: int) -> tuple[pd.DataFrame, pd.Series]:
    """The records with the smallest draws of every split and group, and the largest of these draws in each group that is full."""
    records = pd.concat(frames, ignore_index=True)
    # the draw stands for the sequence here, which is much longer
    keys = records[[*_GROUP, "_draw", "id"]].sort_values(["_draw", "id"]).drop_duplicates([*_GROUP, "_draw"])
    share = per_split // keys.groupby("split")._group.transform("nunique")
    most = share.clip(lower=1).where(~keys.split.str.lower().isin(["train", "training"]), per_train)
    rank = keys.groupby(_GROUP).cumcount()
    return records.loc[keys.index[rank < most]], keys[rank == most - 1].set_index(_GROUP)._draw


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


def fold(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a minimum free energy structure for every sequence, predicted by ViennaRNA, if their structures are unknown.

    The column `structure_source` says so for as long as the records live. Records with the column `secondary_structure` come back
    as they are.

    Raises ImportError, naming the remedy, if ViennaRNA is not installed.
    """
    if "secondary_structure" in records:
        return records
    try:
        import RNA
    except ImportError as error:
        raise ImportError(
            "ViennaRNA, which predicts structures, is missing: run 'pip install ViennaRNA', or leave fold false"
        ) from error
    predicted = {
        sequence: RNA.fold(sequence)[0] for sequence in tqdm(records.sequence.unique(), "folding", delay=1)
    }
    return records.assign(
        secondary_structure=records.sequence.map(predicted),
        structure_source=f"predicted (ViennaRNA {RNA.__version__}, MFE)",
    )


def select_length(records: pd.DataFrame, longest: int) -> pd.DataFrame:
    """Records of at most `longest` nucleotides; a warning says how many were skipped.

    Raises ValueError if none is left.
    """
    short = records.sequence.str.len() <= longest
    if not short.any():
        raise ValueError(
            f"all {len(records):,} records are longer than the {longest} nt that can be read; give shorter ones"
        )
    if not short.all():
        warnings.warn(
            f"{(~short).sum():,} of {len(records):,} records are longer than {longest} nt and are skipped",
            stacklevel=2,
        )
    return records[short].reset_index(drop=True)


def balanced_sample(records: pd.DataFrame, by: str, per_group: int, seed: int) -> pd.DataFrame:
    """At most `per_group` records of every value of column `by`, in the order of `records`.

    Which ones depends on `seed` and the records' ids alone, not on their order. Records without a value of `by` are left out.
    """
    if by not in records:
        raise ValueError(
            f"the records have no column '{by}' to balance by, only {', '.join(records.columns)}"
        )
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
        warnings.warn(
            f"the given splits have no {' and no '.join(absent)} set: the records are split anew",
            stacklevel=2,
        )
    if "family" in records and records.family.nunique() >= 3:
        return _with_split(records, _split_families(records, seed), "family")
    sequences = records.sequence.drop_duplicates()
    if len(sequences) < 3:
        raise ValueError(
            f"{len(sequences)} distinct sequences cannot be split into {', '.join(SPLITS)}; give three or more"
        )
    split = {sequence: _side(seed, sequence) for sequence in sequences}
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
        split |= (
            _deal(stratum.index, seed) if len(stratum) >= _FEWEST else dict.fromkeys(stratum.index, "train")
        )
    if len(set(split.values())) < len(SPLITS):
        split = _deal(strata.index, seed)
    return family.map(split)


def _deal(names, seed: int) -> dict[str, str]:
    """Every name's split, at random in the shares of `SPLITS`; at least one selection and one held-out."""
    order = sorted(names, key=lambda name: _uniform(seed, name))
    selection, heldout = (max(1, round(SPLITS[split] * len(order))) for split in ("selection", "heldout"))
    sides = np.repeat([*SPLITS], [len(order) - selection - heldout, selection, heldout]).tolist()
    return dict(zip(order, sides, strict=True))


def _side(seed: int, text: str) -> str:
    """The split that a sequence, or a family of a stream, has by itself, whatever else there is."""
    return [*SPLITS][bisect(_BOUNDS, _uniform(seed, text))]


def _uniform(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on `seed` and `text` alone, on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=6).digest()) / 2**48
