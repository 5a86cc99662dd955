"""Files of a lake appear whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.generations import KEY
from schemas.errors import LakeError


def write_part(table: Any, path: Path) -> None:
    """A small part: only the columns that hold a value, since each costs its readers and writers the same.

    The empty part of the folder has them all, with what the schema says of them, and every view reads it too.
    """
    held = [name for name in table.column_names if table.column(name).null_count < table.num_rows]
    write_table(table.select(held) if held else table, path, store_schema=False, write_statistics=list(KEY))


def write_table(table: Any, path: Path, mark: str = "", **options: Any) -> None:
    """Temp name, fsync, atomic rename: a reader sees the old file or the new one, never a half of it.

    Where several processes may write one file, `mark` tells their temporary names apart. A small file of many
    columns is written in half of the time that zstd takes, at equal size.
    """
    temporary = path.with_name(f".{mark}{path.name}.tmp")
    try:
        with temporary.open("wb") as handle:
            words = [field.name for field in table.schema if pa.types.is_string(field.type)]
            pq.write_table(table, handle, compression="lz4", use_dictionary=words, **options)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise LakeError(f"cannot write {path}: {error.strerror}") from error
