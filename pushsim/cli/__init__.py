"""The command line: one verb per public function. Parse, call, print, exit code; nothing else lives here."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from itertools import pairwise

#: What a process that SIGPIPE ends leaves behind in a shell: whoever read what we print has gone, and knows it.
_UNREAD = 128 + 13
#: What the place that is written to has no room for.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: Options that mean something when they are empty.
_MAY_BE_EMPTY = {"--namespace-prefix", "--title"}


def main(arguments: list[str] | None = None) -> None:
    """Run `pushsim`; exits with the contract's codes and never with a traceback, unless `--debug` asks for it."""
    from pushsim.cli.app import app
    from pushsim.doctor import extras_with
    from pushsim.errors import InputError, Problem, PushsimError

    if threading.current_thread() is threading.main_thread():
        # as Ctrl-C: nothing lost, nothing left running (its own handler stays: asyncio looks whether it is Python's)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stderr = sys.stderr or io.StringIO()  # if it is closed: what is said there is not for standard output
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        if (gap := _gap(given)) is not None:
            raise InputError(Problem("is empty", field=gap, remedy="is a shell variable unset? `.` is this folder"))
        code = app(given, standalone_mode=False)
        print(end="", flush=True)  # here, where what goes wrong with it can be told
    except PushsimError as error:
        if _interrupted(error):
            code = 130
        elif debug:
            raise
        else:
            _say(error.typed())
            code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        code = _let_go(_UNREAD)  # rich and click end so
    except BrokenPipeError:
        code = _let_go(_UNREAD)
    except Exception as error:
        # typer may carry a click of its own: its exceptions are told by what they offer, not by their class
        kind, show = type(error).__name__, getattr(error, "show", None)
        if show is not None:
            message = str(getattr(error, "message", ""))
            error.message = message.replace("Value error, ", "")  # type: ignore[attr-defined]  # pydantic's, not ours
            show()
            code = 2
        elif kind == "Exit":
            code = int(getattr(error, "exit_code", 0))
        elif kind == "Abort" or _interrupted(error):
            code = 130
        elif debug:
            raise
        elif isinstance(error, OSError) and error.errno in _FULL:
            code = _let_go(3)
            where = error.filename or "standard output"
            _say(f"{where}: cannot be written: {error.strerror} (make room, or write elsewhere)")
        elif isinstance(error, ModuleNotFoundError) and (extras := extras_with(str(error.name), "".join(given[:1]))):
            _say(f"no {error.name}: install {' or '.join(f'pushsim[{extra}]' for extra in extras)}")
            code = 3
        else:
            _say(f"a defect of pushsim: {kind}: {error} (run again with --debug and report it)")
            code = 4
    if code == 130:
        _say("interrupted")
    sys.exit(code or 0)


def _gap(given: list[str]) -> str | None:
    """The option (or what comes before the argument) whose value is empty: a path would then be this very folder."""
    for before, argument in pairwise(["", *given]):
        option, sign, value = argument.partition("=")
        empty = option if argument.startswith("--") and sign and not value else before if not argument else None
        if empty is not None and empty not in _MAY_BE_EMPTY:
            return empty or "the first argument"
    return None


def _interrupted(error: BaseException) -> bool:
    """It came of an interrupt: what a compiler that is interrupted leaves undone breaks what comes next."""
    chain: list[BaseException] = [error]
    for each in chain:
        chain += [e for e in (each.__cause__, each.__context__) if e is not None and not any(e is one for one in chain)]
    return any(isinstance(each, KeyboardInterrupt) for each in chain)


def _let_go(code: int) -> int:
    """What standard output still holds goes nowhere; without this, Python tells of it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"pushsim: {text}" if "\n" not in text else text, file=sys.stderr, flush=True)
