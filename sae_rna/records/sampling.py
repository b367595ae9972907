"""Which records a study reads, for the study itself and for its plan."""

import json
from pathlib import Path

import pandas as pd

from sae_rna.cache import RunFolder, file_hash
from sae_rna.files import write_json
from sae_rna.parameters import Parameters, resolve
from sae_rna.records import hub
from sae_rna.records.readers import read_records
from sae_rna.records.splits import (
    EVALUATION_SPLITS,
    assign_splits,
    balanced_sample,
    largest_sizes,
    select_length,
)
from sae_rna.records.structure import add_elements, fold


def all_records(file: str | Path, longest: int, seed: int) -> pd.DataFrame:
    """The records of a file that are short enough, with `split`. Raises ValueError naming the file."""
    records = read_records(file)
    try:
        return assign_splits(select_length(records, longest), seed)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def structure_sample(records: pd.DataFrame, per_split: int, seed: int) -> pd.DataFrame:
    """Of each evaluation split at most `per_split` records."""
    return balanced_sample(records[records.split.isin(EVALUATION_SPLITS)], "split", per_split, seed)


def type_sample(records: pd.DataFrame, per_type: int, per_split: int, seed: int) -> pd.DataFrame:
    """Of each type at most `per_type` records to train on, and its share of `per_split` in other splits."""
    chosen = records[records.split.isin(("train", *EVALUATION_SPLITS))]
    most = largest_sizes(chosen.split, chosen.type, per_type, per_split)
    sample = balanced_sample(chosen, ["split", "type"], most, seed)
    return sample.sort_values("split", kind="stable", ignore_index=True)


class Source:
    """Where the records of the parameter `use`, structures or types, come from: a file or the hub."""

    def __init__(self, parameters: Parameters, use: str, longest: int, run: RunFolder):
        self.parameters, self.use, self.longest, self.run = parameters, use, longest, run
        self.name = resolve(getattr(parameters, use))
        self.revision = getattr(parameters, f"{use}_revision")
        if self.revision is not None and not hub.is_hub_name(self.name):
            nothing = f"{self.name} is no hub data set, so its revision '{self.revision}' means nothing"
            raise ValueError(f"{nothing}: leave '{use}_revision' out")

    @property
    def file(self) -> str:
        """The file with the records; of a hub data set, the sample which this run drew.

        That stays in the run folder with ``sample.json``, which says its commit, and may serve another run.
        """
        if not hub.is_hub_name(self.name):
            return self.name
        p, use = self.parameters, self.use
        choice = {"revision": self.revision, "longest": self.longest}
        choice |= {"per_split": p.per_split, "seed": p.seed}
        if use == "types":
            choice |= {"by": "type", "per_train": p.per_type}
        else:
            choice |= {"needs": [] if p.fold else ["secondary_structure"], "per_train": p.per_split}

        def make(folder: Path):
            sample = hub.sample_hub(self.name, **choice)
            sample.to_parquet(folder / "records.parquet", index=False)
            write_json(folder / "sample.json", sample.attrs)

        folder = self.run.kept(f"sample-{use}", {"source": self.name} | choice, make, hub)
        return str(folder / "records.parquet")

    def with_elements(self, records: pd.DataFrame) -> pd.DataFrame:
        """`records` with structural elements, folded first where the parameters say so."""
        if "secondary_structure" not in records and not self.parameters.fold:
            needed = "a file with a column secondary_structure, or set fold to true to have them predicted"
            fault = f"{self.parameters.structures} has no secondary structures"
            raise ValueError(f"{fault}: the parameter 'structures' needs {needed}")
        return add_elements(fold(records))

    def facts(self) -> dict:
        """For ``run.json``: source, hash and, of the hub, the sample and its commit."""
        file, facts = Path(self.file), {"source": getattr(self.parameters, self.use)}
        facts["hash"] = file_hash(str(file))
        if hub.is_hub_name(self.name):
            facts["sample"] = str(file.relative_to(self.run.folder))
            facts |= json.loads((file.parent / "sample.json").read_text())
        return facts
