"""The file of a long study: a line of JSON for each part that is done, with which another machine can go on."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .results import commit, machine, versions


class StudyFile:
    """What a study has found so far, and the way to add to it.

    A line `session` says where and with which code the lines after it were found, which are of the kind `run`.

    Args:
        path: the file.
        plan: all that the outcome depends on, as numbers, texts and lists.
        command: what is run.

    Attributes:
        runs: what was found, in that order.
        sessions: the calls that found it.

    Raises:
        ValueError: if the file holds a study with another plan.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], command: str) -> None:
        self.path, self._command = path, command
        self.plan = json.loads(json.dumps(plan))
        self._continues = False
        self.sessions: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        if path.is_file():
            found = read(path)
            if found["plan"] != self.plan:
                raise ValueError(f"{path} holds a study of {found['plan']}, this is {self.plan}: choose another --out")
            self.sessions, self.runs = found["sessions"], found["runs"]

    def add(self, run: Mapping[str, Any]) -> None:
        """Write what was found."""
        if not self._continues:
            about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": self._command}
            begun = datetime.now(UTC).isoformat(timespec="seconds")
            self.sessions.append(about | {"begun": begun, "plan": self.plan})
            self._append("session", self.sessions[-1])
            self._continues = True
        self.runs.append(dict(run))
        self._append("run", run)

    def _append(self, record: str, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"record": record, **line}) + "\n")


def read(path: Path) -> dict[str, Any]:
    """`{plan, sessions: [{machine, versions, commit, dirty, command, begun}], runs: [...]}` of a file that is not empty."""
    found: dict[str, list[dict[str, Any]]] = {"session": [], "run": []}
    for line in map(json.loads, path.read_text().splitlines()):
        found[line.pop("record")].append(line)
    return {"plan": found["session"][0]["plan"], "sessions": found["session"], "runs": found["run"]}
