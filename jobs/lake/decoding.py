"""Files of a lake as Arrow tables: parts whole, merged files as a stream. A damaged one is named."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.duck import fresh
from schemas.errors import LakeError

LANES = 2
"""Threads that decode, or that order and encode; more wait for the memory."""

_BATCH = 65_536
"""Rows of a merged file that are decoded at a time; a batch costs 5 ms beside its rows."""

_PARTS = 256
"""Parts that one query reads."""


def read_parts(paths: Sequence[Path], named: str | None = None) -> pa.Table:
    """All rows of parts of few columns in the order given; a column `named` tells the part's name.

    By a reader each, 0.23 ms a part: DuckDB takes a third more, pyarrow's data sets twice as long. Raises
    LakeError for a damaged part.
    """
    with ThreadPoolExecutor(LANES) as readers:
        tables = list(readers.map(_read_part, paths))
    if named is not None:
        tables = [_stamped(table, named, path.stem) for table, path in zip(tables, paths, strict=True)]
    return pa.concat_tables(tables, promote_options="permissive")


def read_words(path: Path, footer: pq.FileMetaData | None = None) -> pa.Table:
    """All rows of a part, texts as dictionaries: half of the time where rows are thousands.

    Its bytes are read at once, an eighth less than a read for each column. Raises LakeError for a damaged
    part.
    """
    with _blamed(path):
        return _opened(_bytes_of(path), footer).read(use_threads=False)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file, texts as dictionaries. Raises LakeError where it is damaged."""
    with _blamed(path):
        return _opened(path).read(columns, use_threads=False)


def footers(paths: Sequence[Path]) -> dict[Path, pq.FileMetaData]:
    """What files say of themselves. Raises LakeError where one is damaged."""
    with ThreadPoolExecutor(LANES) as readers:
        return dict(zip(paths, readers.map(_footer, paths), strict=True))


class Wide:
    """Reads parts of many columns and few rows.

    By one DuckDB: hundreds of tables of seventy columns take pyarrow longer to hold and to join than to
    decode, and a new DuckDB each time begins with memory that was never touched.
    """

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return fresh(threads=1)

    def read(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        """All rows of the parts, in the order given. Raises LakeError for a damaged part.

        A few hundred parts at a time: the memory of a larger table goes back to the kernel when it is freed.
        """
        query = "SELECT * FROM read_parquet(?, union_by_name=true)"
        names = [str(path) for path in paths]
        try:
            for first in range(0, len(names), _PARTS):
                some = names[first : first + _PARTS]
                yield self._connection.sql(query, params=[some]).to_arrow_table()
        except duckdb.Error as error:
            raise LakeError(f"cannot read the parts to merge: {error}") from error


class Stream:
    """A merged file from row `start` to its last: takes end anywhere, and no row is decoded twice."""

    def __init__(self, path: Path, start: int) -> None:
        with _blamed(path):
            file = _opened(path)
        first = 0
        while start and start >= (size := file.metadata.row_group(first).num_rows):
            first, start = first + 1, start - size
        groups = range(first, file.num_row_groups)
        self._batches = file.iter_batches(_BATCH, row_groups=groups, use_threads=False)
        self._rest: pa.RecordBatch | None = None
        if start:
            self.take(start)

    def take(self, rows: int) -> pa.Table:
        """The next `rows` rows."""
        taken = []
        while rows:
            batch = self._rest or next(self._batches)
            taken.append(batch.slice(0, rows))
            rows -= taken[-1].num_rows
            self._rest = batch.slice(taken[-1].num_rows) if taken[-1].num_rows < batch.num_rows else None
        return pa.Table.from_batches(taken).unify_dictionaries()


def _read_part(path: Path) -> pa.Table:
    with _blamed(path):
        return pq.ParquetFile(_bytes_of(path)).read(use_threads=False)


def _footer(path: Path) -> pq.FileMetaData:
    with _blamed(path):
        return pq.read_metadata(path)


def _bytes_of(path: Path) -> pa.BufferReader:
    """A file read into Arrow's heap, which has had the last one."""
    with pa.OSFile(str(path)) as file:
        return pa.BufferReader(file.read_buffer())


def _opened(source: Path | pa.BufferReader, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A file whose texts are read as the dictionaries that it holds."""
    about = footer or pq.read_metadata(source)
    texts = [field.name for field in about.schema.to_arrow_schema() if pa.types.is_string(field.type)]
    return pq.ParquetFile(source, metadata=about, read_dictionary=texts)


def _stamped(table: pa.Table, name: str, value: str) -> pa.Table:
    return table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"cannot read {path}: {error}") from error
