"""Texts of a table as dictionaries: words once, numbers for the rows, which are what is moved and written."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

WORD = pa.dictionary(pa.int32(), pa.string())
"""Type of an encoded text column."""

_FEW = 256
"""Words of a column that are not worth a look for those no row names."""


def worded_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with encoded texts."""
    return pa.schema(
        [field.with_type(WORD) if pa.types.is_string(field.type) else field for field in schema],
        metadata=schema.metadata,
    )


def worded(table: pa.Table) -> pa.Table:
    """The table with its plain texts encoded."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(place).dictionary_encode()
            table = table.set_column(place, field.with_type(column.type), column)
    return table


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of encoded tables, each column with one dictionary; tables without rows add no column."""
    tables = [table for table in tables if table.num_rows] or tables[:1]
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()


def trimmed(table: pa.Table) -> pa.Table:
    """A table in one piece without the words that no row names: a file would hold them all."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and table.num_rows:
            column = table.column(place).combine_chunks()
            if len(column.dictionary) > _FEW:
                table = table.set_column(place, field, _trimmed(column))
    return table


def _trimmed(column: pa.DictionaryArray) -> pa.DictionaryArray:
    missing = column.is_null().to_numpy(zero_copy_only=False)
    numbers = column.indices.fill_null(0).to_numpy()
    used = np.zeros(len(column.dictionary), bool)
    used[numbers[~missing]] = True
    place = (np.cumsum(used) - 1).astype(np.int32)
    indices = pa.array(place[numbers], pa.int32(), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.take(pa.array(np.flatnonzero(used))))
