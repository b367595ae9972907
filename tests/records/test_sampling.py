"""What a study takes of its records, by hand from the parts."""

import pandas as pd
import pytest

from sae_rna.cache import RunFolder
from sae_rna.parameters import Parameters
from sae_rna.records.sampling import Source, structure_sample, type_sample
from sae_rna.records.splits import EVALUATION_SPLITS, balanced_sample


@pytest.fixture
def records() -> pd.DataFrame:
    """Of each split 8 tRNAs, 8 rRNAs and 2 of no known type; no lncRNA but in train."""
    rows = [(split, kind) for split in ("train", "validation", *EVALUATION_SPLITS)
            for kind in 8 * ["tRNA", "rRNA"] + 2 * [None]] + 5 * [("train", "lncRNA")]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["split", "type"]).sample(frac=1, random_state=0, ignore_index=True)
    return frame.assign(id=[f"r{i}" for i in frame.index], sequence="ACGU")


def test_structures_are_sampled_in_each_evaluation_split(records):
    sample = structure_sample(records, 7, 0)
    assert sample.split.value_counts().to_dict() == dict.fromkeys(EVALUATION_SPLITS, 7)
    assert sample.id.tolist() == [name for name in records.id if name in set(sample.id)]


def test_types_are_sampled_in_each_split_as_if_it_were_alone(records):
    sample = type_sample(records, 6, 9, 0)
    counts = sample.groupby(["split", "type"]).size().to_dict()
    shares = {(split, kind): 4 for split in EVALUATION_SPLITS for kind in ("tRNA", "rRNA")}
    assert counts == shares | {("train", "tRNA"): 6, ("train", "rRNA"): 6, ("train", "lncRNA"): 5}
    most = dict.fromkeys(EVALUATION_SPLITS, 4) | {"train": 6}
    alone = [
        balanced_sample(records[records.split == split], "type", most[split], 0) for split in sorted(most)
    ]
    pd.testing.assert_frame_equal(sample, pd.concat(alone, ignore_index=True))


def test_a_revision_of_a_local_file_is_refused(tmp_path):
    parameters = Parameters(types_revision="main")
    with pytest.raises(ValueError, match="records.parquet.*'main'.*types_revision"):
        Source(parameters, "types", 100, RunFolder(tmp_path))
    assert Source(parameters, "structures", 100, RunFolder(tmp_path)).file.endswith("records.parquet")
