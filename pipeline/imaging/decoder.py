"""Decodes images in a limited child process: decoders are the part most easily attacked and overwhelmed.

The child calls one function of this package with the bytes of an image and hands back a media type and bytes. It has
limits of memory and of CPU time, writes no core dump, and its environment has no key and no other secret. Its answer is
a line of JSON and plain bytes: objects (pickles) of a process that was taken over would run its code here.
"""

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import IO, Final

MEMORY_BYTES: Final = 3 * 2**30
CPU_S: Final = 60.0  # of one picture, of CPU: a machine with other work gives the same result; 108 megapixels take 6
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
_PASSED_ON = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHONUTF8"})
_HEADER_BYTES = 64 * 1024
_REASON = 500  # characters


class DecoderError(Exception):
    """The function raised; `kind` is the name of its exception."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class DecoderDiedError(Exception):
    """The process ended: `has_crashed`, `has_exited` by itself (it is no Python), or a limit or the system ended it."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the decoder ended with {code}")
        self.has_crashed = code is not None and -code in _CRASHES
        self.has_exited = code is not None and code >= 0


class Decoder:
    """One child process, started by the first call and again after it died. One call at a time; `close` anywhere."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._calls = threading.Lock()
        self._starts = threading.Lock()  # no child is started that `close` would not see
        self._is_closed = False

    def call(self, function: Callable[..., tuple[str, bytes]], data: bytes, *arguments: object) -> tuple[str, bytes]:
        """Return what a function of a module returns there for `data` and `arguments`, which JSON can hold.

        Raises DecoderError, DecoderDiedError.
        """
        request = {"function": f"{function.__module__}:{function.__qualname__}", "arguments": arguments}
        with self._calls:
            try:
                return _exchange(self._running(), request, data)
            except (OSError, EOFError, ValueError) as error:
                raise DecoderDiedError(self._ended()) from error

    def close(self) -> None:
        """End the process, whatever it is doing; a call that is under way raises."""
        with self._starts:
            self._is_closed = True
            if self._child is not None:
                self._child.kill()
        with self._calls:
            self._ended()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starts:
            if self._is_closed:
                raise EOFError
            if self._child is None:
                self._child = subprocess.Popen(  # noqa: S603 - Python itself, with this module
                    [sys.executable, "-P", "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment(os.environ),
                )
            return self._child

    def _ended(self) -> int | None:
        """Let go of the child; return its exit code."""
        child, self._child = self._child, None
        if child is None:
            return None
        try:
            code = child.wait(1.0)  # its pipe breaks before it has ended
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of the environment a child gets: where to find modules, and no secret."""
    kept = {name: value for name, value in environ.items() if name in _PASSED_ON}
    return {**kept, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}  # noqa: PTH100


def _exchange(child: subprocess.Popen[bytes], request: Mapping[str, object], data: bytes) -> tuple[str, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    _write(child.stdin, {**request, "size": len(data)}, data)
    answer, made = _read(child.stdout)
    if "error" in answer:
        raise DecoderError(str(answer["error"]), str(answer.get("text", ""))[:_REASON])
    return str(answer["mime"]), made


def _write(pipe: IO[bytes], header: Mapping[str, object], data: bytes) -> None:
    pipe.write(json.dumps(header).encode() + b"\n")
    pipe.write(data)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[dict[str, object], bytes]:
    """Raises EOFError, ValueError."""
    line = pipe.readline(_HEADER_BYTES)
    header = json.loads(line) if line.endswith(b"\n") else None
    size = header.get("size") if isinstance(header, dict) else None
    if not isinstance(header, dict) or not isinstance(size, int) or not 0 <= size <= MEMORY_BYTES:
        raise EOFError
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return header, data


# --- in the child


def limit_process(memory_bytes: int = MEMORY_BYTES) -> None:
    """Set the limits of this process. Ctrl-C is its parent's affair, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # some systems do not limit address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _leave_with_parent() -> None:
    """End this process as soon as nobody holds the other end of its input."""
    poll = select.poll()
    poll.register(0, 0)  # a hang-up is always reported
    poll.poll()
    os._exit(1)


def answer_to(request: Mapping[str, object], data: bytes, *, cpu_s: float = CPU_S) -> tuple[dict[str, object], bytes]:
    """Call what is asked for; a picture that takes more than `cpu_s` ends the process."""
    module, _, name = str(request["function"]).partition(":")
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        mime, made = getattr(import_module(module), name)(data, *arguments)
    except MemoryError:
        return {"error": "OutOfMemoryError", "text": "it takes too much memory", "size": 0}, b""
    except Exception as error:  # decoders raise whatever they like; the caller says what it means
        return {"error": type(error).__name__, "text": str(error)[:_REASON], "size": 0}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {"mime": mime, "size": len(made)}, made


def _serve() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    limit_process()
    threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            header, made = answer_to(*_read(requests))
            _write(answers, header, made)
            del made


if __name__ == "__main__":
    _serve()
