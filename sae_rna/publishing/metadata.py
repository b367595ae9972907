"""What the files of a figure say of themselves: title, author, version, data, address, licence and units."""

import csv
import re
import zlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path
from typing import NamedTuple

from sae_rna.files import write_atomically, write_json

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
_TERMS = {"creator": "author", "description": "description", "identifier": "address", "source": "data"}


class Facts(NamedTuple):
    """What is said of a figure or table."""

    title: str
    author: str
    address: str  # in the book, without the number of the figure or page
    data: str  # fingerprints of the table, of what the run read, and of the language model
    description: str  # how to cite it: all of the above, with version and commit


def svg(content: bytes, facts: Facts) -> bytes:
    """An SVG with the facts in its <metadata>, as RDF in the terms of Dublin Core and Creative Commons."""
    terms = {"title": facts.title} | {term: getattr(facts, name) for term, name in _TERMS.items()}
    lines = "".join(f"<dc:{term}>{escape(words)}</dc:{term}>" for term, words in terms.items())
    spaces = (
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://creativecommons.org/ns#" '
    )
    spaces += 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
    work = f'<cc:Work rdf:about="">{lines}<cc:license rdf:resource="{LICENCE}"/></cc:Work>'
    said = f"<metadata><rdf:RDF {spaces}>{work}</rdf:RDF></metadata>"
    return re.sub(rb"<svg [^>]*>", lambda opened: opened[0] + said.encode(), content, count=1)


def png(content: bytes, facts: Facts) -> bytes:
    """A PNG with the facts as chunks of text behind its header, under the keywords of its specification."""
    added = b""
    for keyword, words in _keywords(facts).items():
        chunk = b"iTXt" + keyword.encode() + b"\0\0\0\0\0" + words.encode()
        added += (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    header = 33  # bytes of signature and IHDR
    return content[:header] + added + content[header:]


def pdf(content: bytes, facts: Facts) -> bytes:
    """A PDF with the facts as its document information, in an update at its end (ISO 32000-1, 7.5.6)."""
    patterns = rb"/Size (\d+)", rb"/Root (\d+ \d+ R)", rb"startxref\s+(\d+)"
    size, root, before = (re.findall(pattern, content)[-1].decode() for pattern in patterns)
    words = _keywords(facts)
    words |= {"Subject": words.pop("Description"), "Keywords": words.pop("Copyright")}
    entries = "".join(
        f"/{k} <{(chr(0xFEFF) + text).encode('utf-16-be').hex()}>\n" for k, text in words.items()
    )
    added = f"\n{size} 0 obj\n<<\n{entries}>>\nendobj\n".encode()
    table = f"xref\n0 1\n{0:010d} 65535 f \n{size} 1\n{len(content) + 1:010d} 00000 n \n"
    trailer = f"trailer\n<< /Size {int(size) + 1} /Root {root} /Info {size} 0 R /Prev {before} >>\n"
    end = f"{table}{trailer}startxref\n{len(content) + len(added)}\n%%EOF\n"
    return content + added + end.encode()


def _keywords(facts: Facts) -> dict[str, str]:
    words = {"Title": facts.title, "Author": facts.author, "Description": facts.description}
    return words | {"Copyright": f"CC BY 4.0, {LICENCE}"}


def meaning(known: Mapping, figure: str, column: str) -> tuple[str, str]:
    """Unit and meaning of a column of a figure's table, from `known`, by figure and by column or pattern.

    What is said for the figure goes before what is said for "all". Empty where nothing is said.
    """
    for names in (known.get(figure, {}), known["all"]):
        for name in (column, *names):
            if name in names and (name == column or fnmatchcase(column, name)):
                return tuple(names[name])
    return "", ""


def write(folder: Path, name: str, facts: Facts, known: Mapping):
    """Write the facts into the pictures of a figure in `folder`, and beside its table.

    The latter as `<name>.csv-metadata.json` (W3C, "CSV on the Web"), with the `meaning` of every column.
    """
    for suffix, add in (("svg", svg), ("png", png), ("pdf", pdf)):
        file = folder / f"{name}.{suffix}"
        if file.exists():
            write_atomically(file, add(file.read_bytes(), facts))
    with open(folder / f"{name}.csv", newline="") as table:
        header = next(csv.reader(table))
    terms = "titles", "schema:unitText", "dc:description"
    columns = [dict(zip(terms, (column, *meaning(known, name, column)))) for column in header]
    said = {"@context": "http://www.w3.org/ns/csvw", "url": f"{name}.csv", "dc:title": facts.title}
    said |= {f"dc:{term}": getattr(facts, fact) for term, fact in _TERMS.items()}
    write_json(
        folder / f"{name}.csv-metadata.json",
        said | {"dc:license": {"@id": LICENCE}, "tableSchema": {"columns": columns}},
    )


def redirect(page: str) -> str:
    """A page at an address that stays, which leads to where a figure stands today."""
    place = escape(page)
    leads = (
        f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={place}"><title>{place}</title>'
    )
    link = f'<a href="{place}">{place}</a>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{leads}</head><body>{link}</body></html>\n'
