"""Speed and memory of `LanguageModel.hidden_states` beside the model's bare forward pass on the same batches.

    python benchmarks/extraction.py                # rinalmo-nano and a random rinalmo-micro
    python benchmarks/extraction.py --giga         # a random rinalmo-giga, too: minutes on a CPU
    python benchmarks/extraction.py --device cuda --giga

Every case is a process of its own. Its ways of reading the same length-sorted batches take turns, batch by
batch and in random order, so that whatever else the machine does meets them all. A bare pass is
`model(**tokens)` under `torch.inference_mode` with the tokens made before; ours makes the tokens, picks the
nucleotides and converts them to float32. Writes results/extraction.parquet and .md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sae_training import RESULTS, Memory, synchronise

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"rinalmo-micro": (12, 480, 1920), "rinalmo-giga": (33, 1280, 5120)}
"""Blocks, width, intermediate size; 20 heads. Random weights: speed and memory do not depend on their
values."""
BARE, EAGER, ALL, ONE = (
    "bare pass",
    "bare pass, library's attention",
    "hidden_states, all blocks",
    "hidden_states, the last block",
)
KEPT = "output_hidden_states=True"
TABLE = {
    "model": "model",
    "precision": "precision",
    "way": "way",
    "nucleotides_per_second": "nt/s",
    "of_bare": "x bare pass",
    "lowest": "lowest",
    "highest": "highest",
    "memory_mib": "memory, MiB",
}


def load(model: str, precision: str, device: str):
    """The model, random unless it is the shipped one."""
    from multimolecule import RiNALMoConfig, RnaTokenizer

    from sae_rna.extraction.language_model import LanguageModel

    if model == "rinalmo-nano":
        return in_precision(LanguageModel.load(str(ROOT / "data" / model), device=device), precision)
    blocks, width, intermediate = SIZES[model]
    with tempfile.TemporaryDirectory() as folder:
        config = RiNALMoConfig(
            hidden_size=width,
            num_hidden_layers=blocks,
            num_attention_heads=20,
            intermediate_size=intermediate,
        )
        config.save_pretrained(folder)
        RnaTokenizer().save_pretrained(folder)
        return in_precision(LanguageModel.load(folder, device=device, random_seed=0), precision)


def in_precision(model, precision: str):
    """The model; in bfloat16 the weights and products of linear layers and of attention are."""
    if precision == "bfloat16":
        for module in model.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.bfloat16()
        model.model.forward = torch.autocast(model.device.type, torch.bfloat16)(model.model.forward)
    return model


@torch.inference_mode()
def run_case(case: dict) -> list[dict]:
    """A row for each way."""
    torch.set_num_threads(case["threads"])
    model = load(case["model"], case["precision"], case["device"])
    loading = _peak_mib()  # `Memory` lets the peak start anew
    records = pd.read_parquet(ROOT / "data" / "records.parquet", columns=["sequence"])
    sequences = records.sequence.sample(20_000, random_state=0).tolist()
    some = model.batches(sequences, case["tokens"], np.random.default_rng(0))[: case["batches"]]
    texts = [[sequences[row] for row in rows] for rows in some]
    tokens = [model.tokenize(batch) for batch in texts]
    lengths = [len(text) for batch in texts for text in batch]
    nucleotides = sum(lengths)
    blocks = range(1, model.blocks + 1)

    def bare(number, attention="sdpa", **options):
        model.model.config._attn_implementation = attention
        model.model(**tokens[number], **options)
        model.model.config._attn_implementation = "sdpa"

    def ours(number, layers):
        for _ in model.hidden_states(texts[number], layers, [np.arange(len(texts[number]))]):
            pass

    ways = {
        BARE: bare,
        EAGER: lambda number: bare(number, "eager"),
        KEPT: lambda number: bare(number, output_hidden_states=True),
        ALL: lambda number: ours(number, blocks),
        ONE: lambda number: ours(number, [model.blocks]),
    }
    # processor time is not touched by what else runs; a GPU's and several threads' work is not in it
    clock = time.process_time if case["device"] == "cpu" and case["threads"] == 1 else time.perf_counter
    memory, seconds = {}, {way: np.zeros((case["rounds"], len(some))) for way in ways}
    largest = int(np.argmax([each["input_ids"].numel() for each in tokens]))
    for way, read in ways.items():  # this also warms up
        before = Memory(case["device"])
        read(largest)
        memory[way] = before.used()
    rng = np.random.default_rng(0)
    for round_, number in np.ndindex(case["rounds"], len(some)):
        for way in rng.permutation(list(ways)):
            read = ways[way]
            synchronise(case["device"])
            began = clock()
            read(number)
            synchronise(case["device"])
            seconds[way][round_, number] = clock() - began
    common = {name: case[name] for name in ("model", "precision", "device", "threads")}
    common |= {
        "parameters": model.parameter_count,
        "nucleotides": nucleotides,
        "batches": len(some),
        "rounds": case["rounds"],
    }
    common |= {"clock": "processor time" if clock is time.process_time else "time", "longest": max(lengths)}
    common["peak_process_mib"] = max(loading, _peak_mib())
    rows = []
    for way in ways:
        ratios = seconds[BARE].sum(1) / seconds[way].sum(1)
        fastest = {
            each: seconds[each].min(0).sum() for each in (BARE, way)
        }  # of the rounds: what disturbs only ever slows down
        shares = {"of_bare": fastest[BARE] / fastest[way], "lowest": ratios.min(), "highest": ratios.max()}
        speed = nucleotides / fastest[way]
        rows.append(
            common | {"way": way, "nucleotides_per_second": speed, "memory_mib": memory[way] / 2**20} | shares
        )
    return rows


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write(table: pd.DataFrame, output: Path):
    """Parquet, and the tables in Markdown."""
    output.parent.mkdir(exist_ok=True)
    table.to_parquet(output.with_suffix(".parquet"), index=False)
    device, threads = table["device"].iloc[0], table["threads"].iloc[0]
    where = (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"
    )
    text = table.copy()
    for name, form in {"nucleotides_per_second": "{:,.0f}", "memory_mib": "{:,.0f}"}.items():
        text[name] = table[name].map(form.format)
    for name in ("of_bare", "lowest", "highest"):
        text[name] = table[name].map("{:.2f}".format)
    parts = [
        f"{where}; Python {platform.python_version()}, torch {torch.__version__}; {date.today()}. `benchmarks/extraction.py` says what is "
        "measured. Speeds, and their share of the bare pass's, are those of each batch's fastest round; lowest and highest are the shares "
        "in single rounds. Memory is the peak above the value before, for the largest batch.\n"
    ]
    lines = [list(TABLE.values()), ["---"] * len(TABLE), *text[list(TABLE)].values.tolist()]
    parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    for (model, precision), rows in table.groupby(["model", "precision"], sort=False):
        row, weights = rows.iloc[0], "weights as shipped" if model == "rinalmo-nano" else "random weights"
        parts.append(
            f"- {model}, {precision}: {row.parameters:,} parameters, {weights}; "
            f"{row.rounds} rounds of {row.batches} batches, {row.nucleotides:,} nucleotides of RNAs of at most {row.longest} nt, "
            f"{row.clock}; the process, loading and all ways included, held at most {row.peak_process_mib:,.0f} MiB."
        )
    output.with_suffix(".md").write_text("\n".join(parts) + "\n")


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main():
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--giga", action="store_true", help="also a random rinalmo-giga, in bfloat16")
    parser.add_argument(
        "--only",
        help="one model alone: rinalmo-nano, rinalmo-micro or rinalmo-giga; the others keep their rows",
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "extraction", help="without suffix")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        options.result.write_text(json.dumps(run_case(json.loads(options.case)), default=float))
        return
    on_gpu = options.device.startswith("cuda")
    common = {"device": options.device, "threads": options.threads}
    cases = [
        common
        | {
            "model": model,
            "precision": precision,
            "tokens": 16_384 if on_gpu else tokens,
            "batches": batches,
            "rounds": rounds,
        }
        for model, tokens, batches, rounds in (("rinalmo-nano", 8192, 3, 15), ("rinalmo-micro", 4096, 2, 5))
        for precision in ("float32", "bfloat16")
    ]
    if options.giga or options.only == "rinalmo-giga":
        sizes = (
            {"tokens": 16_384, "batches": 8, "rounds": 5}
            if on_gpu
            else {"tokens": 1024, "batches": 2, "rounds": 3}
        )
        cases.append(common | {"model": "rinalmo-giga", "precision": "bfloat16"} | sizes)
    tables = []
    if options.only:
        cases = [case for case in cases if case["model"] == options.only]
        if options.output.with_suffix(".parquet").exists():
            old = pd.read_parquet(options.output.with_suffix(".parquet"))
            tables.append(old[old["model"] != options.only])
    for case in cases:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder, "result.json")
            command = [sys.executable, __file__, "--case", json.dumps(case), "--result", str(result)]
            subprocess.run(command, env=os.environ | threads, check=True)
            tables.append(pd.DataFrame(json.loads(result.read_text())))
        table = pd.concat(tables, ignore_index=True)
        write(table, options.output)
        print(
            tables[-1][
                ["model", "precision", "way", "nucleotides_per_second", "of_bare", "memory_mib"]
            ].to_string(),
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
