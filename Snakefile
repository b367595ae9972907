"""What `make book` runs: every notebook once, then the book.

    snakemake --cores all [--config profile=paper]

A step runs again when the content of an input, its command or its profile has changed, and only then. On a cluster the same
file scales out with one of Snakemake's executor plug-ins.
"""

from glob import glob
from pathlib import Path

from sae_rna.parameters import Parameters

PROFILE = config.get("profile", "default")
FIGURES = f"{Parameters.from_profile(PROFILE).run}/figures"
NOTEBOOKS = ["00-overview", "01-data", "02-language-model", "03-autoencoders", "04-layers", "05-structure-features", "06-type-features"]
TRAINING = "03-autoencoders"
#: These train autoencoders, or encode the evaluation RNAs for all that follow: they take all cores for themselves.
HEAVY = {TRAINING, "04-layers", "05-structure-features"}
#: Whose results a notebook finds in the run folder: 03 trains the autoencoders, and the overview sums everything up. What the others
#: share, the first to ask computes while the rest wait.
READS = {name: [TRAINING] for name in NOTEBOOKS[2:] if name != TRAINING} | {"00-overview": NOTEBOOKS[1:]}
CODE = sorted(glob("sae_rna/**/*.py", recursive=True))
DATA = sorted(set(glob("data/*.parquet") + glob("data/rinalmo-nano/*")) - {"data/rinalmo-nano/README.md"})
PAGES = [path for path in glob("book/*.*") + glob("book/assets/**", recursive=True) if Path(path).is_file()]
VEGA = "book/assets/vendor/vega-bundle.js"


rule book:
    input:
        "_build/html/index.html",


rule notebook:
    input:
        CODE,
        DATA,
        lambda wildcards: expand("book/executed/{name}.ipynb", name=READS.get(wildcards.name, [])),
        notebook="notebooks/{name}.ipynb",
        profile=f"profiles/{PROFILE}.yml",
    output:
        "book/executed/{name}.ipynb",
    params:
        profile=PROFILE,
    threads: lambda wildcards: 8 if wildcards.name in HEAVY else 1
    shell:
        "python -m sae_rna notebook {input.notebook} --profile {params.profile} --output {output}"


rule figures:
    input:
        expand("book/executed/{name}.ipynb", name=NOTEBOOKS),
    output:
        directory("book/public/figures"),
    params:
        figures=FIGURES,
    shell:
        "mkdir -p book/public && cp -r {params.figures} {output}"


rule vega:
    # Altair's charts ask for exactly the versions that this Altair was made for, so the bundle is made again with a new lock file.
    input:
        "requirements.lock",
        "sae_rna/publishing.py",
    output:
        VEGA,
    shell:
        "python -c 'from pathlib import Path; from sae_rna.publishing import write_vega_bundle; write_vega_bundle(Path(\"{output}\"))'"


rule html:
    # From scratch every time (seconds): Sphinx repeats no warning of a page that it did not read again, so -W would miss it.
    input:
        set(PAGES) - {VEGA},
        VEGA,
        rules.figures.input,
        rules.figures.output,
        "_config.yml",
        "data/README.md",
        "data/rinalmo-nano/README.md",
        "benchmarks/results/sae_training.md",
    output:
        "_build/html/index.html",
    shell:
        "rm -rf _build/html _build/.doctrees && jb build book --config _config.yml --path-output . -W -n --keep-going -q"
