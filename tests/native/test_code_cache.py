"""The cache of compiled libraries: what is damaged is built anew, and what others may have put there is never executed.

A library of a few lines stands for the loops, because compiling those takes seconds. Processes load `code_cache.py` by itself,
without PyTorch, so that a crash of each shows as its exit code.
"""

import grp
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time

import pytest

from spikedistill.native import code_cache

COMPILER = os.environ.get("CXX") or "c++"
pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")

# Calls the library's function; `built` says that this process has built it, and files in `gates` hold that up.
PROCESS = """
import errno, importlib.util, logging, os, shutil, sys, time
from pathlib import Path

module, ready, gates, umask = sys.argv[1:]
gates = Path(gates) if gates else None
os.umask(int(umask, 8))
logging.basicConfig(format="%(message)s")
spec = importlib.util.spec_from_file_location("code_cache", module)
code_cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(code_cache)

def build(file):
    print("built", end=" ")
    if file.is_relative_to(os.environ.get("FULL", "/nowhere")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if gates:
        shutil.copyfile(ready, file.with_suffix(".half"))
        (gates / f"building-{os.getpid()}").touch()
        while not (gates / "go").exists():
            time.sleep(0.01)
    shutil.copyfile(ready, file)

print(code_cache.load_or_build("answer", build).answer())
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A library whose function `answer` returns 42."""
    return _compile(tmp_path_factory.mktemp("library") / "good.so", 'extern "C" int answer() { return 42; }')


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A library that leaves a file beside it, `executed`, when it is loaded from anywhere."""
    file = tmp_path_factory.mktemp("planted") / "planted.so"
    source = f"""
        #include <cstdio>
        __attribute__((constructor)) static void run() {{ std::fclose(std::fopen("{_executed(file)}", "w")); }}
        extern "C" int answer() {{ return 13; }}
    """
    return _compile(file, source)


def _executed(planted):
    return planted.with_name("executed")


def _compile(file, source):
    command = [*COMPILER.split(), "-shared", "-fPIC", "-x", "c++", "-", "-o", str(file)]
    subprocess.run(command, input=source, text=True, check=True)
    file.chmod(0o700)
    return file


@pytest.fixture
def cache(tmp_path):
    """Where the environment asks for the cache; nothing is there yet."""
    return tmp_path / "home" / "cache" / "spikedistill"


def start(library, cache, gates=None, umask=0o022, **environment):
    command = [sys.executable, "-c", PROCESS, code_cache.__file__, str(library), str(gates or ""), oct(umask)[2:]]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache.parent)} | environment
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outcome(process):
    """What a process printed, and its log; it has ended well."""
    output, log = process.communicate(timeout=60)
    assert process.returncode == 0, (process.returncode, log)
    return output.strip(), log.strip()


def run(*arguments, **environment):
    return outcome(start(*arguments, **environment))


def kept(cache):
    """The one library in the cache, which holds nothing else."""
    (file,) = cache.iterdir()
    return file


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_one_process_built_the_next_one_loads(library, cache):
    assert run(library, cache) == ("built 42", "")
    assert run(library, cache) == ("42", "")
    assert kept(cache).name == f"answer-{_sha256(library.read_bytes())}.so"
    assert kept(cache).read_bytes() == library.read_bytes()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_damaged_library_is_built_anew(library, cache):
    """Most of the truncated ones end the process that loads them: SIGBUS."""
    run(library, cache)
    file, whole = kept(cache), library.read_bytes()
    size = len(whole)
    flipped = bytearray(whole)
    flipped[size // 2] ^= 1
    for content in (
        *(whole[:length] for length in (0, 1, 64, size // 4, size // 2, 3 * size // 4, size - 1)),
        bytes(flipped),
        whole + b"\0",
        bytes(size),
        b"not a library",
        whole[: size // 2] + bytes(size - size // 2),  # what a power failure leaves of a file
    ):
        file.write_bytes(content)
        assert run(library, cache) == ("built 42", "")
        assert kept(cache).read_bytes() == whole


def test_a_planted_library_without_its_digest_is_never_loaded(library, cache, planted):
    run(library, cache)
    file = kept(cache)
    digest = file.stem.removeprefix("answer-")
    for name in ("answer.so", "answer-.so", "answer-None.so", f"answer-{'0' * 64}.so", f"answer-{digest}.so"):
        file.unlink(missing_ok=True)
        shutil.copy(planted, cache / name)
        assert run(library, cache)[0] == "built 42"
        (cache / "answer.so").unlink(missing_ok=True)  # whose name no library has
        assert kept(cache) == file
    assert not _executed(planted).exists()


def plant(folder, planted):
    """Put a library with its right digest there, as somebody who reads this file can."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    file = folder / f"answer-{_sha256(planted.read_bytes())}.so"
    shutil.copy(planted, file)
    file.chmod(0o700)
    return file


def test_this_users_own_folder_is_the_only_one_to_load_from(library, cache, planted):
    """What the next test refuses is loaded where nothing is wrong with the folder."""
    plant(cache, planted)
    assert run(library, cache) == ("13", "")
    _executed(planted).unlink()


def folder_of_all(cache, planted):
    plant(cache, planted)
    cache.chmod(0o777)


def folder_of_a_group(cache, planted):
    plant(cache, planted)
    cache.chmod(0o770)


def folder_below_one_of_all(cache, planted):
    plant(cache, planted)
    cache.parent.chmod(0o777)


def folder_far_below_one_of_all(cache, planted):
    plant(cache, planted)
    cache.parent.parent.chmod(0o777)


def link_to_another_folder(cache, planted):
    plant(cache.with_name("elsewhere"), planted)
    cache.symlink_to("elsewhere")


def link_to_a_folder_of_all(cache, planted):
    """A link above, which a user may have made; what it leads to counts."""
    plant(cache, planted)
    cache.parent.rename(cache.parent.with_name("elsewhere")).chmod(0o777)
    cache.parent.symlink_to("elsewhere")


def folder_of_another_user(cache, planted):
    plant(cache, planted)
    _give_away(cache)


def folder_below_that_of_another_user(cache, planted):
    plant(cache, planted)
    _give_away(cache.parent)


def no_folder(cache, planted):
    cache.parent.mkdir(parents=True)
    cache.touch()


def _give_away(path):
    if os.geteuid():
        pytest.skip("only an administrator can give a file away")
    os.chown(path, 12345, 12345)


WRITE, OTHER, NO_FOLDER = "other users can write in", "belongs to another user", "is no folder"


@pytest.mark.parametrize(
    ("plant_there", "why"),
    [
        (folder_of_all, WRITE),
        (folder_of_a_group, WRITE),
        (folder_below_one_of_all, WRITE),
        (folder_far_below_one_of_all, WRITE),
        (link_to_another_folder, NO_FOLDER),
        (link_to_a_folder_of_all, WRITE),
        (folder_of_another_user, OTHER),
        (folder_below_that_of_another_user, OTHER),
        (no_folder, NO_FOLDER),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_others_can_write_is_not_used(plant_there, why, library, cache, planted, tmp_path):
    """One log line says why, and the library is built in a temporary folder, which is gone afterwards."""
    plant_there(cache, planted)
    before = sorted(cache.parent.rglob("*"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    answer, log = run(library, cache, TMPDIR=str(temporary))
    assert answer == "built 42"
    assert len(log.splitlines()) == 1
    assert why in log
    assert "XDG_CACHE_HOME may name another folder" in log
    assert not _executed(planted).exists()
    assert not [*temporary.iterdir()]
    assert sorted(cache.parent.rglob("*")) == before


def test_a_library_that_others_can_write_is_not_loaded(library, cache, planted):
    """In a folder that they can only read."""
    file = plant(cache, planted)
    cache.chmod(0o755)
    file.chmod(0o722)
    assert run(library, cache) == ("built 42", "")
    kept(cache).unlink()
    (cache / file.name).symlink_to(planted)
    assert run(library, cache) == ("built 42", "")
    kept(cache).unlink()
    os.mkfifo(cache / file.name, 0o600)  # which nobody writes: whoever opens it waits
    assert run(library, cache) == ("built 42", "")
    if os.geteuid() == 0:
        kept(cache).unlink()
        _give_away(plant(cache, planted))
        assert run(library, cache) == ("built 42", "")
    assert not _executed(planted).exists()


def test_a_group_without_other_members_is_nobody_else(tmp_path):
    """As many systems have one for each user, with a umask of 002; such a folder may stand above, or be PyTorch's."""
    above, user = tmp_path / "above", pwd.getpwuid(os.geteuid())
    folder = code_cache.private_folder(above / "folder")
    above.chmod(0o770)
    groups = {"own": user.pw_gid} | ({"of others": 12345} if os.geteuid() == 0 else {})
    for gid in groups.values():
        os.chown(above, -1, gid)
        group = [known for known in grp.getgrall() if known.gr_gid == gid]
        if [(known.gr_name, set(known.gr_mem) - {user.pw_name}) for known in group] == [(user.pw_name, set())]:
            assert code_cache.private_folder(folder) == folder
            assert code_cache.private_folder(above, own_group=True) == above
            with pytest.raises(PermissionError, match="other users can write"):
                code_cache.private_folder(above)
        else:
            for where, own_group in ((folder, False), (folder, True), (above, True)):
                with pytest.raises(PermissionError, match=f"other users can write in {above} \\(mode 0770\\)"):
                    code_cache.private_folder(where, own_group=own_group)


def test_without_any_safe_folder_nothing_is_built(library, cache, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    folder_of_all(cache, library)
    process = start(library, cache, TMPDIR=str(temporary))
    assert f"PermissionError: other users can write in {temporary} (mode 0777)" in process.communicate(timeout=60)[1]


@pytest.mark.parametrize("umask", [0, 0o277])
def test_the_folder_is_this_users_whatever_the_umask(umask, library, cache):
    """And so are those above it that were missing; one that is sticky, as /tmp, may be all users'."""
    cache.parent.parent.mkdir()
    cache.parent.parent.chmod(0o1777)
    assert run(library, cache, umask=umask) == ("built 42", "")
    assert run(library, cache) == ("42", "")
    assert [path.stat().st_mode & 0o777 for path in (cache.parent, cache, kept(cache))] == [0o700] * 3


def test_a_link_above_the_folder_may_lead_to_one_of_this_users(library, cache, tmp_path):
    (tmp_path / "disk").mkdir(mode=0o700)
    cache.parent.parent.symlink_to("disk")
    assert run(library, cache) == ("built 42", "")
    assert run(library, cache) == ("42", "")
    assert kept(tmp_path / "disk" / "cache" / "spikedistill")


def test_processes_that_build_the_same_at_once_and_one_that_is_killed(library, cache, tmp_path):
    """The others finish and are right. What the killed one left is cleared by the next that builds, and nothing of the living."""
    gates = tmp_path / "gates"
    gates.mkdir()
    killed, living, other = (start(library, cache, gates) for _ in range(3))
    wait_for(lambda: len([*gates.iterdir()]) == 3)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    assert len([*cache.iterdir()]) == 3
    assert run(library, cache) == ("built 42", "")
    names = [path.name for path in cache.iterdir()]
    assert len([name for name in names if name.startswith(code_cache.BUILDING)]) == 2
    assert run(library, cache) == ("42", "")
    (gates / "go").touch()
    assert outcome(living) == outcome(other) == ("built 42", "")
    assert run(library, cache) == ("42", "")
    assert kept(cache).read_bytes() == library.read_bytes()


def test_what_killed_processes_left_without_a_lock_is_cleared_after_an_hour(library, cache, tmp_path):
    """On a file system without locks."""
    cache.mkdir(parents=True, mode=0o700)
    hour = time.time() - 3700
    name = f"{code_cache.BUILDING}abcdefgh"
    for age in ("new", "old"):
        (cache / f"{name}{age}").mkdir()
        (cache / f"{name}{age}" / "loops.o").touch()
        if age == "old":
            os.utime(cache / f"{name}{age}", (hour, hour))
    theirs = cache / "notes"
    theirs.mkdir()
    os.utime(theirs, (hour, hour))
    assert run(library, cache) == ("built 42", "")
    left = sorted(path.name for path in cache.iterdir() if path.suffix != ".so")
    assert left == [f"{name}new", "notes"]


def test_kills_at_any_moment_leave_a_cache_that_works(library, cache):
    for milliseconds in range(20, 180, 20):
        process = start(library, cache)
        time.sleep(milliseconds / 1000)
        process.kill()
        process.communicate()
    assert run(library, cache)[0] in ("42", "built 42")
    for file in cache.glob("*.so"):
        file.unlink()
    for folder in cache.glob(f"{code_cache.BUILDING}*"):  # killed before it was locked, which takes an hour to notice
        os.utime(folder, (time.time() - 3700,) * 2)
    assert run(library, cache) == ("built 42", "")
    assert kept(cache).read_bytes() == library.read_bytes()


def test_where_nothing_can_be_kept_it_is_built_in_a_temporary_folder(library, cache):
    """Because the disk is full, for instance."""
    answer, log = run(library, cache, FULL=str(cache))
    assert answer == "built built 42"
    assert log == (
        "compiled loops are not kept for the next process: [Errno 28] No space left on device; "
        "XDG_CACHE_HOME may name another folder"
    )
    assert not [*cache.iterdir()]
