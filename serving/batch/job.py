"""What is to be scored and how far it has come: a folder of parts beside the output, so that a killed run goes on.

    FILE.parquet.parts/job.json            what the run is, written once
                       pictures.parquet    the names, fixed when the run begins
                       part-0000012.parquet    the rows of one chunk of them, written in one step
                       lock                held by the command that works on it

Every file appears in one step, so a part is there as a whole or not at all. When all are there they become the
output, in the order of the pictures' names, and the folder is removed.
"""

# MERGED-DOC """The columns of the output."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from models.common.errors import HalftoneError
from models.common.files import atomic_path, write_atomic

_CHUNKS = 64

_SMALLEST, _LARGEST = 16, 1024

_ROW_GROUP = 65536


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run scores and with what; a resumed run must be the same."""

    input: str
    """Folder or URI."""

    model: str
    """Name of the bundle."""

    version: str
    """Of the model."""

    variant: str
    """Proven variant that answers."""

    top_k: int
    """Classes in each row."""

    max_pixels: int
    """Most pixels of a picture."""

    max_bytes: int
    """Largest file in bytes."""

    pictures: int
    """How many there are."""

    @property
    def chunk(self) -> int:
        """Pictures in a part: few enough that little is lost, enough that a large run has few files."""
        return max(_SMALLEST, min(_LARGEST, self.pictures // _CHUNKS))

    @property
    def chunks(self) -> int:
        """Number of parts."""
        return -(-self.pictures // self.chunk)

    def size(self, chunk: int) -> int:
        """Pictures in that chunk."""
        return min(self.chunk, self.pictures - chunk * self.chunk)

    def to_json(self) -> bytes:
        """UTF-8 JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """What `to_json` wrote.

        Raises:
            HalftoneError: it is something else.
        """
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            raise HalftoneError("it is not the work of this version of `python -m serving.batch`") from None


class Workplace:
    """The folder of parts of one output.

    Args:
        output: the Parquet file to make.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".parts")
        self._job, self._names = self.folder / "job.json", self.folder / "pictures.parquet"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the only command that works on this output; what a finished or refused run leaves is removed afterwards.

        Raises:
            HalftoneError: another one does, or the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise HalftoneError(f"--output: {self.folder} can't be made or written ({error.strerror})") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise HalftoneError(f"another command is making {self.output} now: wait for it") from None
        try:
            yield
        finally:
            if self.output.exists() or not self._job.exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(lock)

    def job(self) -> Job | None:
        """The run that was begun here, or None.

        Raises:
            HalftoneError: what is there can't be gone on with.
        """
        if not self._job.exists():
            return None
        try:
            return Job.from_json(self._job.read_bytes())
        except HalftoneError as error:
            raise HalftoneError(f"{self._job} can't be used, {error}: remove {self.folder} to begin again") from None

    def begin(self, job: Job, names: list[str]) -> None:
        """Write down what the run is; from now on it can be gone on with."""
        with atomic_path(self._names) as path:
            pq.write_table(pa.table({"path": names}), path, row_group_size=job.chunk)
        write_atomic(self._job, job.to_json())

    def names(self, chunk: int | None = None) -> list[str]:
        """The names of all pictures, or those of one chunk."""
        with pq.ParquetFile(self._names) as file:
            table = file.read() if chunk is None else file.read_row_group(chunk)
        names: list[str] = table.column("path").to_pylist()
        return names

    def part(self, chunk: int) -> Path:
        """Where the rows of a chunk are."""
        return self.folder / f"part-{chunk:07d}.parquet"

    def missing(self, job: Job) -> list[int]:
        """The chunks without a part, ascending."""
        done = {path.name for path in self.folder.glob("part-*.parquet")}
        return [chunk for chunk in range(job.chunks) if self.part(chunk).name not in done]

    def finish(self, job: Job) -> dict[str, int]:
        """Make the output of the parts and remove them.

        Returns:
            How often each error code occurs, most often first.

        Raises:
            HalftoneError: the parts don't hold each picture once.
        """
        counts: dict[str, int] = {}
        merged, schema = self.folder / "all.parquet", SCHEMA.with_metadata({KEY: job.to_json()})
        with atomic_path(merged) as path, pq.ParquetWriter(path, schema) as writer:
            for table in self._groups(job):
                for each in table.column("error_code").drop_null().value_counts().to_pylist():
                    counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
                writer.write_table(table)
        merged.replace(self.output)
        shutil.rmtree(self.folder)
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def _groups(self, job: Job) -> Iterator[pa.Table]:
        """The rows in the order of the names, as many at once as make a good row group."""
        waiting: list[pa.Table] = []
        for chunk in range(job.chunks):
            table = pq.read_table(self.part(chunk), schema=SCHEMA)
            if table.num_rows != job.size(chunk):
                raise HalftoneError(
                    f"{self.part(chunk)} holds {table.num_rows} rows instead of {job.size(chunk)}: remove it, and run "
                    "the same command again"
                )
            waiting.append(table)
            if sum(each.num_rows for each in waiting) >= _ROW_GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)


def made(output: Path) -> Job:
    """The job that made a finished output.

    Raises:
        HalftoneError: it was not made here.
    """
    try:
        metadata: dict[bytes, Any] = pq.read_schema(output).metadata or {}
        return Job.from_json(metadata[KEY])
    except (pa.ArrowException, OSError, KeyError, HalftoneError):
        raise HalftoneError(
            f"{output} is there and was not made by this command: remove it or name another --output"
        ) from None


KEY = b"halftone"

"""Key of the file's metadata whose value is the job, as JSON."""

SCHEMA = pa.schema(
    [
        # Relative to the input, with "/" between.
        pa.field("path", pa.string(), nullable=False),
        # The most probable classes, best first; null where there is an error.
        pa.field("labels", pa.list_(pa.string())),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("probabilities", pa.list_(pa.float32())),
        # A code as the service answers it, and what happened; null where all is well.
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
    ]
)
