"""Balanced samples of data sets on the Hugging Face hub, read as streams of which nothing else is kept."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from sae_rna.hub import hub_faults
from sae_rna.records.checks import TEXT, as_text, check_columns, check_records, listed
from sae_rna.records.readers import READERS, our_names, suffix_of
from sae_rna.records.splits import KNOWN_SPLITS, largest_sizes, places, side, uniform

_ROWS = 5_000  # of a stream that are looked at together
_GROUP = ["split", "_group"]  # what a sample is balanced by: split and, mostly, type


def is_hub_name(source: str | Path) -> bool:
    """Whether `source` is nothing that is here, but ``owner/name`` without the suffix of a file format."""
    hub_like = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and suffix_of(Path(source)) not in READERS
    return bool(hub_like) and not Path(source).exists()


def sample_hub(name: str, revision: str | None = None, **choice) -> pd.DataFrame:
    """A balanced sample of a data set on the hub; ``attrs`` also say its `source` and `revision`, the commit.

    `revision` is a branch, tag or commit (None is the newest), `choice` the parameters of `sample_stream`.
    Raises ValueError as that does, and if the hub, the network or the files fail for minutes.
    """
    import datasets  # takes a second to import, and only this source needs it
    from huggingface_hub import HfApi

    with hub_faults(name, "a data set"):
        commit = HfApi().dataset_info(name, revision=revision).sha
        builder = datasets.load_dataset_builder(name, revision=commit)
    sample = sample_stream(_batches(builder, name), name, **choice)
    sample.attrs = {"source": name, "revision": commit} | sample.attrs
    return sample


def _batches(builder, name: str) -> Iterator[pd.DataFrame]:
    """Rows of a ``datasets`` builder in frames of at most `_ROWS`, and their `split` if it says anything."""
    total = builder.info.splits.total_num_examples if builder.info.splits else None
    progress = tqdm(desc=name, total=total, unit=" records", unit_scale=True, mininterval=1)
    with hub_faults(name, "a data set"), progress:
        if builder.name == "parquet":
            files = builder.config.data_files.items()
            parts = {split: chain.from_iterable(map(_parquet_batches, urls)) for split, urls in files}
        else:
            streams = builder.as_streaming_dataset().items()
            parts = {split: part.with_format("pandas").iter(_ROWS) for split, part in streams}
        # a data set of one part calls it "train", which says nothing
        named = len(parts) > 1 and {split.lower() for split in parts} <= KNOWN_SPLITS
        for split, batches in parts.items():
            for batch in batches:
                progress.update(len(batch))
                yield batch.assign(split=str(split)) if named and "split" not in batch else batch


def _parquet_batches(url: str) -> Iterator[pd.DataFrame]:
    """Rows of a Parquet file, in frames of at most `_ROWS`.

    `datasets` decodes whole row groups and keeps what it has read: 0.9 GB for half a million RNAs, this way
    0.1. Files are opened its way, which goes on asking for minutes when the network fails.
    """
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    # columns are read in turns, 4 MiB at a time: what is read ahead for one would be thrown away for the next
    config = DownloadConfig(storage_options={"hf": {"block_size": 1 << 16}})
    with xopen(url, "rb", download_config=config) as file:
        for batch in pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 22).iter_batches(_ROWS):
            yield batch.to_pandas()


@dataclass
class Stream:
    """Which records are sampled of a stream, and the count of all else."""

    source: str  # its name in messages
    per_train: int  # most training records of each value of `by` (of all records, if `by` is None)
    per_split: int  # most records in each other split, shared out equally among the values of `by` in it
    longest: int  # nucleotides
    seed: int
    by: str | None = None  # column to balance by, such as ``type``
    needs: Sequence[str] = ()  # further columns that must be there
    read: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def drawn(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Those records of a batch that have what is asked for and no fault; with split, group and draw."""
        batch, self.read = our_names(batch), self.read + len(batch)
        known = ["id", *([self.by] if self.by else []), *(["split"] if "split" in batch else [])]
        check_columns(batch, ("sequence", *known, *self.needs), self.source, "use another data set")
        batch = as_text(batch)
        known_S = (batch[known].notna() & (batch[known] != "")).all(axis=1)
        short_S = ~(batch.sequence.str.len() > self.longest)
        self.left_out[f"without {' or '.join(known)}"] += int((~known_S).sum())
        self.left_out[f"longer than {self.longest:,} nt"] += int((known_S & ~short_S).sum())
        batch = check_records(batch[known_S & short_S], self.source, self.changed, self.left_out)
        if "split" not in batch:
            unit = batch.family.fillna(batch.sequence) if "family" in batch else batch.sequence
            batch = batch.assign(split=[side(self.seed, text) for text in unit])
        draws = np.array([uniform(self.seed, f"sample/{sequence}") for sequence in batch.sequence])
        batch = batch.assign(_draw=draws, _group=batch[self.by] if self.by else "")
        return batch.astype({column: object for column in TEXT if column in batch})  # sorted without a copy


def sample_stream(batches: Iterable[pd.DataFrame], source: str, **choice) -> pd.DataFrame:
    """A balanced sample of a stream of records, in one pass and in memory that does not grow with the stream.

    Of every split and value of `by`, the records whose sequences have the smallest draws are kept
    (`splits.places`), whatever the order of the stream. A sequence is in the sample once: under the first of
    its ids in alphabetical order, and of several types or splits in the first. Without a column `split`,
    every family, or without families every sequence, has its side by a draw of its own. Records that are
    longer, faulty (`checks.validate`) or without an id or a value of `by` are left out, with one warning.

    batches : frames of some thousand rows; columns as in `readers.read_records`
    choice : `per_train`, `per_split`, `longest`, `seed`, `by` and `needs` of `Stream`

    Returns records ordered by split, type and id, with `split`; ``attrs`` count the stream's `records` and
    those `left_out`. Raises ValueError if a column is missing or no record is left.
    """
    stream = Stream(source, **choice)
    pool, largest = [], None
    for batch in map(stream.drawn, batches):
        if largest is not None:  # in a full group smaller draws matter, and the largest under another id
            most = largest.reindex(pd.MultiIndex.from_frame(batch[_GROUP])).to_numpy()
            batch = batch[~(batch._draw > most)]
        pool.append(batch)
        if len(pool) > 50 or sum(map(len, pool[1:])) > 20_000:
            kept, largest = _smallest(pool, stream)
            pool = [kept]
    left_out, of = listed(stream.left_out), f"of {stream.read:,} records"
    if not sum(map(len, pool)):
        raise ValueError(f"{source}: none {of} can be used ({left_out or 'it is empty'}); use another source")
    kept, _ = _smallest(pool, stream)
    # one record for a sequence and one for an id, whatever the order of the stream
    sample = kept.sort_values([*_GROUP, "id", "_draw"]).drop_duplicates("_draw").drop_duplicates("id")
    sample = as_text(sample.drop(columns=["_draw", "_group"])).reset_index(drop=True)
    sample.attrs = {"records": stream.read, "left_out": {what: n for what, n in stream.left_out.items() if n}}
    if said := "; ".join(filter(None, [left_out and f"{left_out}, all left out", listed(stream.changed)])):
        warnings.warn(f"{source}: {of} {said}", stacklevel=2)
    return sample


def _smallest(frames: list[pd.DataFrame], of: Stream) -> tuple[pd.DataFrame, pd.Series]:
    """Records with the smallest draws of each split and group, and the largest draw of each that is full."""
    records = pd.concat(frames, ignore_index=True)
    # the draw stands for the sequence here, which is much longer
    keys = records[[*_GROUP, "_draw", "id"]].sort_values(["_draw", "id"]).drop_duplicates([*_GROUP, "_draw"])
    most = largest_sizes(keys.split, keys._group, of.per_train, of.per_split)
    place = places(keys._draw, [keys.split, keys._group])
    return records.loc[keys.index[place <= most]], keys[place == most].set_index(_GROUP)._draw
