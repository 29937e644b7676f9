"""Snapshots under their own names: one real file per artefact, so that a diff reads as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syrupy.data import Snapshot, SnapshotCollection
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

TESTS = Path(__file__).parent


class Files(SingleFileSnapshotExtension):
    """A folder per test parameter; ``snapshot(name=path)`` is the file at that path below it.

    Subclasses say where the folders are and which of the files in there are snapshots.
    """

    _write_mode = WriteMode.TEXT
    file_extension = ""
    root: Path
    test: str
    """Name of the test function: syrupy tells by it to whom a file belongs."""

    @classmethod
    def dirname(cls, *, test_location: Any) -> str:
        return str(cls.root / parameter(test_location))

    @classmethod
    def discovery_dirname(cls, *, test_location: Any) -> str:
        return cls.dirname(test_location=test_location)

    @classmethod
    def get_location(cls, *, test_location: Any, index: str | int) -> str:
        return str(Path(cls.dirname(test_location=test_location)) / str(index))

    @classmethod
    def get_snapshot_name(cls, *, test_location: Any, index: str | int = 0) -> str:
        return cls.name_of(parameter(test_location), str(index))

    @classmethod
    def name_of(cls, folder: str, path: str) -> str:
        return f"{cls.test}[{folder}]/{path}"

    @classmethod
    def matches_test_location(cls, *, test_location: Any, snapshot_location: str) -> bool:
        return Path(snapshot_location).is_relative_to(cls.dirname(test_location=test_location))

    def is_snapshot_location(self, *, location: str) -> bool:
        return Path(location).is_relative_to(self.root)

    def read_snapshot_collection(self, *, snapshot_location: str) -> SnapshotCollection:
        folder, *parts = Path(snapshot_location).relative_to(self.root).parts
        found = SnapshotCollection(location=snapshot_location)
        found.add(Snapshot(name=self.name_of(folder, "/".join(parts))))
        return found


def parameter(location: Any) -> str:
    """Return the one parameter of a test, e.g. ``quickstart`` of ``test_tree[quickstart]``."""
    return str(location.nodename).partition("[")[2].rstrip("]")
