"""What is measured in a process of its own: the first step, with whatever is compiled for it, and the peak memory of the second.

Called as `python -m benchmarks.fresh JSON`; answers with one line of JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def measure_fresh(suite: str, contender: str, workload: Any, timesteps: int) -> dict[str, Any]:
    """The first step with an empty cache of compiled code, again with the cache that it left, and the peak memory.

    Returns:
        `peak_bytes`, `first_step_s`, and `first_step_warm_s`, which is None where nothing was compiled.
    """
    request = json.dumps([suite, contender, dataclasses.asdict(workload), timesteps])
    with tempfile.TemporaryDirectory() as cache:
        cold = _ask(request, cache)
        compiled = any(Path(cache).iterdir())
        warm = _ask(request, cache) if compiled else None
    return cold | {"first_step_warm_s": warm["first_step_s"] if warm else None}


def _ask(request: str, cache: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.fresh", request]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {answer.returncode}:\n{answer.stderr}")
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    suite_name, contender, options, timesteps = json.loads(sys.argv[1])
    from .contenders import SUITES
    from .memory import peak_bytes
    from .timing import seconds

    suite = SUITES[suite_name]
    workload = dataclasses.replace(suite.workload, **options)
    workload.prepare()
    step = suite.contenders[contender](workload, timesteps)
    first = seconds(step, workload.device)
    print(json.dumps({"first_step_s": first, "peak_bytes": peak_bytes(step, workload.device)}))


if __name__ == "__main__":
    main()
