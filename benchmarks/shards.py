"""Files cut into shards that are small enough to carry, exactly, and joined again.

A shard is a line of JSON and behind it its part of the content. The line says what the whole is: its name, its files with their
sizes, the SHA-256 of all of it, and which part this one is, with a SHA-256 of its own. So shards need no list beside them: a folder
with some of them says what is missing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spikedistill.files import LOCK, PARTIAL, parse_json, sha256, write_atomically

MIB = 2**20
SUFFIX = ".shard"
_LINE = 64 * 1024  # bytes that the line of JSON takes at most


@dataclass(frozen=True)
class Whole:
    """What shards are cut from.

    Attributes:
        name: a relative path: of a file, or of a folder in which `files` lie.
        files: the content of each, by its path below the name; of a single file that path is empty.
    """

    name: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, root: Path, name: str) -> "Whole":
        """The file or folder `root / name`; what a killed process left, and checkpoints before the last, stay behind.

        Raises:
            FileNotFoundError: where there is none.
        """
        path = root / name
        if path.is_file():
            return cls(name, {"": path.read_bytes()})
        if not path.is_dir():
            raise FileNotFoundError(f"{path} does not exist: expected a file, or the folder of a run")
        kept = (file for file in sorted(path.rglob("*")) if file.is_file() and not _is_left_out(file))
        return cls(name, {file.relative_to(path).as_posix(): file.read_bytes() for file in kept})

    @property
    def content(self) -> bytes:
        return b"".join(self.files.values())

    def shards(self, mib: float = 16) -> dict[str, bytes]:
        """Shards of at most so many MiB each, by file name: letters, digits, ".", "_" and "-" only.

        Raises:
            ValueError: where a shard of that size has no room for anything.
        """
        content, room = self.content, int(mib * MIB) - _LINE
        if room <= 0:
            raise ValueError(f"a shard of {mib:g} MiB is too small: expected at least 0.1")
        cuts = [content[start : start + room] for start in range(0, len(content), room)] or [b""]
        digest = sha256(content)
        described = {
            "whole": self.name,
            "files": [[name, len(part)] for name, part in self.files.items()],
            "sha256": digest,
            "parts": len(cuts),
        }
        plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in self.name)[-80:]
        found = {}
        for number, cut in enumerate(cuts, 1):
            line = json.dumps(described | {"part": number, "part_sha256": sha256(cut)}).encode() + b"\n"
            if len(line) > _LINE:
                raise ValueError(f"{self.name} has too many files for a shard: {len(self.files)}")
            place = f"{number:0{len(str(len(cuts)))}}of{len(cuts)}"  # in the order of names too
            found[f"{plain}-{digest[:8]}-{place}{SUFFIX}"] = line + cut
        return found

    def write(self, root: Path) -> Path:
        """Write the files below a folder, each whole or not at all; where they lie."""
        for name, content in self.files.items():
            write_atomically(root / self.name / name if name else root / self.name, content)
        return root / self.name


def join(shards: Iterable[Path]) -> list[Whole]:
    """What shards were cut from, each whole once, by name.

    Raises:
        ValueError: naming the file where one is damaged, and the whole where some of its shards are missing.
    """
    parts: dict[str, dict[int, bytes]] = {}
    described: dict[str, dict[str, Any]] = {}
    for path in sorted(shards):
        found, content = _read(path)
        digest = found["sha256"]
        if {**found, "part": 0, "part_sha256": ""} != {
            **described.setdefault(digest, found),
            "part": 0,
            "part_sha256": "",
        }:
            raise ValueError(f"{path} does not belong to the shards of {described[digest]['whole']}: copy it again")
        parts.setdefault(digest, {})[found["part"]] = content
    wholes = []
    for digest, of_one in parts.items():
        about = described[digest]
        missing = [number for number in range(1, about["parts"] + 1) if number not in of_one]
        if missing:
            numbers = ", ".join(map(str, missing))
            raise ValueError(f"{about['whole']}: shard {numbers} of {about['parts']} is missing: bring all of them")
        content = b"".join(of_one[number] for number in sorted(of_one))
        if sha256(content) != digest or sum(size for _, size in about["files"]) != len(content):
            raise ValueError(
                f"the shards of {about['whole']} are damaged: their checksum does not fit; copy them again"
            )
        files, start = {}, 0
        for name, size in about["files"]:
            files[name] = content[start : start + size]
            start += size
        wholes.append(Whole(about["whole"], files))
    return sorted(wholes, key=lambda whole: whole.name)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """What a shard says of itself, and its part of the content, both checked."""
    line, _, content = path.read_bytes().partition(b"\n")
    about = parse_json(line[:_LINE].decode(errors="replace"), path)
    try:
        part, parts, files = about["part"], about["parts"], about["files"]
        right = 1 <= part <= parts and sha256(content) == about["part_sha256"] and isinstance(about["sha256"], str)
        names = [about["whole"], *(name or "." for name, size in files if size >= 0)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no shard ({type(error).__name__}: {error})") from None
    if not right or len(names) != len(files) + 1:
        raise ValueError(f"{path} is damaged: its checksum does not fit; copy it again")
    if wrong := [name for name in names if not _is_below(name)]:
        raise ValueError(f"{path} would write {wrong[0]!r}, which is outside of the folder: it is refused")
    return about, content


def _is_below(name: Any) -> bool:
    """Whether a name is a plain relative path."""
    if not isinstance(name, str):
        return False
    path = PurePosixPath(name)
    return name != "" and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _is_left_out(file: Path) -> bool:
    """Whether a run goes on without it: a lock, what is half written, and the checkpoint before the last."""
    return (
        file.name in (LOCK, "next.ckpt")
        or file.name.endswith(PARTIAL)
        or (file.name == "previous.ckpt" and file.with_name("last.ckpt").is_file())
    )


def write_shards(
    wholes: Iterable[Whole], to: Path, *, files: int, mib: float, each: float, known: set[str]
) -> list[str]:
    """Write shards that are not known yet into a folder, as many as fit, in the order of what they are cut from.

    Args:
        wholes: what to bring, the most important first.
        to: the folder.
        files: how many files may still be written there.
        mib: how many MiB.
        each: MiB of a shard, at most.
        known: names of the shards that were brought before.

    Returns:
        The names of those written.
    """
    written: list[str] = []
    for whole in wholes:
        for name, content in whole.shards(each).items():
            if name in known:
                continue
            if len(written) == files or mib * MIB < len(content):
                return written
            write_atomically(to / name, content)
            mib -= len(content) / MIB
            written.append(name)
    return written
