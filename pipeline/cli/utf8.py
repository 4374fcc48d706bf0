"""Names and prompts are UTF-8, whatever the locale says: an old server's cron may speak Latin-1 or nothing but ASCII.

Python takes C and POSIX for UTF-8 by itself; for every other locale the command is started again, once, in Python's
UTF-8 mode. Then a file gets the same name from a terminal and from cron.
"""

import os
import sys


def ensure() -> None:
    """Start this very command again in UTF-8 mode where file names would not be UTF-8; does not return then."""
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode:
        command = [sys.executable, "-P", "-X", "utf8", "-m", "pipeline", *sys.argv[1:]]
        os.execv(sys.executable, list(map(os.fsencode, command)))  # noqa: S606 - ourselves
