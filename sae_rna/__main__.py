"""Command line: the same steps for people without a notebook."""

import argparse
import sys
from pathlib import Path

import yaml

from sae_rna.parameters import ROOT, Parameters, read_profile


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors of the user's making end in one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="sae-rna", description="Sparse autoencoders for RNA language models.")
    commands = parser.add_subparsers(dest="command", required=True)
    notebook = commands.add_parser("notebook", help="execute one notebook with the parameters of a profile")
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("--output", type=Path, required=True, help="where the executed notebook goes")
    notebook.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
    notebook.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="another value for one parameter (YAML)"
    )
    export = commands.add_parser("export", help="write trained autoencoders as another library loads them")
    export.add_argument("source", help="a folder of autoencoders, such as runs/default/autoencoders-.../topk, or a hub id")
    export.add_argument("--to", choices=("saelens", "dictionary_learning"), required=True)
    export.add_argument("--output", type=Path, required=True, help="gets one folder for each autoencoder")
    pretrain = commands.add_parser("pretrain", help="pre-train the embedded language model", add_help=False)
    pretrain.add_argument("rest", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    try:
        if given.command == "pretrain":
            from sae_rna import pretraining

            pretraining.main(given.rest)
        elif given.command == "export":
            _export(given)
        else:
            _notebook(given)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"sae-rna: {error}", file=sys.stderr)
        return 1
    return 0


def _notebook(given):
    from sae_rna import publishing

    parameters = read_profile(given.profile) | {name: yaml.safe_load(value) for name, value in given.p}
    Parameters.check_names(parameters)
    checked = Parameters(**parameters)
    publishing.execute(given.notebook, given.output, parameters, figures=ROOT / checked.run / "figures", failures=ROOT / checked.run)


def _export(given):
    from sae_rna.autoencoder import SparseAutoencoders
    from sae_rna.export import to_dictionary_learning, to_saelens

    write = {"saelens": to_saelens, "dictionary_learning": to_dictionary_learning}[given.to]
    for folder in write(SparseAutoencoders.from_pretrained(given.source), given.output):
        print(folder)


if __name__ == "__main__":
    sys.exit(main())
