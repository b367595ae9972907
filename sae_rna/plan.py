"""What a study costs, before any of it runs: sequences, tokens, memory, disk and hours of every step.

The work is counted: a forward pass takes 2 x parameters operations a token, up to the deepest block that a
group of layers needs; training an autoencoder 12 x D x F a token and layer, encoding and decoding 4 x D x F.
How many operations a second this machine does is measured for some seconds, on one block of the model's shape
and on training steps of every kind of autoencoder. Steps that skip work, such as the sparse step of TopK on a
CPU, then count as faster, not as less work. Sequences and tokens are exact where the data are at hand, else
upper bounds.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from multimolecule import RiNALMoConfig, RnaTokenizer
from transformers import AutoConfig, AutoModel, PretrainedConfig

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.memory import OVERHEAD_GB, autoencoder_parameters, encoding_gb, training_gb
from sae_rna.parameters import MODELS, Parameters, layer_groups, resolve
from sae_rna.records.hub import is_hub_name
from sae_rna.records.readers import read_records
from sae_rna.records.sampling import structure_sample, type_sample
from sae_rna.records.splits import assign_splits, select_length
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.trainer import Trainer, best_precision

KNOWN = {  # blocks, width, intermediate size: all that RiNALMo's published sizes differ in
    "multimolecule/rinalmo-giga": (33, 1280, 5120),
    "multimolecule/rinalmo-mega": (30, 640, 2560),
    "multimolecule/rinalmo-micro": (12, 480, 1920),
}
HUB_TYPES = 30
"""Types of a data set that is not at hand: RNAcentral has fewer."""
HUB_SPLITS = 2
"""Selection and held-out, of such a data set."""
ASSUMED_GPU = {"float32": 12e12, "bfloat16": 60e12}
"""Operations a second reached on a GPU of the A100's class, for a plan that is made where there is none."""
ASSUMED_GPU_GB = 80
SCORED_PER_SECOND = 5e7
"""Nonzero activations that are scored, annotated or shuffled, on one core."""
MODEL_PRECISION = "float32"
"""In which a study loads its language model."""
LONGEST_PLAN_HOURS = 48
GB = 1e9


class Size(NamedTuple):
    """The language model, as far as its cost goes."""

    blocks: int
    width: int
    block_parameters: int
    other_parameters: int
    longest: int
    """Nucleotides."""

    @property
    def parameters(self) -> int:
        return self.blocks * self.block_parameters + self.other_parameters


class Data(NamedTuple):
    """RNAs to train on and to evaluate with."""

    sequences: dict[str, int]
    """By use: train, types and structures."""
    tokens: dict[str, int]
    """Nucleotides, likewise."""
    exact: bool


class Speed(NamedTuple):
    """Operations a second, as the module counts them."""

    language_model: float
    training: dict[tuple[str, int], float]
    """By architecture and expansion."""
    hours_of: str
    """GPU or CPU."""
    measured: bool


def model_config(p: Parameters) -> PretrainedConfig:
    """Configuration of the study's language model: from its folder, from the table of known ones, or from the
    hub or its cache.

    Raises ValueError if there is none of them.
    """
    source = resolve(p.model)
    if source in KNOWN:
        blocks, width, intermediate = KNOWN[source]
        return RiNALMoConfig(num_hidden_layers=blocks, hidden_size=width, intermediate_size=intermediate)
    try:
        return AutoConfig.from_pretrained(source, revision=p.model_revision)
    except Exception as error:  # the hub and the network fail in many ways
        raise ValueError(
            f"the size of {p.model} is unknown here: check its name and the network, or give a folder with "
            "its config.json"
        ) from error


def model_size(config: PretrainedConfig) -> Size:
    """Parameters counted on the model itself, which is built without memory for its weights; the pooler,
    never read, is left out."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    model.pooler = None
    block = sum(parameter.numel() for parameter in model.encoder.layer[0].parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    bare = LanguageModel("", None, model, RnaTokenizer(), torch.device("meta"), "")
    return Size(bare.blocks, bare.width, block, total - bare.blocks * block, bare.longest)


def study_data(p: Parameters, longest: int) -> Data:
    """What the study will read: counted in files and in samples that the run has drawn, else the most there
    can be."""
    sequences: dict[str, int] = {}
    tokens: dict[str, int] = {}
    exact = True
    for use in ("structures", "types"):
        source = resolve(getattr(p, use))
        drawn = sorted(Path(p.run).glob(f"sample-{use}-*/records.parquet"), key=os.path.getmtime)
        if is_hub_name(source) and not drawn:
            exact = False
            most = {use: HUB_SPLITS * p.per_split} | (
                {"train": HUB_TYPES * p.per_type} if use == "types" else {}
            )
            sequences |= most
            tokens |= {part: count * longest for part, count in most.items()}
            continue
        file = drawn[-1] if is_hub_name(source) else source
        records = assign_splits(select_length(read_records(file), longest), p.seed)
        if use == "types":
            records = type_sample(records, p.per_type, p.per_split, p.seed)
        else:
            records = structure_sample(records, p.per_split, p.seed)
        parts = np.where(records.split == "train", "train", use)
        sequences |= records.groupby(parts).size().to_dict()
        tokens |= records.sequence.str.len().groupby(parts).sum().to_dict()
    return Data(sequences, tokens, exact)


def calibrate(p: Parameters, config: PretrainedConfig, longest: int) -> Speed:
    """Operations a second of one block of the model's shape and of training steps of each kind of
    autoencoder, measured for seconds.

    Where the study wants a GPU and there is none, they are assumed.
    """
    kinds = {
        (variant.architecture, variant.expansion) for variants in p.variants.values() for variant in variants
    }
    cuda = torch.cuda.is_available()
    if p.device.startswith("cuda") and not cuda:
        rate = ASSUMED_GPU["float32" if p.precision == "float32" else "bfloat16"]
        return Speed(ASSUMED_GPU[MODEL_PRECISION], dict.fromkeys(sorted(kinds), rate), "GPU", False)
    device = torch.device("cuda" if cuda and p.device != "cpu" else "cpu")
    size = model_size(config)
    single = type(config).from_dict(config.to_dict() | {"num_hidden_layers": 1})
    with tempfile.TemporaryDirectory() as folder:
        single.save_pretrained(folder)
        RnaTokenizer().save_pretrained(folder)
        model = LanguageModel.load(folder, device=str(device), random_seed=0, precision=MODEL_PRECISION)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGU"), longest)) for _ in range(max(1, 2048 // longest))]
    seconds = _time(lambda: list(model.hidden_states(sequences, [1])), device)
    block = 2 * size.block_parameters * len(sequences) * longest / seconds
    precision = best_precision(device) if p.precision == "auto" else p.precision
    x_BD = torch.randn(p.batch, size.width, device=device)
    training = {}
    for architecture, expansion in sorted(kinds):
        latents = expansion * size.width
        stack = AutoencoderConfig(
            architecture, (Member(1, p.sparsity(architecture), 0),), size.width, latents
        )
        standardise = Standardiser(torch.zeros(1, size.width), torch.ones(1, size.width))
        trainer = Trainer(
            SparseAutoencoders(stack, standardise).to(device), 1000, p.sae_learning_rate, precision
        )
        seconds = _time(lambda trainer=trainer: trainer.step(x_BD), device)
        training[architecture, expansion] = 12 * size.width * latents * p.batch / seconds
    return Speed(block, training, "GPU" if device.type == "cuda" else "CPU", True)


def _time(work, device: torch.device) -> float:
    """Seconds that `work` takes: the fastest of as many times as fit into a second, after one that warms
    up."""
    work()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < 1:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def plan(p: Parameters, size: Size, data: Data, speed: Speed) -> pd.DataFrame:
    """The table: a row for each step.

    Columns `step`, `jobs`, `sequences` and `tokens` (of one job; a token is a nucleotide), `memory_gb` (of
    one job, GPU memory on a GPU), `disk_gb` (that stays, of all jobs) and `hours` (of all jobs, one after the
    other).
    """
    groups = list(layer_groups(p, size.blocks).values())
    deepest = max(map(max, groups))
    if deepest > size.blocks:
        raise ValueError(
            f"layer {deepest} is asked for, but {p.model} has blocks 1 to {size.blocks}: check 'layers'"
        )
    layers, D = sum(map(len, groups)), size.width
    depth = sum(map(max, groups))  # each group's pass goes up to its deepest layer
    shape = {"layers": max(map(len, groups)), "width": D, "model": size.parameters}
    rows = []

    def add(step: str, uses: list[str], memory: float, disk: float, hours: float, jobs: int = len(groups)):
        sequences, tokens = (sum(numbers[use] for use in uses) for numbers in (data.sequences, data.tokens))
        rows.append((step, jobs, sequences, tokens, memory, disk, hours))

    def forward(tokens: float) -> float:
        return 2 * size.block_parameters * depth * tokens / speed.language_model / 3600

    for use, parts in (("structures", ["structures"]), ("types", ["types", "train"])):
        if is_hub_name(resolve(getattr(p, use))):
            held = sum(data.tokens[part] for part in parts) / GB
            add(f"sample {getattr(p, use)}, streamed whole", parts, OVERHEAD_GB + held, held, np.nan, jobs=1)
    tokens = data.tokens["train"]
    passes = 1 if tokens <= p.buffer_tokens else p.epochs
    for model, variants in p.variants.items():
        memory = training_gb(p, variants, **shape, tokens=tokens)
        add(f"train on {model}: its states", ["train"], memory, 0.0, forward(passes * tokens))
        for variant in variants:
            rate = speed.training[variant.architecture, variant.expansion]
            hours = 6 * autoencoder_parameters(variant, D) * layers * p.epochs * tokens / rate / 3600
            disk = 4 * layers * autoencoder_parameters(variant, D) / GB
            add(f"- {variant.name}", ["train"], memory, disk, hours)
    for model, uses in p.encoded.items():
        for use, variants in uses.items():
            tokens, weights = (
                data.tokens[use],
                sum(autoencoder_parameters(variant, D) for variant in variants),
            )
            hours = forward(tokens) + 2 * weights * layers * tokens / speed.language_model / 3600
            shown = sum(variant.architecture == p.architecture for variant in variants)
            memory, kept = encoding_gb(p, variants, **shape, tokens=tokens), shown * 8 * p.k * tokens
            add(f"encode {use} with {model}", [use], memory, layers * kept / GB, hours)
    for use in ("structures", "types"):
        nonzero = p.k * data.tokens[use]
        hours = nonzero * layers * len(MODELS) * (1 + p.shuffles) / SCORED_PER_SECOND / 3600
        add(f"score {use}", [use], OVERHEAD_GB + 24 * nonzero / GB, 0.0, hours, jobs=1)
    return pd.DataFrame(
        rows, columns=["step", "jobs", "sequences", "tokens", "memory_gb", "disk_gb", "hours"]
    )


def warnings(p: Parameters, table: pd.DataFrame, memory_gb: float, disk_gb: float) -> list[str]:
    """A sentence, with the remedy, for each thing that the machine or two days do not hold."""
    found, heaviest = [], table.loc[table.memory_gb.idxmax()]
    if heaviest.memory_gb > memory_gb:
        found.append(
            f"'{heaviest.step}' needs {heaviest.memory_gb:,.1f} GB of memory and the machine has "
            f"{memory_gb:,.1f}: "
            f"lower layer_group ({p.layer_group}) or buffer_tokens ({p.buffer_tokens:,})"
        )
    if table.disk_gb.sum() > disk_gb:
        found.append(
            f"{table.disk_gb.sum():,.1f} GB go to disk and {disk_gb:,.1f} are free: lower per_split "
            f"({p.per_split:,}), name fewer layers, "
            "or put 'run' elsewhere"
        )
    if table.hours.sum() > LONGEST_PLAN_HOURS:
        found.append(
            f"{table.hours.sum():,.0f} hours are more than {LONGEST_PLAN_HOURS}: lower per_type "
            f"({p.per_type:,}), name fewer layers, "
            "compare fewer architectures, or run its jobs at the same time on several machines"
        )
    return found


def report(p: Parameters, speed: Speed | None = None) -> str:
    """The plan as plain text. Raises ValueError if the model's size or a file's records cannot be had."""
    config = model_config(p)
    size = model_size(config)
    longest = min(p.longest, size.longest)
    data = study_data(p, longest)
    speed = speed or calibrate(p, config, longest)
    table = plan(p, size, data, speed)
    run = Path(p.run).absolute()
    folder = next(path for path in (run, *run.parents) if path.exists())
    text = table.assign(
        sequences=table.sequences.map("{:,}".format), tokens=table.tokens.map("{:,}".format),
        memory_gb=table.memory_gb.map("{:.1f}".format), disk_gb=table.disk_gb.map("{:.2f}".format),
        hours=table.hours.map(lambda hours: "network" if np.isnan(hours) else f"{hours:.2f}"),
    )  # fmt: skip
    text = text.rename(
        columns={"memory_gb": "memory, GB", "disk_gb": "disk, GB", "hours": f"{speed.hours_of}-hours"}
    )
    lines = [
        f"{p.model}: {size.blocks} blocks of width {size.width}, {size.parameters:,} parameters; layers in "
        f"groups of {p.layer_group}; "
        f"RNAs of at most {longest} nt",
        "sequences and tokens are counted"
        if data.exact
        else "sequences and tokens are upper bounds: the data are not here yet",
        ("measured here: " if speed.measured else "assumed, as there is no GPU here: ")
        + f"language model {speed.language_model / 1e9:,.0f} GFLOP/s, training "
        + ", ".join(
            f"{name} x{expansion} {rate / 1e9:,.0f}" for (name, expansion), rate in speed.training.items()
        ),
        "",
        text.to_string(index=False),
        "",
        f"in all {table.disk_gb.sum():,.2f} GB of disk and {table.hours.sum():,.2f} {speed.hours_of}-hours; "
        "a job needs at most "
        f"{table.memory_gb.max():,.1f} GB of memory",
    ]
    lines += [
        f"! {sentence}"
        for sentence in warnings(p, table, _memory_gb(speed), shutil.disk_usage(folder).free / GB)
    ]
    return "\n".join(lines)


def _memory_gb(speed: Speed) -> float:
    """Memory of the device that the plan is for."""
    if speed.hours_of == "GPU":
        return torch.cuda.get_device_properties(0).total_memory / GB if speed.measured else ASSUMED_GPU_GB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
