"""One run: its records, language model, autoencoders and activations, each made once and kept in its folder.

A study loads and remembers; results are functions of `sae_rna.analysis`, which take what it holds.
"""

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd

from sae_rna.cache import RunFolder
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import Parameters, Variant, layer_groups, resolve
from sae_rna.records.readers import read_records
from sae_rna.records.sampling import Source, structure_sample, type_sample
from sae_rna.records.splits import assign_splits, select_length
from sae_rna.records.structure import add_elements, fold
from sae_rna.sae.activations import Activations
from sae_rna.steps import Autoencoders, Steps


class Study:
    """See the module. Raises ValueError from the checks of parameters and data before anything runs."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.run = RunFolder(Path(parameters.run))

    @cached_property
    def model(self) -> LanguageModel:
        """The language model."""
        p = self.parameters
        return LanguageModel.load(resolve(p.model), p.model_revision, p.device)

    @cached_property
    def random_model(self) -> LanguageModel:
        """The same architecture with random weights: the control for what the language model has learnt."""
        p = self.parameters
        return LanguageModel.load(resolve(p.model), self.model.revision, p.device, p.seed)

    def masked_model(self, random: bool = False) -> LanguageModel:
        """A model with its head for masked bases. Raises ValueError for a checkpoint that has none."""
        p, seed = self.parameters, self.parameters.seed if random else None
        return LanguageModel.load(resolve(p.model), self.model.revision, p.device, seed, masked=True)

    @cached_property
    def layers(self) -> list[int]:
        """Blocks of the language model that are studied."""
        return sum(self.steps.groups.values(), [])

    @cached_property
    def structures(self) -> pd.DataFrame:
        """RNAs of known secondary structure in the evaluation splits, with `element`."""
        p = self.parameters
        sample = structure_sample(self.all_records("structures"), p.per_split, p.seed)
        return self.with_elements(sample).reset_index(drop=True)

    @cached_property
    def types(self) -> pd.DataFrame:
        """RNAs of known type in the evaluation splits."""
        return self._of_known_type[self._of_known_type.split != "train"].reset_index(drop=True)

    @cached_property
    def training(self) -> pd.DataFrame:
        """RNAs of known type on which the autoencoders are trained."""
        return self._of_known_type[self._of_known_type.split == "train"].reset_index(drop=True)

    @cached_property
    def _of_known_type(self) -> pd.DataFrame:
        p, records = self.parameters, self.all_records("types")
        if "type" not in records:
            remedy = "the parameter 'types' needs a file with a column type"
            raise ValueError(f"{p.types} has no RNA types: {remedy}")
        return type_sample(records, p.per_type, p.per_split, p.seed)

    def all_records(self, use: str) -> pd.DataFrame:
        """All records of the parameter `use`, structures or types, that are short enough, with `split`."""
        source = self.source(use)
        records = read_records(source.file)
        try:
            return assign_splits(select_length(records, source.longest), self.parameters.seed)
        except ValueError as error:
            raise ValueError(f"{source.file}: {error}") from None

    def source(self, use: str) -> Source:
        """Where the records of the parameter `use` come from."""
        return Source(self.parameters, use, min(self.parameters.longest, self.model.longest), self.run)

    def with_elements(self, records: pd.DataFrame) -> pd.DataFrame:
        """`records` with structural elements, folded first where the parameters say so."""
        p = self.parameters
        if "secondary_structure" not in records and not p.fold:
            fault = (
                f"{p.structures} has no secondary structures: the parameter 'structures' needs a file with"
            )
            remedy = "a column secondary_structure, or set fold to true to have them predicted"
            raise ValueError(f"{fault} {remedy}")
        return add_elements(fold(records))

    @cached_property
    def steps(self) -> Steps:
        """Training and encoding, by groups of layers."""
        groups = layer_groups(self.parameters, self.model.blocks)
        self.model.check_layers(sum(groups.values(), []))
        model_of = lambda variant: self.random_model if variant.control else self.model  # noqa: E731
        return Steps(self.run, self.parameters, groups, model_of, lambda use: getattr(self, use))

    def autoencoders(self, variant: Variant | None = None) -> Autoencoders:
        """The trained autoencoders of `variant` by layer (default: those shown in the figures)."""
        return self.steps.autoencoders(variant or self.parameters.main[0])

    def activations(self, use: str, variant: Variant | None = None) -> Activations:
        """The evaluation RNAs of `use`, structures or types, encoded by `variant` (default: as shown)."""
        return self.steps.activations(use, variant or self.parameters.main[0])

    def kept(self, analysis: Callable[..., pd.DataFrame], *inputs, **options) -> pd.DataFrame:
        """``analysis(*inputs, **options)``, computed once for the same inputs and code.

        analysis : a function of `sae_rna.analysis` that returns a table
        inputs, options : tables, values, and whatever has a `key`: models, autoencoders, activations
        """
        module = sys.modules[analysis.__module__]
        name = f"{module.__name__.removeprefix('sae_rna.analysis.')}-{analysis.__name__}".replace("_", "-")

        def make(folder: Path):
            analysis(*inputs, **options).to_parquet(folder / "table.parquet")

        return pd.read_parquet(self.run.kept(name, [inputs, options], make, module) / "table.parquet")

    def record_run(self):
        """Write ``run.json``: parameters, model and data with their fingerprints, versions."""
        model = {name: getattr(self.model, name) for name in ("revision", "fingerprint")}
        data = {use: self.source(use).facts() for use in ("structures", "types")}
        self.run.record(self.parameters, model={"source": self.parameters.model} | model, data=data)
