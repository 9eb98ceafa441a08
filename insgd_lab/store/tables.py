"""Tables in Parquet: metrics and layer records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from insgd_lab.store.files import Damaged, Missing, StoreError, replacing, unreadable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Kind", "read_arrow", "read_table", "schema_of", "write_arrow", "write_table"]

Kind = Literal["metrics", "layers"]


def schema_of(kind: Kind) -> pa.Schema:
    """The columns and types of a table."""
    import pyarrow as pa

    if kind == "metrics":
        counts = [("epoch", pa.int32()), ("step", pa.int64())]
        return pa.schema([*counts, ("split", pa.string()), ("metric", pa.string()), ("value", pa.float64())])
    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([("step", pa.int64()), ("parameter", word), ("quantity", word), ("value", pa.float32())])


def write_table(path: Path, frame: pd.DataFrame, kind: Kind) -> None:
    """Write `frame` as Parquet with the columns and types of `kind`, atomically.

    Equal rows give equal bytes, whatever index or categories the frame carries.

    Raises:
        StoreError: the frame's columns are not those of `kind`.
    """
    import pyarrow as pa

    schema = schema_of(kind)
    if list(frame.columns) != schema.names:
        raise StoreError(f"{path}: expected the columns {schema.names}, got {list(frame.columns)}")
    arrays = [_column(frame[field.name], field.type) for field in schema]
    write_arrow(Path(path), pa.Table.from_arrays(arrays, schema=schema))


def _column(column: pd.Series, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):  # words are numbered in order of appearance, so unused categories vanish
        return pa.array(column.astype(object), type=pa.string()).dictionary_encode()
    if pa.types.is_string(kind):
        return pa.array(column.astype(object), type=kind)
    return pa.array(column.to_numpy(), type=kind, from_pandas=False)


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as Parquet, atomically."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some columns of it, as an Arrow table.

    `ParquetFile` rather than `read_table`, which takes three times as long over a small file.

    Raises:
        Damaged: it is no Parquet file, or has other columns.
        StoreError: it is missing, or may not be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read(columns, use_threads=False)
        return table if columns is None else table.select(columns)
    except FileNotFoundError:
        raise Missing(f"{path} does not exist; the run may not have got that far") from None
    except (OSError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno:  # without a number it is pyarrow's word for damage
            raise unreadable(path, error) from error
        raise Damaged(path, error) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet file that `write_table` wrote; `parameter` and `quantity` come back as categories.

    Raises:
        StoreError: the file is missing or damaged.
    """
    frame: pd.DataFrame = read_arrow(Path(path)).to_pandas()
    return frame
