"""Training speed, memory and explained variance of our autoencoders beside sae-lens, dictionary-learning and
eai-sparsify.

Every case is a process of its own, in turn, on the same activations: sparse sums of directions of low rank,
standardised. A step is what lies between two batches that a library asks for; making the batches is not
counted. See README.md beside this file.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

OURS, FLOOR = "sae-rna", "floor"
SHAPES = {"small": (256, 2048, 32), "large": (1280, 10240, 32)}
"""D, F, K."""
GIGA_LAYERS, GIGA_TOKENS = 33, 10_000_000
EIGHT = 8
LAMBDA, RATE, RATE_WARMUP = 3e-3, 1e-3, 50
PLANNED_STEPS = 100_000
"""What schedules are told, so that no learning rate decays here."""
WARMUP, HELD_OUT = 2, 8192
DIRECTIONS, ACTIVE, NOISE = 4096, 24, 0.05
LIMIT_SECONDS = 3600
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """One process."""

    library: str
    architecture: str
    shape: str
    D: int
    F: int
    K: int
    batch: int
    members: int
    precision: str
    steps: int
    """Timed; `WARMUP` go before, and one comes after, whose end no library shows."""
    device: str
    threads: int

    @property
    def batches(self) -> int:
        return WARMUP + self.steps + 1

    @property
    def bfloat16(self) -> bool:
        return self.precision == "bfloat16"


class Activations:
    """Tokens that are sparse sums of unit directions in half of the space, some of them far more frequent
    than others, and noise."""

    def __init__(self, width: int):
        random = torch.Generator().manual_seed(0)
        low = torch.randn(DIRECTIONS, width // 2, generator=random) @ torch.randn(
            width // 2, width, generator=random
        )
        self.directions = torch.nn.functional.normalize(low, dim=1)
        self.frequencies = 1 / (torch.arange(DIRECTIONS) + 10)
        self.mean, self.std = torch.zeros(width), torch.ones(width)
        sample = self(HELD_OUT, -1)
        self.mean, self.std = sample.mean(0), sample.std(0)

    def __call__(self, tokens: int, number: int) -> torch.Tensor:
        """Batch of this number, the same in every process."""
        random = torch.Generator().manual_seed(number + 1000)
        chosen = self.frequencies.multinomial(tokens * ACTIVE, replacement=True, generator=random).view(
            tokens, ACTIVE
        )
        strength = torch.empty(tokens, ACTIVE).exponential_(generator=random)
        clean = torch.nn.functional.embedding_bag(
            chosen, self.directions, per_sample_weights=strength, mode="sum"
        )
        return (clean + NOISE * torch.randn(clean.shape, generator=random) - self.mean) / self.std


class Feed:
    """Gives batches, and takes the time from handing one out to being asked for the next."""

    def __init__(self, make: Callable[[int], torch.Tensor], batches: int, device: str):
        self.make, self.batches, self.device = make, batches, device
        self.given, self.seconds, self._began = 0, [], None

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        if self._began is not None:
            synchronise(self.device)
            self.seconds.append(time.perf_counter() - self._began)
            self._began = None
        if self.given == self.batches:
            raise StopIteration
        with torch.autocast(torch.device(self.device).type, enabled=False), torch.no_grad():
            batch = self.make(self.given).to(self.device)
        self.given += 1
        synchronise(self.device)
        self._began = time.perf_counter()
        return batch


def synchronise(device: str):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


# ---------------------------------------------------------------- libraries: train on the feed, return x ->
# (x^, active latents)


def train_ours(case: Case, feed: Feed) -> list[Callable]:
    """`sae_rna.sae.trainer.Trainer.step`, a trainer for each member, one workspace. A feed of [M, B, D] has a
    batch for each member."""
    from sae_rna.extraction.stream import Standardiser
    from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
    from sae_rna.sae.fast_cpu import Workspace
    from sae_rna.sae.trainer import Trainer

    sparsity = case.K if case.architecture == "topk" else LAMBDA
    members = tuple(Member(0, sparsity, seed) for seed in range(case.members))
    config = AutoencoderConfig(case.architecture, members, case.D, case.F)
    shape = case.members, case.D
    stack, space = (
        SparseAutoencoders(config, Standardiser(torch.zeros(shape), torch.ones(shape))).to(case.device),
        Workspace(),
    )
    trainers = [Trainer(view, PLANNED_STEPS, RATE, case.precision, space) for view in stack.views()]
    for x in feed:
        for number, trainer in enumerate(trainers):
            trainer.step(x if x.ndim == 2 else x[number])
    if any(trainer.diverged_at is not None for trainer in trainers):
        raise RuntimeError("a member diverged")

    def reconstruct(sae, x):
        features = sae.encode(x[None])
        return sae.decode(features)[0], (features[0] > 0).sum(-1)

    return [partial(reconstruct, trainer.sae.eval()) for trainer in trainers]


def train_sae_lens(case: Case, feed: Feed, sparse: bool = False) -> list[Callable]:
    """`SAETrainer.fit`, and `MultiSAETrainer.fit` for several members, on a data provider that is the
    feed."""
    import sae_lens as lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(0)
    common = {"d_in": case.D, "d_sae": case.F, "device": case.device}
    saes = {}
    for member in map(str, range(case.members)):
        if case.architecture == "topk":
            switches = {
                "use_sparse_activations": sparse,
                "rescale_acts_by_decoder_norm": not sparse,
            }  # torch cannot do both
            saes[member] = lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**common, k=case.K, **switches))
        else:
            saes[member] = lens.StandardTrainingSAE(
                lens.StandardTrainingSAEConfig(**common, l1_coefficient=LAMBDA)
            )
    config = SAETrainerConfig(
        total_training_samples=case.batches * case.batch, train_batch_size_samples=case.batch, device=case.device,
        autocast=case.bfloat16, lr=RATE, lr_end=RATE, lr_warm_up_steps=RATE_WARMUP,
    )  # fmt: skip
    if case.members == 1:
        SAETrainer(config, saes["0"], feed).fit()
    else:
        MultiSAETrainer(config, saes, dict.fromkeys(saes, "x"), ({"x": x} for x in feed)).fit()

    def reconstruct(sae, x):
        features = sae.encode(x)
        return sae.decode(features), (features.to_dense() if features.is_sparse else features).gt(0).sum(-1)

    return [partial(reconstruct, sae.eval()) for sae in saes.values()]


def train_dictionary_learning(case: Case, feed: Feed) -> list[Callable]:
    """The loop of `trainSAE`: ``trainer.update(step, x)`` under autocast, which trainSAE itself leaves out on
    a CPU."""
    from dictionary_learning.trainers import StandardTrainer, TopKTrainer

    common = {
        "steps": PLANNED_STEPS, "activation_dim": case.D, "dict_size": case.F, "layer": 0, "lm_name": "", "lr": RATE,
        "warmup_steps": RATE_WARMUP, "device": case.device,
    }  # fmt: skip
    if case.architecture == "topk":
        trainers = [TopKTrainer(**common, k=case.K, seed=seed) for seed in range(case.members)]
    else:  # its warm-up of lambda, 2,000 steps, is left out: the others have none
        single = partial(StandardTrainer, **common, l1_penalty=LAMBDA, sparsity_warmup_steps=None)
        trainers = [single(seed=seed) for seed in range(case.members)]
    autocast = contextlib.nullcontext()
    if case.bfloat16:
        autocast = torch.autocast(torch.device(case.device).type, torch.bfloat16)
    for step, x in enumerate(feed):
        x = x.to(torch.bfloat16 if case.bfloat16 else torch.float32)
        for trainer in trainers:
            with autocast:
                trainer.update(step, x)

    def reconstruct(sae, x):
        guess, features = sae(x, output_features=True)
        return guess, (features > 0).sum(-1)

    return [partial(reconstruct, trainer.ae.eval()) for trainer in trainers]


class StandIn(torch.nn.Module):
    """The language model that sparsify's Trainer asks for: its only layer passes a batch of the feed on,
    whatever the tokens."""

    def __init__(self, case: Case, feed: Feed):
        super().__init__()
        self.layers, self.feed = torch.nn.ModuleList([torch.nn.Identity()]), feed
        self.config, self.device = SimpleNamespace(num_hidden_layers=1), torch.device(case.device)
        self.dummy_inputs = {"probe": torch.zeros(1, 1, case.D)}

    @property
    def base_model(self):
        return self

    def forward(self, input_ids=None, probe=None):
        return self.layers[0](next(self.feed)[None] if probe is None else probe)


def train_sparsify(case: Case, feed: Feed, optimizer: str = "signum") -> list[Callable]:
    """`Trainer.fit` on a stand-in for the language model, a seed for each member."""
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    class Unsaved(Trainer):
        def save(self):
            pass

    on_cpu = case.device == "cpu"
    if not on_cpu and not case.bfloat16 and torch.cuda.is_bf16_supported():
        raise NotImplementedError("its forward pass always uses bfloat16 on this GPU")
    config = TrainConfig(
        SparseCoderConfig(num_latents=case.F, k=case.K), batch_size=1, init_seeds=list(range(case.members)), log_to_wandb=False,
        optimizer=optimizer, lr=RATE if optimizer == "adam" else None, lr_warmup_steps=RATE_WARMUP,
    )  # fmt: skip
    sequence = {"input_ids": torch.zeros(case.batch, dtype=torch.long)}
    trainer = Unsaved(config, [sequence] * case.batches, StandIn(case, feed))
    coders = list(trainer.saes.values())
    if on_cpu and case.bfloat16:  # as `forward` is decorated for CUDA
        for coder in coders:
            coder.forward = torch.autocast("cpu", torch.bfloat16)(coder.forward)
    trainer.fit()
    if on_cpu and case.bfloat16:
        for coder in coders:
            del coder.forward
    if optimizer == "signum":
        trainer.optimizers[0].eval()  # the averaged weights, which are the ones it saves

    def reconstruct(coder, x):
        output = coder(x)
        return output.sae_out, (output.latent_acts > 0).sum(-1)

    return [partial(reconstruct, coder) for coder in coders]


TRAINERS = {
    OURS: train_ours,
    "sae-lens": train_sae_lens,
    "sae-lens:sparse activations": partial(train_sae_lens, sparse=True),
    "dictionary-learning": train_dictionary_learning,
    "eai-sparsify": train_sparsify,
    "eai-sparsify:adam": partial(train_sparsify, optimizer="adam"),
}
"""By library and, after the colon, a setting that is not its default."""
WITHOUT_AUTOCAST = "dictionary-learning", "eai-sparsify"
ADDED_AUTOCAST = "autocast added here: the library has it for CUDA alone"
TOPK_ALONE = "sae-lens:sparse activations", "eai-sparsify", "eai-sparsify:adam"
FLOAT32_ALONE = ("sae-lens:sparse activations",)


# ---------------------------------------------------------------- one case, in a process of its own


def run_case(case: Case) -> dict:
    """Speed, memory (bytes) and quality of one case."""
    torch.set_num_threads(case.threads)
    if case.library == FLOOR:
        return {"seconds": time_product(case)}
    train = TRAINERS[case.library]
    tiny = replace(case, D=64, F=256, K=4, batch=64, members=1, steps=1)
    train(
        tiny, Feed(partial(Activations(tiny.D), tiny.batch), tiny.batches, tiny.device)
    )  # imports and compilation
    gc.collect()
    data = Activations(case.D)
    data(case.batch, 0)
    make = (
        partial(data, case.batch)
        if case.shape != "giga"
        else lambda number: torch.randn(case.members, case.batch, case.D)
    )
    feed = Feed(make, case.batches, case.device)
    memory = Memory(case.device)
    models = train(case, feed)
    used = memory.used()
    quality = evaluate(models, data, case.device) if case.shape != "giga" else {}
    return {"seconds": feed.seconds[WARMUP : WARMUP + case.steps], "memory": used, **quality}


class Memory:
    """Peak in bytes above what is in use now: of the process, or of what torch allocates on a GPU."""

    def __init__(self, device: str):
        self.on_gpu = device.startswith("cuda")
        gc.collect()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == "linux":  # give freed memory back, and let the peak start anew
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._peak()

    def _peak(self) -> int:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        if sys.platform == "linux":
            return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        return resource.getrusage(
            resource.RUSAGE_SELF
        ).ru_maxrss  # macOS, in bytes; the peak of importing counts, so too small

    def used(self) -> int:
        return self._peak() - self.before


@torch.no_grad()
def evaluate(models: list[Callable], data: Activations, device: str) -> dict:
    """Means over members, on tokens that were not trained on, in float32."""
    from sae_rna.sae.explained_variance import ExplainedVariance

    variances, active, chunk = [ExplainedVariance() for _ in models], 0, HELD_OUT // 4
    for number in range(-5, -1):
        x = data(chunk, number).to(device)
        for variance, model in zip(variances, models):
            guess, count = model(x)
            variance.update(x[None], guess.float()[None])
            active += count.sum().item()
    mean = statistics.fmean(variance.value().item() for variance in variances)
    return {"explained_variance": mean, "l0": active / HELD_OUT / len(models)}


def time_product(case: Case) -> list[float]:
    """Seconds of the encoder's matrix product into memory that is there already, in the better of two layouts
    of the weights."""
    kind = torch.bfloat16 if case.bfloat16 else torch.float32
    make = partial(torch.randn, device=case.device, dtype=kind)
    x, bias, product = make(case.batch, case.D), make(case.F), make(case.batch, case.F)
    layouts = []
    for weight in (make(case.D, case.F), make(case.F, case.D).T):
        feed = Feed(lambda _: x, case.batches, case.device)
        for batch in feed:
            torch.addmm(bias, batch, weight, out=product)
        layouts.append(feed.seconds[WARMUP : WARMUP + case.steps])
    return min(layouts, key=statistics.median)


def spawn(case: Case) -> dict:
    """`run_case` in a new process; a failure is a dict with its reason."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(case.threads))
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder, "result.json"), Path(folder, "errors")
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--result", str(result)]
        with open(errors, "wb") as stream:
            try:
                done = subprocess.run(
                    command, env=os.environ | threads, stdout=stream, stderr=stream, timeout=LIMIT_SECONDS
                )
            except subprocess.TimeoutExpired:
                return {"reason": f"took longer than {LIMIT_SECONDS} s"}
        if result.exists():
            return json.loads(result.read_text())
        last = (errors.read_text(errors="replace").strip().splitlines() or [""])[-1]
        return {"reason": f"ended with {done.returncode}: {last}"}


# ---------------------------------------------------------------- all cases, and their table


def plan(options) -> list[Case]:
    """Cases in the order they run: per shape the floor, then every architecture, number of members, library
    and precision."""
    cases, precisions = [], ("float32", "bfloat16")
    single = partial(
        Case, batch=options.batch, steps=options.steps, device=options.device, threads=options.threads
    )
    labels = [label for label in TRAINERS if label.partition(":")[0] in options.only]
    for shape in options.shapes:
        sizes = SHAPES[shape]
        cases += [
            single(FLOOR, "", shape, *sizes, members=1, precision=precision) for precision in precisions
        ]
        for architecture, members, label, precision in itertools.product(
            ("topk", "relu-l1"), (1, EIGHT), labels, precisions
        ):
            if members > 1 and architecture != "topk":
                continue
            if (architecture == "topk" or label not in TOPK_ALONE) and (
                precision == "float32" or label not in FLOAT32_ALONE
            ):
                cases.append(single(label, architecture, shape, *sizes, members=members, precision=precision))
    if options.giga:
        cases += [
            single(OURS, "topk", "giga", *SHAPES["large"], members=options.giga_members, precision=each)
            for each in precisions
        ]
    return cases


def measure(options) -> list[dict]:
    """Run all cases, writing the table after each."""
    cases, rows = plan(options), []
    for number, case in enumerate(cases, 1):
        began = time.monotonic()
        alone = next((row for row in rows if row["case"] == replace(case, members=1)), None)
        if case.members == EIGHT and not case.library.startswith(OURS) and not options.measure_eight:
            keep = ("explained_variance", "l0", "reason")
            result = {"seconds": [EIGHT * seconds for seconds in alone["seconds"]], "note": "8 x one member"}
            result |= {key: alone[key] for key in keep if key in alone}
        else:
            result = spawn(case)
        rows.append({"case": case, "seconds": [], **result})
        table = tabulate(rows)
        write(table, options)
        speed = table["tokens_per_second"].iloc[-1]
        said = result.get("reason") or f"{speed:,.0f} tokens/s"
        name = f"{case.shape} {case.architecture} {case.library} {case.precision}, {case.members} member{'s' * (case.members > 1)}"
        print(
            f"[{number}/{len(cases)}, {time.monotonic() - began:.0f} s] {name}: {said}",
            file=sys.stderr,
            flush=True,
        )
    return rows


def tabulate(rows: list[dict]) -> pd.DataFrame:
    """The tidy table, a row for each case. A token counts once, however many members are trained on it."""
    tidy = []
    for row in rows:
        case, seconds = row["case"], row["seconds"]
        library, _, variant = case.library.partition(":")
        added = (
            ADDED_AUTOCAST if case.bfloat16 and case.device == "cpu" and library in WITHOUT_AUTOCAST else ""
        )
        members, note = case.members, "; ".join(filter(None, (row.get("reason"), row.get("note"), added)))
        if case.shape == "giga" and members != GIGA_LAYERS:
            seconds = [GIGA_LAYERS / members * value for value in seconds]
            members, note = (
                GIGA_LAYERS,
                "; ".join(filter(None, (note, f"projected from {members} of them, whose memory it is"))),
            )
        middle = statistics.median(seconds) if seconds else float("nan")
        floors = [
            statistics.median(other["seconds"])
            for other in rows
            if other["case"].library == FLOOR and other["seconds"]
            and (other["case"].D, other["case"].F, other["case"].precision) == (case.D, case.F, case.precision)
        ]  # fmt: skip
        tidy.append({
            "shape": case.shape, "architecture": case.architecture, "members": members, "library": library, "variant": variant,
            "version": version(library), "precision": case.precision, "D": case.D, "F": case.F, "K": case.K, "batch": case.batch,
            "steps": case.steps, "device": case.device, "threads": case.threads, "step_seconds": middle,
            "tokens_per_second": case.batch / middle,
            "tokens_per_second_min": case.batch / max(seconds, default=float("nan")),
            "tokens_per_second_max": case.batch / min(seconds, default=float("nan")),
            "floors": middle / members / floors[0] if floors else float("nan"),
            "memory_mib": row.get("memory", float("nan")) / 2**20,
            "explained_variance": row.get("explained_variance", float("nan")), "l0": row.get("l0", float("nan")),
            "hours_10M_tokens": GIGA_TOKENS / case.batch * middle / 3600, "note": note,
        })  # fmt: skip
    table = pd.DataFrame(tidy)
    peers = table["tokens_per_second"].where(~table["library"].isin([OURS, FLOOR]))
    best = peers.groupby([table["shape"], table["architecture"], table["members"]]).transform("max")
    return table.assign(times_fastest_peer=table["tokens_per_second"] / best)


def version(library: str) -> str:
    """Of an installed library."""
    if library == OURS:
        import sae_rna

        return sae_rna.__version__
    try:
        return importlib.metadata.version("torch" if library == FLOOR else library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine(options) -> str:
    """What the numbers were measured on, in a sentence."""
    cpu, information = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if information.exists():
        cpu = next(
            (
                line.split(":", 1)[1].strip()
                for line in information.read_text().splitlines()
                if line.startswith("model name")
            ),
            cpu,
        )
    gpu = f", {torch.cuda.get_device_name()}" if options.device.startswith("cuda") else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{cpu}, {options.threads} thread{'s' * (options.threads > 1)}{gpu}; {versions}"


COLUMNS = {
    "library": "library", "precision": "precision", "tokens_per_second": "tokens/s", "floors": "x floor",
    "times_fastest_peer": "x fastest peer", "memory_mib": "memory, MiB", "explained_variance": "EV",
}  # fmt: skip
"""Of the Markdown table; the Parquet file has the range of the speeds, L0 and more."""


def write(table: pd.DataFrame, options):
    """The table as Parquet and as Markdown."""
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = f"{machine(options)}; {date.today()}"
    table.assign(machine=about).to_parquet(options.output.with_suffix(".parquet"), index=False)
    numbers = lambda digits: lambda value: "" if pd.isna(value) else f"{value:,.{digits}f}"  # noqa: E731
    notes = [note for note in table["note"].unique() if note]
    marks = table["note"].map(lambda note: f" [{notes.index(note) + 1}]" if note else "")
    versions = table["library"].where(table["library"] != FLOOR, "torch") + " " + table["version"]
    text = table.assign(
        library=versions + table["variant"].map(lambda variant: variant and f", {variant}") + marks
    )
    for name, count in {
        "tokens_per_second": 0,
        "memory_mib": 0,
        "floors": 2,
        "times_fastest_peer": 2,
        "explained_variance": 3,
    }.items():
        text[name] = table[name].map(numbers(count))
    parts = [f"{about}. A column is explained in `benchmarks/README.md`.\n"]
    for (shape, architecture, members), part in text.groupby(
        ["shape", "architecture", "members"], sort=False
    ):
        D, F, K, batch, steps = part.iloc[0][["D", "F", "K", "batch", "steps"]]
        what = (
            f"{architecture}, {members} member{'s' * (members > 1)}"
            if architecture
            else "encoder's matrix product alone"
        )
        parts.append(
            f"**{what[0].upper() + what[1:]}.** D = {D}, F = {F}, K = {K}, batches of {batch} tokens, {steps} steps timed.\n"
        )
        shown = {name: title for name, title in COLUMNS.items() if (part[name] != "").any()}
        lines = [list(shown.values()), ["---"] * len(shown), *part[list(shown)].values.tolist()]
        parts.append("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n")
        if shape == "giga":
            hours = ", ".join(
                f"{row.hours_10M_tokens:.1f} hours in {row.precision}" for row in part.itertuples()
            )
            parts.append(
                f"All {GIGA_LAYERS} layers of RiNALMo-giga, {GIGA_TOKENS:,} tokens: {hours}, the language model not counted.\n"
            )
    parts += [f"[{number}] {note}.\n" for number, note in enumerate(notes, 1)]
    options.output.with_suffix(".md").write_text("\n".join(parts))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = list(dict.fromkeys(label.partition(":")[0] for label in TRAINERS))

    def commas(known):
        return lambda text: [
            part if part in known else parser.error(f"{part} is not one of {', '.join(known)}")
            for part in text.split(",")
        ]

    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--steps",
        type=int,
        default=8,
        help="timed steps of each case; the explained variance is that after them",
    )
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--shapes", type=commas(list(SHAPES)), default=list(SHAPES), help="small,large")
    parser.add_argument("--only", type=commas(names), default=names, help=",".join(names))
    parser.add_argument(
        "--measure-eight",
        action="store_true",
        help="train eight members of a peer, too, instead of 8 x one member",
    )
    parser.add_argument("--giga", action="store_true", help="also the 33 layers of RiNALMo-giga")
    parser.add_argument(
        "--giga-members", type=int, help="of the 33; all on cuda, else 2 from which the rest is projected"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small shape, batches of 256, 3 steps: does it run?"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "sae_training", help="without suffix")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        try:
            result = run_case(Case(**json.loads(options.case)))
        except Exception as error:
            traceback.print_exc()
            result = {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
        options.result.write_text(json.dumps(result))
        return
    if options.quick:
        options.batch, options.steps, options.shapes = 256, 3, ["small"]
    options.giga_members = options.giga_members or (GIGA_LAYERS if options.device.startswith("cuda") else 2)
    measure(options)


if __name__ == "__main__":
    main()
