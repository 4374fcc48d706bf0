"""One spender per state directory (P7)."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import InputError, StorageError, TryLater
from pipeline.store import lock as lock_module
from pipeline.store.lock import StateLock
from tests.test_startup import imported

HOLDER = """
import sys
from pathlib import Path
from pipeline.store.lock import StateLock
from pipeline.errors import TryLater
try:
    lock = StateLock(Path(sys.argv[1]), wait_s=float(sys.argv[2]))
    lock.acquire()
except TryLater:
    print("later", flush=True)
    sys.exit(75)
print("held", flush=True)
sys.stdin.read()
"""


def holder(state: Path, wait_s: float = 0) -> "subprocess.Popen[str]":
    """Start a process that takes the lock and keeps it until its stdin ends."""
    command = [sys.executable, "-c", HOLDER, str(state), str(wait_s)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def word(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: "subprocess.Popen[str]") -> int:
    process.communicate("", timeout=10)
    return process.returncode


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "a" / "state"


def test_second_holder_is_told_to_try_later(state: Path) -> None:
    with StateLock(state), pytest.raises(TryLater, match="another run is using"):
        StateLock(state).acquire()
    with StateLock(state) as lock:
        assert lock.is_held


def test_state_directory_is_private(state: Path) -> None:
    with StateLock(state):
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "lock").stat().st_mode & 0o777 == 0o600


def test_r23_of_many_started_together_one_gets_it(state: Path) -> None:
    processes = [holder(state) for _ in range(8)]
    words = [word(process) for process in processes]
    codes = [finish(process) for process in processes]
    assert sorted(words) == ["held"] + ["later"] * 7
    assert sorted(codes) == [0] + [75] * 7


def test_r24_removing_the_lock_file_lets_nobody_in(state: Path) -> None:
    with StateLock(state):
        (state / "lock").unlink()
        with pytest.raises(TryLater):
            StateLock(state).acquire()
        (state / "lock").write_text("")
        with pytest.raises(TryLater):
            StateLock(state).acquire()


@pytest.mark.parametrize("moment", [1, 2], ids=["after-the-file", "after-the-directory"])
def test_r24_of_a_directory_exchanged_meanwhile_the_new_one_is_locked(
    state: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    original, locked = lock_module._flock, []

    def exchange(fd: int, deadline: float) -> None:
        original(fd, deadline)
        locked.append(fd)
        if len(locked) == moment:
            state.rename(state.with_name("old"))
            state.mkdir()

    monkeypatch.setattr(lock_module, "_flock", exchange)
    with StateLock(state) as lock:
        assert lock.is_standing
        with pytest.raises(TryLater):
            StateLock(state).acquire()


def test_directories_made_for_nothing_go_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with StateLock(tmp_path / "out" / "deep" / "state"):
        assert (tmp_path / "out" / "deep" / "state" / "lock").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_directories_that_hold_something_stay(state: Path) -> None:
    with StateLock(state):
        (state / "ledger.sqlite").write_text("precious")
    assert sorted(path.name for path in state.iterdir()) == ["ledger.sqlite", "lock"]


def test_r24_a_lock_whose_directory_was_removed_stands_no_more_and_removes_nothing(state: Path) -> None:
    first = StateLock(state)
    first.acquire()
    shutil.rmtree(state)
    assert not first.is_standing
    with StateLock(state) as second:
        first.release()
        assert second.is_standing
        with pytest.raises(TryLater):
            StateLock(state).acquire()


def test_a_parent_that_vanishes_while_the_directory_is_made_is_made_again(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run ends, and removes what it had made for nothing."""
    original, made = Path.mkdir, []

    def mkdir(path: Path, *args: object, **options: object) -> None:
        made.append(path)
        if len(made) == 2:
            state.parent.rmdir()
        original(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with StateLock(state) as lock:
        assert lock.is_standing


def test_a_directory_that_was_there_stays(state: Path) -> None:
    state.mkdir(parents=True)
    with StateLock(state):
        pass
    assert (state / "lock").exists()


def test_r25_lock_dies_with_its_process(state: Path) -> None:
    process = holder(state)
    assert word(process) == "held"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    with StateLock(state) as lock:
        assert lock.is_held


def test_r25_a_child_that_execs_does_not_inherit_it(state: Path) -> None:
    lock = StateLock(state)
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    lock.release()
    with StateLock(state) as again:
        assert again.is_held
    child.communicate(b"", timeout=10)


def test_r25_a_forked_child_lets_go_of_its_copy(state: Path) -> None:
    """The owner dies, a worker of its process pool lives on: the lock is free."""
    script = f"""
import os, sys
from pathlib import Path
from pipeline.store.lock import StateLock
lock = StateLock(Path({str(state)!r}))
lock.acquire()
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert word(process) == "forked"
    process.kill()
    with StateLock(state, wait_s=5) as lock:
        assert lock.is_held
    process.communicate("", timeout=10)


def test_waiting_gets_it_when_the_other_ends(state: Path) -> None:
    first = StateLock(state)
    first.acquire()
    threading.Timer(0.05, first.release).start()
    with StateLock(state, wait_s=10) as second:
        assert second.is_held


def test_waiting_ends(state: Path) -> None:
    with StateLock(state):
        before = time.monotonic()
        with pytest.raises(TryLater):
            StateLock(state, wait_s=0.05).acquire()
        assert time.monotonic() - before < 1


def test_release_twice_is_harmless(state: Path) -> None:
    lock = StateLock(state)
    lock.acquire()
    lock.release()
    lock.release()
    assert not lock.is_held


def test_lock_that_is_a_symbolic_link_is_refused(state: Path) -> None:
    state.mkdir(parents=True)
    target = state.parent / "precious"
    target.write_text("precious")
    (state / "lock").symlink_to(target)
    with pytest.raises(StorageError, match="cannot be locked"):
        StateLock(state).acquire()
    assert target.read_text() == "precious"


def test_file_system_without_locks_is_named_with_what_helps(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_none(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", has_none)
    with pytest.raises(InputError, match="a file system without locks; name a local `state_dir`"):
        StateLock(state).acquire()


def test_state_directory_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        StateLock(tmp_path / "file" / "state").acquire()


def test_a_place_where_nothing_can_be_made_is_no_other_run() -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        StateLock(Path("/proc/nothing/state")).acquire()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=["D05-EACCES", "D05-EROFS"])
def test_a_lock_that_may_not_be_written_is_an_input_error_that_names_its_owner(
    state: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def not_ours(_fd: int, _deadline: float) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module, "_flock", not_ours)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(
        InputError, match=rf"lock cannot be written: .*belongs to user {os.getuid()}, this is user 12345"
    ):
        StateLock(state).acquire()


def test_the_owner_of_a_folder_that_cannot_be_entered_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the state directory that a run under sudo has made: nobody else may look at its files."""
    look = Path.stat

    def closed(path: Path, **how: bool) -> os.stat_result:
        if path.parent == state:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **how)

    state.mkdir(parents=True)
    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    error = lock_module.unusable(state / "lock", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert f"({state} belongs to user {os.getuid()}, this is user 12345)" in str(error)


def test_a_dead_disk_does_not_hide_how_a_run_ended(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    lock = StateLock(state)
    lock.acquire()
    close = os.close
    with monkeypatch.context() as patch:
        patch.setattr("os.path.samestat", stale)
        patch.setattr("os.close", lambda fd: close(fd) or stale())
        lock.release()
    assert not lock.is_held


def test_a_lock_is_looked_at_without_sqlite_and_its_statements() -> None:
    assert not imported("import pipeline.app.locking, pipeline.cli.run") & {"sqlite3", "pipeline.store.ledger_file"}
