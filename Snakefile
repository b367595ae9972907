"""What `make book` runs: every group of layers and every notebook once, then the book.

    snakemake --cores all [--config profile=paper]

A step runs again when the content of an input, its command or its profile has changed, and only then. On a cluster the same
file scales out with one of Snakemake's executor plug-ins, see the page "Run it at scale".
"""

import os
import re
import sys
from glob import glob
from pathlib import Path

from sae_rna import build
from sae_rna.cache import source_files
from sae_rna.memory import training_gb
from sae_rna.parameters import MODELS, Parameters, layer_groups, model_shape, resolve

PROFILE = config.get("profile", "default")
with build.in_one_sentence():
    P = Parameters.from_profile(PROFILE)
    BLOCKS, WIDTH = model_shape(P)
RUN = P.run
GROUPS = layer_groups(P, BLOCKS)
#: Whether jobs need a GPU: where the profile insists on one. Decides what they ask a cluster for.
GPU = int(P.device == "cuda")
#: A small model's operations are too short to be shared out among threads: two jobs side by side end sooner.
THREADS = 8 if GPU else 1
LAYERS = max(map(len, GROUPS.values()))
#: Twelve times the width squared is what the matrices of a block come to; no more tokens are held than the buffer's.
MEMORY_MB = 2000 + int(
    1000 * max(training_gb(P, v, LAYERS, WIDTH, 12 * BLOCKS * WIDTH**2, P.buffer_tokens) for v in P.variants.values())
)
MINUTES = 24 * 60 if GPU else 60
NOTEBOOKS = sorted(Path(path).stem for path in glob("notebooks/*.ipynb"))
OVERVIEW = NOTEBOOKS[0]
FIGURES = f"{RUN}/figures", "book/public/figures"
ATLAS = f"{RUN}/atlas/index.html", "book/public/atlas/index.html" # and a page of every feature beside it
PUBLISHED = {name: build.published(f"notebooks/{name}.ipynb") for name in NOTEBOOKS}
HTML = [f"_build/html/{page}.html" for page in re.findall(r"(?:file|root): (\S+)", Path("book/_toc.yml").read_text())]

CODE = sorted(glob("sae_rna/**/*.py", recursive=True) + glob("sae_rna/publishing/atlas.*s"))
DATA = sorted(set(glob("data/*.parquet") + glob("data/rinalmo-nano/*")) - {"data/rinalmo-nano/README.md"})
PAGES = [path for path in glob("book/*.*") + glob("book/assets/**", recursive=True) if Path(path).is_file()]
VEGA = "book/assets/vendor/vega-bundle.js"
ON_HUB = [source for source in (P.model, P.structures, P.types) if not Path(resolve(source)).exists()]


def code(module) -> list[str]:
    return [os.path.relpath(path) for path in source_files(module)]


def done(step: str, models=MODELS) -> list[str]:
    """Receipts of a step for all groups of layers: which hidden states it read says `models`."""
    return expand(f"{RUN}/done/{{model}}.{{layers}}.{step}.json", model=models, layers=GROUPS)


def executed(*names) -> list[str]:
    return expand("book/executed/{name}.ipynb", name=names)


#: What a notebook finds done in the run folder. What it computes beyond that, it keeps there for those that come after it.
TRAINED, ENCODED = done("trained", MODELS[:1]), done("encoded", MODELS[:1])
NEEDS = {
    "02-language-model": ENCODED,
    "03-autoencoders": TRAINED,
    "05-layers": ENCODED,
    "06-structure-features": ENCODED,
    "07-type-features": done("encoded"),
    "08-controls": done("encoded"),
    "09-confounds": executed("06-structure-features"),
    "10-recurrence": executed("08-controls"),
    "11-fidelity": TRAINED,
    "12-claims": executed(
        "05-layers", "07-type-features", "08-controls", "09-confounds", "14-ground-truth", "16-use"
    ),
    "13-causes": done("encoded"),
    "14-ground-truth": executed("08-controls"),
    "16-use": executed("13-causes"),
    "17-fine-tuning": executed("13-causes"),
    "19-lineage": executed("08-controls"),
    "20-compare": ENCODED,
    "18-try-rna": executed("09-confounds", "14-ground-truth"),
    "21-atlas": executed("07-type-features", "09-confounds", "10-recurrence", "14-ground-truth", "16-use"),
    "22-hypotheses": executed("07-type-features", "10-recurrence", "19-lineage"),
    OVERVIEW: executed(*NOTEBOOKS[1:]),
}
#: Notebooks that take minutes, first those that others wait for; short ones keep the second core busy beside them.
LONG = "08-controls", "14-ground-truth", "04-dictionary", "13-causes", "07-type-features"


if workflow.is_main_process and not {"-n", "--dry-run", "--dryrun"} & set(sys.argv):
    build.begin([f"{RUN}/run.json", *executed(OVERVIEW), f"{FIGURES[1]}/a", "_build/html/index.html"])


onstart:
    build.stop_at_signals()


wildcard_constraints:
    model="|".join(MODELS),
    layers=r"layers-[\d_-]+",


rule book:
    # All that is made, not the pages alone, so that whatever was deleted is made again.
    input:
        "_build/html/index.html",
        HTML,
        executed(*NOTEBOOKS),
        [f"{folder}/{file}" for folder in FIGURES for files in PUBLISHED.values() for file in files],
        ATLAS,


rule records:
    # Model and data from the hub, where the profile asks for it: needs the network, which compute nodes often lack.
    input:
        f"profiles/{PROFILE}.yml",
        code("sae_rna.records.sampling"),
    output:
        f"{RUN}/done/records.json",
    params:
        profile=PROFILE,
    localrule: True
    shell:
        "python -m sae_rna records --profile {params.profile} --receipt {output}"


rule autoencoders:
    input:
        DATA,
        code("sae_rna.study"),
        rules.records.output if ON_HUB else [],
        profile=f"profiles/{PROFILE}.yml",
    output:
        RUN + "/done/{model}.{layers}.trained.json",
    params:
        profile=PROFILE,
    threads: THREADS
    priority: 9 # most notebooks wait for it
    resources:
        gpu=GPU,
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    shell:
        "python -m sae_rna train {wildcards.model} {wildcards.layers} --profile {params.profile} --receipt {output}"


rule features:
    input:
        rules.autoencoders.output,
    output:
        RUN + "/done/{model}.{layers}.encoded.json",
    params:
        profile=PROFILE,
    threads: THREADS
    priority: 9 # most notebooks wait for it
    resources:
        gpu=GPU,
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    shell:
        "python -m sae_rna encode {wildcards.model} {wildcards.layers} --profile {params.profile} --receipt {output}"


for NAME in NOTEBOOKS:

    rule:
        name:
            "notebook_" + NAME.replace("-", "_")
        input:
            CODE,
            DATA,
            rules.records.output if ON_HUB else [],
            NEEDS.get(NAME, []),
            notebook=f"notebooks/{NAME}.ipynb",
            profile=f"profiles/{PROFILE}.yml",
        output:
            [f"{FIGURES[0]}/{file}" for file in PUBLISHED[NAME]],
            ATLAS[0] if NAME == "21-atlas" else [],
            notebook=f"book/executed/{NAME}.ipynb",
        params:
            profile=PROFILE,
        priority: len(LONG) - LONG.index(NAME) if NAME in LONG else 0
        threads: THREADS
        resources:
            gpu=GPU,
            mem_mb=MEMORY_MB,
            runtime=MINUTES,
        shell:
            "python -m sae_rna notebook {input.notebook} --profile {params.profile} --output {output.notebook}"


rule notebooks:
    localrule: True
    input:
        executed(*NOTEBOOKS),


rule figures:
    localrule: True
    input:
        ATLAS[0],
        files=[f"{FIGURES[0]}/{file}" for files in PUBLISHED.values() for file in files],
    output:
        [f"{FIGURES[1]}/{file}" for files in PUBLISHED.values() for file in files],
        ATLAS[1],
    params:
        folder=FIGURES[1],
        atlas=[os.path.dirname(index) for index in ATLAS],
        record=f"{RUN}/run.json", # what was read, and with which parameters: every figure cites it
    shell:
        "rm -rf {params.folder} {params.atlas[1]} && mkdir -p {params.folder} && "
        "cp {input.files} {params.record} {params.folder} && cp -r {params.atlas[0]} {params.atlas[1]}"


rule vega:
    localrule: True
    # Altair's charts ask for exactly the versions that this Altair was made for, so the bundle is made again with a new lock file.
    input:
        "requirements.lock",
        "sae_rna/publishing/vega.py",
    output:
        VEGA,
    shell:
        "python -c 'from pathlib import Path; from sae_rna.publishing import write_vega_bundle; write_vega_bundle(Path(\"{output}\"))'"


rule html:
    localrule: True
    # From scratch every time (seconds): Sphinx repeats no warning of a page that it did not read again, so -W would miss it.
    input:
        set(PAGES) - {VEGA},
        VEGA,
        rules.notebooks.input,
        rules.figures.output,
        "_config.yml",
        "CITATION.cff",
        "sae_rna/publishing/metadata.py",
        "sae_rna/publishing/pages.py",
        "data/README.md",
        "data/rinalmo-nano/README.md",
        "benchmarks/results/extraction.md",
        "benchmarks/results/sae_training.md",
    output:
        "_build/html/index.html",
        HTML,
    shell:
        "rm -rf _build/html _build/.doctrees && jb build book --config _config.yml --path-output . -W -n --keep-going -q"
