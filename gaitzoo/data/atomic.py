"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_files"]


@contextmanager
def whole_files(path: str | Path) -> Iterator[Path]:
    """Lets a file, and what is written beside it, appear when all of it is there or not at all.

    An error inside the block leaves what was there before. Several files are renamed one by one,
    those beside ``path`` first, because it may name them: a process that is killed in between can
    leave new ones beside the old file.

    Args:
        path: The file; replaced if there. Its folder exists.

    Yields:
        A path of the same name to write to, in a folder beside it that goes away.

    Raises:
        ValueError: If ``path`` is a device, pipe or folder, which a file would take the place of.
        OSError: If the folder does not exist or nothing can be written there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_files(folder / "note.txt") as unfinished:
        ...     _ = unfinished.write_text("done")
        >>> [made.name for made in folder.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(
            f"expected the name of a file to write, got {path}, which is a "
            f"{'folder' if path.is_dir() else 'device or pipe'}; name a file"
        )
    # A folder of this writer's own: two processes may write the same file at once.
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
    ) as folder:
        unfinished = Path(folder) / path.name
        # Some libraries make files that nobody else may read; these get the rights of any new file.
        unfinished.touch()
        mode = unfinished.stat().st_mode
        unfinished.unlink()
        yield unfinished
        for made in sorted(Path(folder).iterdir(), key=lambda made: made == unfinished):
            made.chmod(mode)
            with made.open("rb+") as file:
                # On the disk before it gets its name, or a crash could leave an empty file.
                os.fsync(file.fileno())
            os.replace(made, path.parent / made.name)
