"""From a chart or a table to a page of the book, without a network. Nothing here knows of RNA.

`publish` is the last line of a figure's cell: it writes the static files and displays figure and caption.
`execute` runs a notebook and gives its figures their captions and numbers in the book. `write_vega_bundle`
builds the JavaScript that the pages' charts need. `page_html` makes a page of its own, outside the book, and
`write_atlas` many small ones with an index.
"""

from sae_rna.publishing.atlas import write_atlas as write_atlas
from sae_rna.publishing.captions import NotebookError as NotebookError
from sae_rna.publishing.execution import execute as execute
from sae_rna.publishing.outputs import publish as publish
from sae_rna.publishing.outputs import say as say
from sae_rna.publishing.standalone import page_html as page_html
from sae_rna.publishing.vega import write_vega_bundle as write_vega_bundle
