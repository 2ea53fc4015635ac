"""A disk in memory that can lose power, fill up and fail: a SQLite VFS whose unsynced writes are not safe.

SQLite's shared memory is not simulated, so connections on it use exclusive locking (:meth:`SimulatedDisk.prepare`).
"""

# ruff: noqa: N802 - the methods of a VFS are named by SQLite

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

SECTOR: Final = 512


@dataclass
class Image:
    """One file: as programs see it, as it is on the platter, and the writes between the two."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list[tuple[int, bytes | None]])
    """(offset, data), or (size, None) for a truncation."""

    def write(self, offset: int, data: bytes) -> None:
        """Write, not synced."""
        _apply(self.seen, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        """Truncate, not synced."""
        _apply(self.seen, size, None)
        self.unsynced.append((size, None))

    def sync(self) -> None:
        """Make everything durable."""
        self.durable = bytearray(self.seen)
        self.unsynced.clear()

    def after_power_loss(self, chance: random.Random) -> bytes:
        """The file at the next start: each unsynced sector has landed or not, in any order."""
        left = bytearray(self.durable)
        for offset, data in self.unsynced:
            if data is None:
                if chance.random() < 0.5:
                    _apply(left, offset, None)
                continue
            at = 0
            while at < len(data):
                step = SECTOR - (offset + at) % SECTOR
                if chance.random() < 0.5:
                    _apply(left, offset + at, data[at : at + step])
                at += step
        return bytes(left)


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
        return
    image.extend(bytes(max(0, offset - len(image))))
    image[offset : offset + len(data)] = data


class SimulatedDisk(apsw.VFS):
    """Use as a context manager; give ``name`` to SQLite as its VFS.

    ``dies_after`` is the number of writes, truncations and syncs after which the power goes; ``room`` is
    how many bytes can still be written (``None``: any number); ``failing_syncs`` makes every sync report an error.
    """

    def __init__(self, *, dies_after: int | None = None, power_safe_overwrite: bool = True) -> None:
        self.name = f"simulated-{id(self)}"
        super().__init__(self.name, "")
        self.files: dict[str, Image] = {}
        self.dies_after = dies_after
        self.room: int | None = None
        self.failing_syncs = False
        self.syncs = 0
        self.dead = False
        self._power_safe_overwrite = power_safe_overwrite

    def __enter__(self) -> "SimulatedDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def prepare(self, *pragmas: str) -> Callable[[apsw.Connection], None]:
        """A connection hook that makes connections on this disk work, and runs ``pragmas``."""

        def hook(connection: apsw.Connection) -> None:
            if connection.open_vfs == self.name:
                for pragma in ("locking_mode = EXCLUSIVE", *pragmas):
                    connection.execute(f"PRAGMA {pragma}")

        return hook

    def save(self, directory: Path, chance: random.Random | None = None) -> None:
        """Write the files into ``directory``: as they are seen, or (with ``chance``) as a power loss leaves them."""
        directory.mkdir(parents=True, exist_ok=True)
        for path, image in self.files.items():
            content = bytes(image.seen) if chance is None else image.after_power_loss(chance)
            (directory / Path(path).name).write_bytes(content)

    def spend(self) -> None:
        """Count one operation on the platter; fail when the power is gone."""
        if self.dies_after is not None:
            self.dies_after -= 1
            self.dead = self.dead or self.dies_after < 0
        if self.dead:
            raise apsw.IOError("the power is gone")

    def take_room(self, size: int) -> None:
        """Fail when ``size`` more bytes do not fit."""
        if self.room is not None:
            if size > self.room:
                raise apsw.FullError("the disk is full")
            self.room -= size

    @property
    def characteristics(self) -> int:
        """What the disk promises, in SQLite's flags."""
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE if self._power_safe_overwrite else 0

    # SQLite's names from here on

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.files

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.spend()
        if self.files.pop(filename, None) is None:
            raise apsw.IOError("no such file")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if path not in self.files and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.CantOpenError(path)
        flags[1] = flags[0]
        return SimulatedFile(self, self.files.setdefault(path, Image()))  # type: ignore[return-value]  # duck-typed


class SimulatedFile:
    """What apsw asks of an open file."""

    def __init__(self, disk: SimulatedDisk, image: Image) -> None:
        self._disk = disk
        self._image = image

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._image.seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.take_room(len(data))
        self._image.write(offset, bytes(data))
        self._disk.spend()

    def xTruncate(self, newsize: int) -> None:
        self._image.truncate(newsize)
        self._disk.spend()

    def xSync(self, flags: int) -> None:
        self._disk.spend()
        if self._disk.failing_syncs:
            raise apsw.IOError("the sync failed")
        self._disk.syncs += 1
        self._image.sync()

    def xFileSize(self) -> int:
        return len(self._image.seen)

    def xClose(self) -> None:
        pass

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return self._disk.characteristics
