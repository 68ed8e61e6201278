"""The room stands alone: whoever has torch can use the objectives."""

import json
import subprocess
import sys

import spikedistill

# The package's own __init__ is left out, so that whatever is loaded was asked for by this room.
PROGRAM = """
import json, sys, types
import torch
package = types.ModuleType("spikedistill")
package.__path__ = [sys.argv[1]]
sys.modules["spikedistill"] = package
before = set(sys.modules)
import spikedistill.objectives
loaded = set(sys.modules) - before
outside = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"spikedistill", "torch"}
rooms = {name.split(".")[1] for name in loaded if name.startswith("spikedistill.")}
print(json.dumps([sorted(outside), sorted(rooms)]))
"""


def test_importing_the_objectives_loads_torch_and_the_standard_library_only():
    command = [sys.executable, "-c", PROGRAM, spikedistill.__path__[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outside, rooms = json.loads(done.stdout)
    assert outside == []
    assert rooms == ["errors", "objectives", "options", "registry"]
