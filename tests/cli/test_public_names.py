"""Everything public is found by import and by attribute alike, each way in a process that has imported nothing else."""

import json
import subprocess
import sys

ROOMS = [
    "neurons",
    "through_time",
    "models",
    "objectives",
    "data",
    "evaluation",
    "report",
    "training",
    "comparisons",
    "recipes",
]
ROOMS += ["errors"]

# Each prints the rooms' public names, and what each is.
BY_IMPORT = """
import importlib, json, sys
found = {}
for room in ROOMS:
    namespace = {}
    for name in importlib.import_module("spikedistill." + room).__all__:
        exec(f"from spikedistill.{room} import {name}", namespace)
        found[f"{room}.{name}"] = repr(type(namespace[name])) + getattr(namespace[name], "__qualname__", "")
print(json.dumps(found))
"""
BY_ATTRIBUTE = """
import json, sys
import spikedistill
unlisted = sorted(set(ROOMS) - set(dir(spikedistill)))
assert not unlisted, unlisted
assert not {"lightning", "sklearn", "plotly", "tyro", "pydantic"} & set(sys.modules), "slow to import"
found = {}
for room in ROOMS:
    for name in getattr(spikedistill, room).__all__:
        value = getattr(getattr(spikedistill, room), name)
        found[f"{room}.{name}"] = repr(type(value)) + getattr(value, "__qualname__", "")
for name in spikedistill.__all__:
    assert name in dir(spikedistill) and getattr(spikedistill, name) is not None
print(json.dumps(found))
"""


def test_every_public_name_is_reached_both_ways():
    processes = [
        subprocess.Popen([sys.executable, "-c", f"ROOMS = {ROOMS}\n{way}"], stdout=subprocess.PIPE, text=True)
        for way in (BY_IMPORT, BY_ATTRIBUTE)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    by_import, by_attribute = map(json.loads, said)
    assert by_import == by_attribute
    assert {name.partition(".")[0] for name in by_import} == set(ROOMS)
    assert {"evaluation.record", "through_time.Bptt", "errors.UserError", "training.train"} <= by_import.keys()
    assert not [name for name, kind in by_import.items() if kind.startswith("<class 'module'>")], (
        "a name that a file of the same name hides"
    )
