"""Reads the bytes or the text of plain files within a size limit; anything else is a problem with its place.

Files are opened without blocking, so that a pipe or a device cannot hang the reader; where secrets are kept they are
refused.
"""

import codecs
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError, Problem

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# C0 controls, DEL and the characters YAML 1.1 readers take for line ends, which editors do not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029\ufffe\uffff]")
_SYSTEM_FOLDERS = (
    "/proc/", "/sys/", "/dev/", "/run/secrets/", "/run/credentials/", "/var/run/secrets/", "/etc/shadow",
    "/etc/gshadow", "/etc/sudoers", "/etc/ssl/private/", "/etc/kubernetes/",
)  # fmt: skip
_SECRET_FOLDERS = frozenset((
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", "gcloud", ".password-store", ".git", ".terraform.d",
    "keyrings",
))  # fmt: skip
_SECRET_NAMES = (
    ".env", ".netrc", "_netrc", ".pgpass", ".git-credentials", ".npmrc", ".pypirc", ".htpasswd", ".my.cnf",
    ".vault-token", ".s3cfg", ".boto", ".bash_history", ".zsh_history", ".psql_history", "id_rsa", "id_dsa",
    "id_ecdsa", "id_ed25519", "application_default_credentials", "credentials.toml", "credentials.json",
    "kubeconfig", "rclone.conf",
)  # fmt: skip
_SECRET_SUFFIXES = (".pem", ".p12", ".pfx", ".key", ".kdbx", ".keystore", ".jks")
_OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def kind_of(mode: int) -> str | None:
    """Name what `st_mode` says when it is not a regular file; None when it is one."""
    if stat.S_ISREG(mode):
        return None
    return next((name for matches, name in _KINDS if matches(mode)), "not a regular file")


def secret_reason(path: str, *, real_folder: Callable[[str], str] = os.path.realpath) -> str | None:
    """Say why a file is refused: it is where systems and tools keep secrets, also through a symlink. None: it is not.

    A manifest may be a stranger's, and what it reads goes into prompts, reports and messages. real_folder: resolves the
    file's folder; may remember it.
    """
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - names that are not UTF-8 stay strings
    real = os.path.join(real_folder(folder), name)  # noqa: PTH118
    if os.path.islink(real):  # noqa: PTH114
        real = os.path.realpath(real)
    parts = real.casefold().split("/")
    is_secret = (
        real.startswith(_SYSTEM_FOLDERS)
        or not _SECRET_FOLDERS.isdisjoint(parts[:-1])
        or parts[-3:-1] == [".config", "gh"]
        or any(part.startswith(_SECRET_NAMES) for part in (parts[-1], name.casefold()))
        or any(part.endswith(_SECRET_SUFFIXES) for part in (parts[-1], name.casefold()))
    )
    return "it may hold secrets: /proc, /sys, /dev, .env and the like are refused" if is_secret else None


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a regular file for reading, following symlinks. OSError with a plain text for anything else.

    So it is for where secrets are kept (`secret_reason`).
    """
    refused = secret_reason(str(path))
    if refused is not None:
        raise OSError(refused)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        kind = kind_of(os.fstat(descriptor).st_mode)
        if kind is not None:
            raise OSError(f"it is {kind}, not a file")
        return os.fdopen(descriptor, "rb")
    except BaseException:  # whoever it is for: the descriptor must not stay open
        os.close(descriptor)
        raise


def reason(error: OSError) -> str:
    """Say in lower case why the system refused, without repeating the path."""
    return (error.strerror or str(error)).lower()


def read_bytes(path: Path, *, max_bytes: int, too_big: str) -> bytes:
    """Return the whole file. InputError when it is missing, no regular file or over `max_bytes` (advice: `too_big`)."""
    file = str(path)
    try:
        with open_regular(path) as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise InputError(Problem(file=file, what="there is no such file", instead="check the path")) from None
    except OSError as error:
        raise InputError(Problem(file=file, what=f"cannot be read: {reason(error)}")) from None
    if len(data) > max_bytes:
        raise InputError(Problem(file=file, what=f"is larger than {max_bytes // 2**20} MB", instead=too_big))
    return data


def decode_utf8(data: bytes, *, file: str) -> str:
    """Return the text of UTF-8 bytes, with or without a byte-order mark. InputError with line and column otherwise."""
    for mark, name in _OTHER_ENCODINGS:
        if data.startswith(mark):
            raise InputError(Problem(file=file, line=1, column=1, what=f"is {name} text", instead="save it as UTF-8"))
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].removeprefix(codecs.BOM_UTF8).decode("utf-8")
        what = f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8 text"
        raise InputError(_problem(file, before, what, "save the file as UTF-8")) from None
    found = _FORBIDDEN.search(text)
    if found:
        offset = len(text[: found.start()].encode())
        what = f"the control character U+{ord(found.group()):04X} at byte {offset}"
        raise InputError(_problem(file, text[: found.start()], what, "delete it, or save the file as UTF-8"))
    return text


def _problem(file: str, before: str, what: str, instead: str) -> Problem:
    line = before.count("\n") + 1
    return Problem(file=file, line=line, column=len(before) - (before.rfind("\n") + 1) + 1, what=what, instead=instead)


class BadValue(Exception):  # noqa: N818 - becomes a Problem where the place is known
    """A value that cannot be used (an input image, a name, a variable), with advice."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead
