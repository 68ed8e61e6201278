"""Run the notebooks anew and keep their outputs."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

for path in Path(__file__).parent.rglob("*.ipynb"):
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, resources=where, record_timing=False, coalesce_streams=True).execute()
    nbformat.write(notebook, path)
