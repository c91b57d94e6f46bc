"""Pictures out of Parquet, depth files into Parquet. Needs pyarrow, which requirements-ray.txt brings.

In: a column `image` (a file's bytes, or a struct with `bytes`) and, if there is one, `name`. Out: a
folder of parts with the columns of `outputs.Identity`, the time it was `written`, and the bytes of a file in a
column for each format.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cache.errors import UsageError
from depth.outputs import FORMATS, Identity
from depth.render import save_atomically
from depth.sources import Source, stems

CHUNK = 16  # pictures in one go: read ahead, and in a part
_KEY = ("name", "stamp", "model", "options")


def is_table(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def groups(path: Path) -> list[dict]:
    """The row groups of a Parquet file or folder. Of the rows only the names are read here, to compare them."""
    import pyarrow.parquet

    found, names = [], []
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            _check_columns(file, table.schema_arrow.names)
            if "name" in table.schema_arrow.names:
                names += table.read(columns=["name"])["name"].to_pylist()
        except (OSError, ValueError) as error:
            raise UsageError("The Parquet table cannot be read.", where=file.name, got=error) from error
        found += [{"path": str(file), "group": group, "rows": table.metadata.row_group(group).num_rows}
                  for group in range(table.num_row_groups)]
    if not sum(portion["rows"] for portion in found):
        raise UsageError("The table has no rows.", where=path.name)
    _refuse_equal(names, path)
    return found


def _check_columns(file: Path, columns: list[str]) -> None:
    if "image" not in columns:
        raise UsageError("The table has no pictures.", where=file.name, expected="a column `image`",
                         got=", ".join(columns))


def sources(portion: dict, scratch: Path) -> Iterator[Source]:
    """The pictures of a row group, one at a time, as passing files: files are what is read with care."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(portion["path"])
    columns = [name for name in ("image", "name") if name in table.schema_arrow.names]
    for batch in table.iter_batches(CHUNK, row_groups=[portion["group"]], columns=columns):
        for row in batch.to_pylist():
            content = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
            source = _passing(content or b"", row.get("name"), scratch)
            yield source
            source.path.unlink()


def _passing(content: bytes, name: object, scratch: Path) -> Source:
    name = str(name or hashlib.sha256(content).hexdigest()[:32])
    stem = stems([name])[0]
    path = scratch / stem.rpartition("/")[2]
    path.write_bytes(content)
    return Source(name, stem, path, mark=f"{len(content)}-{zlib.crc32(content):08x}")


class Parts:
    """A Parquet folder as a ledger: what is in its parts is done. A part appears whole or not at all."""

    def __init__(self, output: Path):
        self._output, self._rows, self.folder = output, [], output
        self._done = {Identity(*row) for row in _identities(output)}

    def outputs(self, identity: Identity) -> dict[str, str] | None:
        return {"in an earlier part": ""} if identity in self._done else None

    def add(self, identity: Identity, outputs: dict[str, str]) -> None:
        """Keep the files' bytes for the next part, and drop the files."""
        files = {}
        for name in outputs:
            path = self.folder / name
            files[next(key for key, (ending, _) in FORMATS.items() if name.endswith(ending))] = path.read_bytes()
            path.unlink()
        self._rows.append({**asdict(identity), "written": time.time(), **files})
        if len(self._rows) == CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write the part. Its name follows from what is in it, so that a repeated write replaces itself."""
        import pyarrow
        import pyarrow.parquet

        if not self._rows:
            return
        keys = repr(sorted(tuple(row[key] for key in _KEY) for row in self._rows))
        table = pyarrow.Table.from_pylist(self._rows)
        path = self._output / f"part-{hashlib.sha256(keys.encode()).hexdigest()[:32]}.parquet"
        save_atomically(path, lambda file: pyarrow.parquet.write_table(table, file))
        self._done |= {Identity(*(row[key] for key in _KEY)) for row in self._rows}
        self._rows = []


def _identities(folder: Path) -> Iterator[tuple[str, ...]]:
    import pyarrow.parquet

    for path in sorted(folder.glob("part-*.parquet")):
        try:
            columns = pyarrow.parquet.read_table(path, columns=list(_KEY)).columns
        except (OSError, ValueError):
            continue  # damaged since it was written: what it held is done again
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _refuse_equal(names: list[str], path: Path) -> None:
    tidy = stems([str(name) for name in names])
    twice = [name for name, stem in zip(names, tidy, strict=True) if stem != stems([str(name)])[0]]
    if twice:
        raise UsageError("Two pictures of the table would get one output name.", where=path.name, got=twice[0],
                         next_step="Make the column `name` unique.")
