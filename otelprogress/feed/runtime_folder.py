"""The folder of the runtime files, and a file that is announced before there is anything to write into it.

Apart from `runtime_file`, because a program that wants to start another one at once cannot wait for what that imports.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otelprogress.exceptions import InvalidValue

SUFFIX: Final = ".json"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077

_announced: Path | None = None


def runtime_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the runtime files of this user are; the folder need not exist yet."""
    if given := environ.get("OTELPROGRESS_RUNTIME_DIR"):
        return Path(given)
    if session := environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "otelprogress"
    import tempfile

    return Path(tempfile.gettempdir()) / f"otelprogress-{os.geteuid()}"


def ensure_private_folder(folder: Path) -> Path:
    """Make the folder with mode 0700, or check that it is this user's alone.

    The mode of an existing folder is never changed: it may be one that others are meant to use.

    Raises:
        InvalidValue: it is a symbolic link or no folder, belongs to someone else, or lets others in.
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_FOLDER_MODE, parents=True)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise InvalidValue(
            f"{folder} must be a folder, not a link or a file: set OTELPROGRESS_RUNTIME_DIR to another"
        )
    if found.st_uid != os.geteuid():
        raise InvalidValue(
            f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}: set OTELPROGRESS_RUNTIME_DIR to another",
        )
    if found.st_mode & _OTHERS:
        raise InvalidValue(
            f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}, others could read tokens: `chmod 700` it, or set "
            "OTELPROGRESS_RUNTIME_DIR to another",
        )
    return folder


def announce() -> Path | None:
    """Say where this process will write its runtime file, so that a child that is started before can be told.

    The file is there at once, empty: who reads it waits (`runtime_file.read_announced`). The next
    `runtime_file.write` of this process fills it; `withdraw` takes back what was not filled.

    Returns:
        Its path; `None`: it cannot be written, or the folder is not private.
    """
    global _announced
    try:
        folder = ensure_private_folder(runtime_folder())
        path = folder / f"{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE))
    except (OSError, InvalidValue):
        return None
    _announced = path
    return path


def take_announced(folder: Path) -> Path | None:
    """What was announced in that folder, for the one who fills it now; `None`: nothing."""
    global _announced
    path = _announced
    if path is None or path.parent != folder:
        return None
    _announced = None
    return path


def withdraw() -> None:
    """Take away what was announced and not filled: who waits for it goes on without."""
    global _announced
    path, _announced = _announced, None
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
