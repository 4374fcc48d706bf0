"""However a command ends, an exit code and a sentence comes of it.

What is expected prints `imgpipe: ...` with the next step and no traceback. Anything else is a bug: it keeps its
traceback, and says that what was paid is safe.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
from click.exceptions import Exit as ClickExit

from pipeline import __version__
from pipeline.errors import Exit, ImgpipeError

OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})
BUG: Final = (
    f"This is a bug in imgpipe {__version__}; the traceback says where. Nothing that was paid is lost: every request"
    " is in the ledger of the state directory, and the same command continues from there."
)


def exit_code(command: Callable[[], Any], args: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever it raises is told on stderr."""
    try:
        _make_printable()
        _check_text(args)
        return int(command() or 0)
    except ClickExit as stop:
        return int(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        _show_usage(error)
        return Exit.USAGE
    except ImgpipeError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of stdout has left: `imgpipe status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        if error.filename is None and error.errno not in OF_THE_DISK:
            return _bug()
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _say(f"{where}{error.strerror}; mend that, then run the same command")
        return Exit.STORAGE
    except Exception:  # seen by the person at the terminal, with its traceback
        return _bug()


def _make_printable() -> None:
    """Let names be printed that are no text in this locale, as the bytes they are or as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 and stream is sys.stdout else "backslashreplace")


def _check_text(args: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, unless they name a file: names are bytes, everything else is text."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(arg):
                shown = arg.encode("utf-8", "backslashreplace").decode()
                raise click.UsageError(f"the argument {shown} is not UTF-8; write it in UTF-8") from None


def _show_usage(error: click.ClickException) -> None:
    """Tell a mistake in the command itself, below the form it should have."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), file=sys.stderr, color=context.color)
        print(f"Try '{context.command_path} --help'.\n", file=sys.stderr)
    _say(error.format_message())


def _say(text: str) -> None:
    from pipeline.report.foreign import visible

    print("imgpipe: " + "\n".join(map(visible, text.splitlines())), file=sys.stderr)


def _bug() -> int:
    import traceback

    traceback.print_exc()
    print(f"imgpipe: {BUG}", file=sys.stderr)
    return Exit.BUG
