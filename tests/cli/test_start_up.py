"""How long one waits before anything happens, counted in packages that are imported: the time itself differs between machines."""

import json
import subprocess
import sys

# What importing each of them costs, beside 1.3 s of torch: some 0.1 s together.
LIGHT = {"safetensors", "yaml", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "filelock"}
COMMAND_LINE = {"tyro", "docstring_parser"}

LOADED = """
import json, sys, torch
before = {name.partition(".")[0] for name in sys.modules}
try:
    BODY
except SystemExit:
    pass
installed = [name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", None) or "")]
packages = {name.partition(".")[0] for name in installed}
print(json.dumps(sorted(packages - before - {"spikedistill"})), file=sys.stderr)
"""


def imported(body: str) -> set[str]:
    """The installed packages that a line of Python imports and torch does not."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.replace("BODY", body)], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_library_imports_little_beside_torch_and_help_little_more():
    assert imported("import spikedistill") == set()
    assert imported("import spikedistill; from spikedistill import *") <= LIGHT
    for arguments in (["--help"], ["train", "--help"], ["list"]):
        assert imported(f"from spikedistill import cli; cli.main({arguments})") <= LIGHT | COMMAND_LINE, arguments


def test_attacks_cost_nothing_where_there_are_none():
    """Neither importing the library nor evaluating without an attack reads a file of them."""
    body = """
import sys
import torch
import spikedistill
from spikedistill.evaluation import evaluate

network = spikedistill.create_model("convnet", num_classes=4, in_channels=1, image_size=8, width=0.25)
evaluate(network, [(torch.rand(4, 1, 8, 8), torch.arange(4))], timesteps=2)
print([name for name in sys.modules if name.startswith("spikedistill.robustness")])
"""
    done = subprocess.run([sys.executable, "-c", body], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
