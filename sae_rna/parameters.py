"""Parameters of a study: what notebooks, profiles and the command line may set, and to which values."""

import json
import os
import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import yaml
from annotated_types import MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError

#: The repository: data that are not found from the current folder are sought there; a run never is.
ROOT = Path(os.environ.get("SAE_RNA_ROOT", Path(__file__).resolve().parents[1]))
Architecture = Literal[
    "topk", "relu-l1", "relu-l1-mean", "relu-l1-matched", "batchtopk", "matryoshka", "jumprelu"
]
ARCHITECTURES = get_args(Architecture)  # of autoencoders, explained in `sae_rna.sae.architectures`
MODELS = ("language-model", "random-model")  # whose hidden states: as trained, or of random weights
FROZEN = ("encoder", "decoder", "softly")
"""What of an autoencoder stays as it was drawn while the rest is trained (Korznikov et al. 2026,
arXiv:2602.14111); softly: decoder rows turn no further than to a cosine of 0.8 with what they were."""


class Variant(NamedTuple):
    """One kind of autoencoders that a study trains, in every layer."""

    architecture: str
    expansion: int
    seed: int
    control: str = ""  # "random-model" if the language model's weights are random
    frozen: str = ""  # one of `FROZEN`

    @property
    def name(self) -> str:
        """For folders and commands, such as topk-x8-seed0 or topk-x8-seed0-random-model."""
        frozen = self.frozen and f"frozen-{self.frozen}"
        parts = self.architecture, f"x{self.expansion}", f"seed{self.seed}", self.control, frozen
        return "-".join(filter(None, parts))


def _number(value):
    """Numbers of a profile come as text: 1e-3 is none to YAML, and a number to everybody else."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _whole(value):
    """1e3 is a whole number too."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _place(text: str) -> str:
    """A path or the name of a data set, with ~ and $SCRATCH as in a shell."""
    text = os.path.expandvars(os.path.expanduser(text))
    if not text.strip() or not text.isprintable() or "$" in text:
        expected = "a path or a name, of visible characters, and with variables that are set"
        raise PydanticCustomError("place", f"Input should be {expected}")
    return text


_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
CLAUSE = rf"\s*(\w+)\s*(==|!=|in)\s*({_QUOTED}|\[\s*{_QUOTED}(?:\s*,\s*{_QUOTED})*\s*\])\s*"
"""One condition on a column of the records, such as ``type == "tRNA"``; `and` joins several."""


def is_query(text: str) -> bool:
    """Whether a text is, or was meant as, conditions on columns, and not a file."""
    return bool(re.search(r"[=\[\]]", text)) and not Path(text).exists()


def _group(text: str) -> str:
    """A file of RNAs, or a query."""
    if not is_query(text):
        return _place(text)
    if not re.fullmatch(f"{CLAUSE}(and{CLAUSE})*", text):
        example = 'type == "tRNA" and family != "RF*", or family in ["RF00005", "RF00023"]'
        raise PydanticCustomError("group", f"Input should be a file of RNAs or conditions such as {example}")
    return text


def _device(name: str) -> str:
    """Where torch computes."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise PydanticCustomError("device", "Input should be 'auto', 'cpu', 'cuda' or, of several, 'cuda:1'")
    return name


def _once(layers: list[int]) -> list[int]:
    if len(set(layers)) < len(layers):
        raise PydanticCustomError("once", "Input should name every layer once")
    return layers


Positive = Annotated[int, Field(gt=0, le=10**12), BeforeValidator(_whole)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Place = Annotated[str, AfterValidator(_place)]
Group = Annotated[str, AfterValidator(_group)]


@dataclass(frozen=True)
class Parameters:
    """Everything that decides the numbers of a run. The defaults are made for two cores without a network."""

    model: Place = "data/rinalmo-nano"
    """Language model: a folder in multimolecule's format or a hub id such as multimolecule/rinalmo-giga."""
    model_revision: str | None = None  # branch, tag or commit of the language model on the hub
    structures: Place = "data/records.parquet"
    """RNAs of known secondary structure: a file (Parquet, CSV, dot-bracket, bpseq ...) or a hub data set."""
    structures_revision: str | None = None
    fold: bool = False
    """Predict structures with ViennaRNA (optional) if `structures` has none; they are marked as predicted."""
    types: Place = "data/records.parquet"
    """RNAs of known type, on which the autoencoders are trained too: a file or a hub data set."""
    types_revision: str | None = None
    layers: Literal["all"] | Annotated[list[Positive], MinLen(1), AfterValidator(_once)] = "all"
    """Blocks of the language model, for example [1, 18, 33], or "all"."""
    architecture: Architecture = "relu-l1-matched"
    """Autoencoder shown in the figures, one of `ARCHITECTURES`; those of relu-l1 are the paper's."""
    compared: Literal["all"] | Architecture | list[Architecture] = field(
        default_factory=lambda: ["relu-l1", "batchtopk"]
    )
    """Architectures trained beside it: a list, or "all"."""
    expansion: Positive = 2  # size of the dictionary in multiples of the model's width
    narrow: Positive = 1  # the same of a second one: are features the same at another size?
    replicates: Annotated[int, Field(ge=0, le=1000), BeforeValidator(_whole)] = 1
    """Further seeds from which the shown autoencoder is trained: do features come again?"""
    k: Positive = 16  # active latents a token (topk, batchtopk, matryoshka, relu-l1-matched)
    l1: Penalty = 3e-3
    """Weight of the sparsity penalty of relu-l1 (squared error summed over dimensions) and relu-l1-mean."""
    l0: Penalty = 3e-3  # weight of the sparsity penalty of jumprelu, on the number of active latents
    sae_learning_rate: Amount = 2e-2
    batch: Positive = 1024  # tokens a training step
    epochs: Amount = 12.0  # passes over the training tokens
    per_type: Positive = 150  # most sequences of one RNA type to train on: balances the types
    per_split: Positive = 900
    """Most sequences in each evaluation split, of known structure and of known type (types share equally)."""
    longest: Positive = 256
    """Longer sequences are left out (nucleotides; the model's own limit holds as well)."""
    min_sequences: Positive = 10
    """A feature is retained if it fires in at least so many sequences (the paper's filter)."""
    top_k: Positive = 4  # features shown for each RNA type in Figure 5
    shuffles: Positive = 20  # replicates of the null
    pairs: Positive = 128  # base pairs that are mutated to ask whether a feature answers to pairing
    group_a: Group | None = None
    """RNAs that are compared: a file, or conditions on columns of `types` such as type == "riboswitch", where
    * and ? stand for any letters. None for both: the two types of most families."""
    group_b: Group | None = None
    """What `group_a` is compared with."""
    buffer_tokens: Positive = 400_000
    """Nucleotides in the shuffle buffer of activations, each 4 bytes x layers of a group x model width."""
    layer_group: Positive = 6
    """Layers that one job trains and encodes: memory and jobs follow from it, no number does."""
    device: Annotated[str, AfterValidator(_device)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1 for the second GPU, or auto for a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products in training: float32, bfloat16, or auto for the faster one on this machine."""
    seed: Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)] = 0  # of all random numbers
    run: Place = "runs/default"  # folder for results; finished steps found there are used again

    def __post_init__(self):
        try:
            checked = _checks().model_validate(vars(self))
        except ValidationError as error:
            faults = error.errors()
            name = faults[0]["loc"][0]  # of a union, every branch says what it takes
            allowed = dict.fromkeys(fault["msg"] for fault in faults if fault["loc"][0] == name)
            message = " or ".join(allowed).replace("Input should", "it should")
            message = message.replace("valid string", "valid string (in YAML, put it in quotes)")
            value = repr(getattr(self, name))
            value = value if len(value) <= 80 else f"{value[:80]}..."
            raise ValueError(f"parameter '{name}' cannot be {value}: {message}") from None
        for name, value in checked:  # numbers written as 1e-3 or 2 have become real ones
            object.__setattr__(self, name, value)

    @property
    def architectures(self) -> list[str]:
        """All that are trained, the one shown in the figures first."""
        chosen = list(ARCHITECTURES) if self.compared == "all" else self.compared
        compared = chosen if isinstance(chosen, list) else [chosen]
        return list(dict.fromkeys([self.architecture, *compared]))

    def sparsity(self, architecture: str) -> float:
        """Active latents a token, or the weight of the penalty."""
        weights = {"relu-l1": self.l1, "relu-l1-mean": self.l1, "jumprelu": self.l0}
        return weights.get(architecture, self.k)

    @property
    def main(self) -> list[Variant]:
        """The autoencoders of every architecture that is compared, the one shown in the figures first."""
        return [Variant(architecture, self.expansion, self.seed) for architecture in self.architectures]

    @property
    def repeated(self) -> list[Variant]:
        """The shown autoencoder, the same from every other seed, and last the one of the second size."""
        seeds = range(self.seed, self.seed + self.replicates + 1)
        same = [Variant(self.architecture, self.expansion, seed) for seed in seeds]
        return [*same, Variant(self.architecture, self.narrow, self.seed)]

    @property
    def random(self) -> Variant:
        """The control: the shown autoencoder trained on the hidden states of a model with random weights."""
        return Variant(self.architecture, self.expansion, self.seed, "random-model")

    @property
    def frozen(self) -> list[Variant]:
        """Further controls: the shown autoencoder, trained with one part of it left as it was drawn."""
        return [self.main[0]._replace(frozen=part) for part in FROZEN]

    @property
    def variants(self) -> dict[str, list[Variant]]:
        """All that the study trains, by the language model that it reads, of `MODELS`."""
        own = list(dict.fromkeys([*self.main, *self.repeated, *self.frozen]))
        return dict(zip(MODELS, (own, [self.random])))

    @property
    def encoded(self) -> dict[str, dict[str, list[Variant]]]:
        """What encodes the evaluation RNAs of each use, by the language model that it reads."""
        shown, random = self.main[:1], [self.random]
        own, control = {"types": self.main, "structures": shown}, {"types": random, "structures": random}
        return dict(zip(MODELS, (own, control)))

    @classmethod
    def check_names(cls, names) -> None:
        """ValueError naming the first unknown parameter and the one that was probably meant."""
        known = [item.name for item in fields(cls)]
        for name in names:
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                remedy = f"did you mean '{near[0]}'?" if near else f"choose {', '.join(known)}"
                raise ValueError(f"there is no parameter '{name}': {remedy}")

    @classmethod
    def from_profile(cls, profile: str, **overrides) -> "Parameters":
        """Parameters of ``profiles/<profile>.yml`` (or of a YAML file), with overrides."""
        cls.check_names(overrides)
        return cls(**read_profile(profile) | overrides)


@cache
def _checks() -> type[BaseModel]:
    """The model that checks values: types and bounds as annotated; only numbers may be written as text."""
    kinds = get_type_hints(Parameters, include_extras=True)
    fields: Any = {name: (kind, ...) for name, kind in kinds.items()}
    return create_model("Checks", __config__=ConfigDict(strict=True), **fields)


class _Loader(yaml.SafeLoader):
    """Numbers and dates stay text, for the parameter's type to read: YAML takes 010 for 8 and 1:30 for 90."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in known if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str | bytes, what: str):
    """The value of a text in YAML, numbers as text. Raises ValueError saying that `what` cannot be read."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # The latter are its reader's: of a date such as 2020-13-45, of !!bool x, of a thousand brackets.
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"{what} is no YAML that can be read: {problem}{place}") from None


def read_profile(profile: str) -> dict:
    """The mapping in a profile's YAML file, its names checked."""
    path = Path(profile) if profile.endswith((".yml", ".yaml")) else ROOT / "profiles" / f"{profile}.yml"
    if not path.exists():
        known = " or ".join(sorted(file.stem for file in (ROOT / "profiles").glob("*.yml")))
        raise ValueError(f"there is no profile '{profile}' ({path}): choose {known}, or give a YAML file")
    values = read_yaml(text := path.read_bytes(), str(path))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one 'name: value' pair a line")
    Parameters.check_names(values)
    lines: dict[str, int] = {}
    tree = yaml.compose(text, yaml.SafeLoader)
    for name, _ in tree.value if isinstance(tree, yaml.MappingNode) else ():
        line = name.start_mark.line + 1
        if name.value in lines:
            both = f"in line {lines[name.value]} and in line {line}"
            raise ValueError(f"{path} names '{name.value}' {both}: delete one of them")
        lines[name.value] = line
    return values


def resolve(source: str) -> str:
    """A path as given if it exists from here, else from the repository's top; a hub id stays as it is."""
    return next((str(path) for path in (Path(source), ROOT / source) if path.exists()), source)


def model_shape(p: Parameters) -> tuple[int, int]:
    """Blocks and width of the language model, from ``config.json`` here or on the hub; else a ValueError."""
    file = Path(resolve(p.model)) / "config.json"
    try:
        if not file.parent.is_dir():
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(p.model, "config.json", revision=p.model_revision))
        config = json.loads(file.read_text())
        return config["num_hidden_layers"], config["hidden_size"]
    except Exception as error:  # the hub and the network fail in many ways
        remedy = "check the parameter 'model' and the network"
        raise ValueError(f"{p.model} has no config.json that can be read ({error}): {remedy}") from error


def layer_groups(p: Parameters, blocks: int) -> dict[str, list[int]]:
    """The studied layers in groups, one a job, by names such as layers-1-3 (in a row) or layers-1_3."""
    layers = list(range(1, blocks + 1)) if p.layers == "all" else list(p.layers)
    groups = {}
    for start in range(0, len(layers), p.layer_group):
        group = layers[start : start + p.layer_group]
        in_a_row = len(group) > 1 and group == list(range(group[0], group[-1] + 1))
        name = f"{group[0]}-{group[-1]}" if in_a_row else "_".join(map(str, group))
        groups[f"layers-{name}"] = group
    return groups
