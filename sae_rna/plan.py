"""What a study costs, before any of it runs: sequences, tokens, memory, disk and hours of every step.

The work is counted: a forward pass takes 2 x parameters operations a token, up to the deepest block that a
group of layers needs; training an autoencoder 12 x D x F a token and layer, encoding and decoding 4 x D x F.
Operations a second are measured, on one block of the model's shape and on training steps of every kind of
autoencoder: steps that skip work, such as TopK's sparse step on a CPU, count as faster, not as less work.
Sequences and tokens are exact where the data are at hand, else upper bounds.
"""

import os
import shutil
from functools import partial
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from multimolecule import RiNALMoConfig, RnaTokenizer
from torch.utils.benchmark import Timer
from transformers import AutoConfig, PretrainedConfig

from sae_rna.extraction import loading
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.memory import OVERHEAD_GB, autoencoder_parameters, encoding_gb, training_gb
from sae_rna.parameters import MODELS, Parameters, layer_groups, resolve
from sae_rna.records.hub import is_hub_name
from sae_rna.records.sampling import all_records, structure_sample, type_sample
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.trainer import Trainer, best_precision

RINALMO = {"giga": (33, 1280), "mega": (30, 640), "micro": (12, 480)}  # published sizes: blocks and width
HUB_TYPES, HUB_SPLITS = 30, 2  # at most, of data not at hand: RNAcentral has fewer types; selection, held-out
ASSUMED_GPU = {"float32": 12e12, "bfloat16": 60e12}  # operations a second of an A100, to plan without a GPU
ASSUMED_GPU_GB = 80
SCORED_PER_SECOND = 5e7  # nonzero activations scored, annotated or shuffled, on one core
LONGEST_PLAN_HOURS = 48
GB = 1e9
_PARTS = {"structures": ["structures"], "types": ["types", "train"]}  # of the study, from each data set


class Size(NamedTuple):
    """The language model, as far as its cost goes; `longest` in nucleotides."""

    blocks: int
    width: int
    block_parameters: int
    parameters: int
    longest: int


class Data(NamedTuple):
    """Sequences and tokens (nucleotides) by what they are for: train, types or structures."""

    sequences: dict[str, int]
    tokens: dict[str, int]
    exact: bool


class Speed(NamedTuple):
    """Operations a second of a GPU or CPU (`hours_of`); of training by architecture and expansion."""

    language_model: float
    training: dict[tuple[str, int], float]
    hours_of: str
    measured: bool


def model_config(p: Parameters) -> PretrainedConfig:
    """The language model's: known, or from its folder, the hub or its cache; else a ValueError."""
    source = resolve(p.model)
    known, _, size = source.rpartition("-")
    if known == "multimolecule/rinalmo" and size in RINALMO:
        blocks, width = RINALMO[size]
        return RiNALMoConfig(num_hidden_layers=blocks, hidden_size=width, intermediate_size=4 * width)
    try:
        return AutoConfig.from_pretrained(source, revision=p.model_revision)
    except Exception as error:  # the hub and the network fail in many ways
        remedy = "check its name and the network, or give a folder with its config.json"
        raise ValueError(f"the size of {p.model} is unknown here: {remedy}") from error


def _random_model(config: PretrainedConfig, device: torch.device) -> LanguageModel:
    """A model of random weights; on the device "meta" they take no memory. Without pooler, never read."""
    with device:
        model = loading.draw_weights(config, masked=False, seed=0).eval().requires_grad_(False)
    model.pooler = None
    return LanguageModel("", None, model, RnaTokenizer(), device, "")


def model_size(config: PretrainedConfig) -> Size:
    """Parameters counted on the model itself."""
    bare = _random_model(config, torch.device("meta"))
    block = sum(parameter.numel() for parameter in bare.model.encoder.layer[0].parameters())
    return Size(bare.blocks, bare.width, block, bare.parameter_count, bare.longest)


def study_data(p: Parameters, longest: int) -> Data:
    """What the study will read, counted in files and in samples that the run has drawn, else the most."""
    sequences: dict[str, int] = {}
    tokens: dict[str, int] = {}
    exact = True
    for use, parts in _PARTS.items():
        file: str | Path = resolve(getattr(p, use))
        if is_hub_name(file):
            drawn = sorted(Path(p.run).glob(f"sample-{use}-*/records.parquet"), key=os.path.getmtime)
            if not drawn:
                most = {"train": HUB_TYPES * p.per_type, use: HUB_SPLITS * p.per_split}
                sequences |= {part: most[part] for part in parts}
                tokens |= {part: most[part] * longest for part in parts}
                exact = False
                continue
            file = drawn[-1]
        records = all_records(file, longest, p.seed)
        sample = partial(type_sample, per_type=p.per_type) if use == "types" else structure_sample
        records = sample(records, per_split=p.per_split, seed=p.seed)
        lengths = records.sequence.str.len().groupby(np.where(records.split == "train", "train", use))
        sequences |= lengths.size().to_dict()
        tokens |= lengths.sum().to_dict()
    return Data(sequences, tokens, exact)


def calibrate(p: Parameters, config: PretrainedConfig, longest: int) -> Speed:
    """Operations a second, measured for seconds; assumed where the study wants a GPU and there is none."""
    kinds = sorted({(v.architecture, v.expansion) for variants in p.variants.values() for v in variants})
    cuda = torch.cuda.is_available()
    if p.device.startswith("cuda") and not cuda:
        rate = ASSUMED_GPU["float32" if p.precision == "float32" else "bfloat16"]
        return Speed(ASSUMED_GPU["float32"], dict.fromkeys(kinds, rate), "GPU", False)
    device = torch.device("cuda" if cuda and p.device != "cpu" else "cpu")
    size, D = model_size(config), config.hidden_size
    model = _random_model(type(config).from_dict(config.to_dict() | {"num_hidden_layers": 1}), device)
    sequences = ["A" * longest] * max(1, 2048 // longest)
    seconds = _seconds(lambda: list(model.hidden_states(sequences, [1])))
    block = 2 * size.block_parameters * len(sequences) * longest / seconds
    precision = best_precision(device) if p.precision == "auto" else p.precision
    x_BD = torch.randn(p.batch, D, device=device)
    standardise = Standardiser(torch.zeros(1, D), torch.ones(1, D))
    training = {}
    for architecture, expansion in kinds:
        members = (Member(1, p.sparsity(architecture), 0),)
        stack = AutoencoderConfig(architecture, members, D, expansion * D)
        autoencoders = SparseAutoencoders(stack, standardise).to(device)
        trainer = Trainer(autoencoders, 1000, p.sae_learning_rate, precision)
        seconds = _seconds(partial(trainer.step, x_BD))
        training[architecture, expansion] = 12 * D * expansion * D * p.batch / seconds
    return Speed(block, training, "GPU" if device.type == "cuda" else "CPU", True)


def _seconds(work) -> float:
    """Seconds that `work` takes: the fastest of as many times as fit into a second."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=1).times)


def plan(p: Parameters, size: Size, data: Data, speed: Speed) -> pd.DataFrame:
    """The table: a row for each step.

    Columns `step`, `jobs`, `sequences` and `tokens` (nucleotides, of one job), `memory_gb` (of one job, the
    GPU's on a GPU), `disk_gb` (that stays, of all jobs) and `hours` (of all jobs, one after the other).
    Raises ValueError for a layer that the model does not have.
    """
    groups = list(layer_groups(p, size.blocks).values())
    if (deepest := max(map(max, groups))) > size.blocks:
        has = f"{p.model} has blocks 1 to {size.blocks}"
        raise ValueError(f"layer {deepest} is asked for, but {has}: check 'layers'")
    layers = sum(map(len, groups))
    depth = sum(map(max, groups))  # each group's pass goes up to its deepest layer
    shape = {"layers": max(map(len, groups)), "width": size.width, "model": size.parameters}
    rows = []

    def add(step: str, parts: list[str], memory: float, disk: float, hours: float, jobs: int = len(groups)):
        counts = [sum(numbers[part] for part in parts) for numbers in (data.sequences, data.tokens)]
        rows.append([step, jobs, *counts, memory, disk, hours])

    def forward(tokens: float) -> float:
        return 2 * size.block_parameters * depth * tokens / speed.language_model / 3600

    for use, parts in _PARTS.items():
        if is_hub_name(resolve(getattr(p, use))):
            held = sum(data.tokens[part] for part in parts) / GB
            add(f"sample {getattr(p, use)}, streamed whole", parts, OVERHEAD_GB + held, held, np.nan, jobs=1)
    tokens = data.tokens["train"]
    passes = 1 if tokens <= p.buffer_tokens else p.epochs
    for model, variants in p.variants.items():
        memory = training_gb(p, variants, **shape, tokens=tokens)
        add(f"train on {model}: its states", ["train"], memory, 0.0, forward(passes * tokens))
        for variant in variants:
            weights = layers * autoencoder_parameters(variant, size.width)
            rate = speed.training[variant.architecture, variant.expansion]
            hours = 6 * weights * p.epochs * tokens / rate / 3600
            add(f"- {variant.name}", ["train"], memory, 4 * weights / GB, hours)
    for model, uses in p.encoded.items():
        for use, variants in uses.items():
            tokens, memory = data.tokens[use], encoding_gb(p, variants, **shape, tokens=data.tokens[use])
            weights = layers * sum(autoencoder_parameters(variant, size.width) for variant in variants)
            hours = forward(tokens) + 2 * weights * tokens / speed.language_model / 3600
            shown = sum(variant.architecture == p.architecture for variant in variants)
            add(f"encode {use} with {model}", [use], memory, layers * shown * 8 * p.k * tokens / GB, hours)
    for use in _PARTS:
        nonzero = p.k * data.tokens[use]
        hours = nonzero * layers * len(MODELS) * (1 + p.shuffles) / SCORED_PER_SECOND / 3600
        add(f"score {use}", [use], OVERHEAD_GB + 24 * nonzero / GB, 0.0, hours, jobs=1)
    columns = ["step", "jobs", "sequences", "tokens", "memory_gb", "disk_gb", "hours"]
    return pd.DataFrame(rows, columns=columns)


def warnings(p: Parameters, table: pd.DataFrame, memory_gb: float, disk_gb: float) -> list[str]:
    """A sentence, with the remedy, for each thing that the machine or two days do not hold."""
    memory, disk, hours = table.memory_gb.max(), table.disk_gb.sum(), table.hours.sum()
    sentences = [
        f"'{table.step[table.memory_gb.idxmax()]}' needs {memory:,.1f} GB of memory and the machine has "
        f"{memory_gb:,.1f}: lower layer_group ({p.layer_group}) or buffer_tokens ({p.buffer_tokens:,})",
        f"{disk:,.1f} GB go to disk and {disk_gb:,.1f} are free: lower per_split ({p.per_split:,}), name "
        "fewer layers, or put 'run' elsewhere",
        f"{hours:,.0f} hours are more than {LONGEST_PLAN_HOURS}: lower per_type ({p.per_type:,}), name fewer "
        "layers, compare fewer architectures, or run its jobs at the same time on several machines",
    ]
    return list(compress(sentences, (memory > memory_gb, disk > disk_gb, hours > LONGEST_PLAN_HOURS)))


def report(p: Parameters) -> str:
    """The plan as plain text. Raises ValueError if the model's size or a file's records cannot be had."""
    config = model_config(p)
    size = model_size(config)
    longest = min(p.longest, size.longest)
    data, speed = study_data(p, longest), calibrate(p, config, longest)
    table = plan(p, size, data, speed)
    if speed.hours_of == "CPU":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    else:
        memory = torch.cuda.get_device_properties(0).total_memory / GB if speed.measured else ASSUMED_GPU_GB
    run = Path(p.run).absolute()
    free = shutil.disk_usage(next(path for path in (run, *run.parents) if path.exists())).free / GB
    hours = lambda hours: "network" if np.isnan(hours) else f"{hours:.2f}"  # noqa: E731
    count, one, two = (f"{{:{digits}}}".format for digits in (",", ".1f", ".2f"))
    names = ["step", "jobs", "sequences", "tokens", "memory, GB", "disk, GB", f"{speed.hours_of}-hours"]
    columns = dict(zip(table, [str, str, count, count, one, two, hours]))
    text = table.to_string(index=False, header=names, formatters=columns)
    known = "are counted" if data.exact else "are upper bounds: the data are not here yet"
    rates = [f"{name} x{expansion} {rate / 1e9:,.0f}" for (name, expansion), rate in speed.training.items()]
    lines = [
        f"{p.model}: {size.blocks} blocks of width {size.width}, {size.parameters:,} parameters; "
        f"layers in groups of {p.layer_group}; RNAs of at most {longest} nt",
        f"sequences and tokens {known}",
        f"{'measured here' if speed.measured else 'assumed, as there is no GPU here'}: language model "
        f"{speed.language_model / 1e9:,.0f} GFLOP/s, training {', '.join(rates)}",
        f"\n{text}\n",
        f"in all {table.disk_gb.sum():,.2f} GB of disk and {table.hours.sum():,.2f} {speed.hours_of}-hours; "
        f"a job needs at most {table.memory_gb.max():,.1f} GB of memory",
    ]
    return "\n".join(lines + [f"! {each}" for each in warnings(p, table, memory, free)])
