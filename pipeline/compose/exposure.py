"""What other people on this machine could read or put in our way.

In: the places of a manifest. Out: one sentence each, for `run`, `plan` and `doctor`; nothing is refused, because on a
machine of one's own nothing is wrong with it.
"""

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.provider.address import is_loopback, own_address
from pipeline.settings import KEY_NAMES, ProviderSettings


def of_key(folder: Path) -> str | None:
    """Say who else can read the `.env` beside the manifest, or whose it is; None when all is well or there is none."""
    path = folder / ".env"
    status = _status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    if status.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user, who may change the key; make one of your own"
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"others on this machine can read the key in {path}; write: chmod 600 {path}"
    return None


def of_host(provider: ProviderSettings) -> str | None:
    """Say which key goes to a host that is not the kind's own; None when it is, or this machine."""
    if provider.base_url is None:
        return None
    host, own = (urlsplit(url).hostname or "" for url in (provider.base_url, own_address(provider.kind)))
    if host == own or is_loopback(host):
        return None
    names = (provider.api_key_env,) if provider.api_key_env else KEY_NAMES[provider.kind]
    return f"the key in {' or '.join(names)} goes to {host}, which is not {own}"


def of_folder(folder: Path) -> str | None:
    """Say that everybody may put files where images land; None when all is well or it is not there yet."""
    status = _status(folder)
    if status is None or not status.st_mode & stat.S_IWOTH or status.st_mode & stat.S_ISVTX:
        return None
    return f"everybody on this machine can write to {folder}; write: chmod o-w {folder}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # what it means is said by whoever needs the file
        return None
