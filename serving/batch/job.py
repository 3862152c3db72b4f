"""State of a scoring job: a folder of parts next to the output, so that a killed run can be resumed; output columns.

    FILE.parquet.parts/job.json            the job, written once
                       pictures.parquet    names of the images, fixed when the run starts
                       part-0000012.parquet    rows of one chunk of the images
                       lock                held by the command that works on the job

Every file is written atomically, so a part is complete or missing. When all parts exist, they become the output, in the
order of the images' names, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from models.common.errors import HalftoneError
from serving.batch.inputs import reason
from serving.batch.locations import exists, file_system, writing

_CHUNKS = 64
_SMALLEST, _LARGEST = 16, 1024
_ROW_GROUP = 65536

KEY = b"halftone"
"""Key of the file's metadata whose value is the job, as JSON."""

SCHEMA = pa.schema(
    [
        # Relative to the input, with "/" between.
        pa.field("path", pa.string(), nullable=False),
        # The most probable classes, best first; null if there is an error.
        pa.field("labels", pa.list_(pa.string())),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("probabilities", pa.list_(pa.float32())),
        # The service's error code and message; null if there is no error.
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
    ]
)
"""Columns of the output."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Input and model of a run; a resumed run must have the same."""

    input: str
    """Folder or URI."""

    model: str
    """Name of the bundle."""

    version: str
    """Version of the model."""

    variant: str
    """Proven variant in use."""

    top_k: int
    """Classes in each row."""

    max_pixels: int
    """Most pixels of an image."""

    max_bytes: int
    """Largest file in bytes; kept as a record and for the comparison of runs."""

    pictures: int
    """Number of images."""

    @property
    def chunk(self) -> int:
        """Images per part: few enough that an interruption loses little, enough that a large run has few files."""
        return max(_SMALLEST, min(_LARGEST, self.pictures // _CHUNKS))

    @property
    def chunks(self) -> int:
        """Number of parts."""
        return -(-self.pictures // self.chunk)

    def size(self, chunk: int) -> int:
        """Return the number of images in a chunk."""
        return min(self.chunk, self.pictures - chunk * self.chunk)

    def to_json(self) -> bytes:
        """Return the job as UTF-8 JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the output of `to_json`.

        Raises:
            HalftoneError: the data is no job of this version.
        """
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            raise HalftoneError("it is not the work of this version of `python -m serving.batch`") from None


class PartsFolder:
    """The folder of parts of one output.

    Args:
        output: path or URI of the Parquet file to make.

    Raises:
        HalftoneError: it can't be reached.
    """

    def __init__(self, output: str) -> None:
        try:
            self._files, self.output = file_system(output)
        except (OSError, ValueError, ImportError, pa.ArrowException) as error:
            raise HalftoneError(f"--output {output} can't be reached: {reason(error)}") from None
        self.folder = f"{self.output}.parts"
        self._job, self._names = f"{self.folder}/job.json", f"{self.folder}/pictures.parquet"

    @property
    def finished(self) -> bool:
        """True if the output exists."""
        return exists(self._files, self.output)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this output; remove the folder afterwards if the run is finished or was refused.

        In a bucket there is no lock: two commands would do the same work, with the same result.

        Raises:
            HalftoneError: another command holds the lock, or the folder can't be written.
        """
        with self._lock() if isinstance(self._files, fs.LocalFileSystem) else self._unlocked():
            try:
                yield
            finally:
                if exists(self._files, self.folder) and (self.finished or not exists(self._files, self._job)):
                    self._files.delete_dir(self.folder)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            os.makedirs(self.folder, exist_ok=True)
            lock = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT, 0o644)
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
            os.close(lock)

    @contextlib.contextmanager
    def _unlocked(self) -> Iterator[None]:
        try:
            self._files.create_dir(self.folder, recursive=True)
        except (OSError, pa.ArrowException) as error:
            raise HalftoneError(f"--output: {self.folder} can't be made or written ({reason(error)})") from None
        yield

    def unfinished_job(self) -> Job | None:
        """Return the job that was started here, or None.

        Raises:
            HalftoneError: the folder's job can't be resumed.
        """
        if not exists(self._files, self._job):
            return None
        try:
            with self._files.open_input_stream(self._job) as stream:
                return Job.from_json(stream.read())
        except HalftoneError as error:
            raise HalftoneError(f"{self._job} can't be used, {error}: remove {self.folder} to start again") from None

    def finished_job(self) -> Job | None:
        """Return the job that made the finished output, or None.

        Raises:
            HalftoneError: the output was not made by this command.
        """
        if not self.finished:
            return None
        try:
            with self._open(self.output) as file:
                return Job.from_json((file.schema_arrow.metadata or {})[KEY])
        except (pa.ArrowException, OSError, KeyError, HalftoneError):
            raise HalftoneError(
                f"{self.output} exists and was not made by this command: remove it or name another --output"
            ) from None

    def start(self, job: Job, names: list[str]) -> None:
        """Write the job and the names of its images; from now on the run can be resumed."""
        with writing(self._files, self._names) as stream:
            pq.write_table(pa.table({"path": names}), stream, row_group_size=job.chunk)
        with writing(self._files, self._job) as stream:
            stream.write(job.to_json())

    def names(self, chunk: int | None = None) -> list[str]:
        """Return the names of all images, or those of one chunk."""
        with self._open(self._names) as file:
            table = file.read() if chunk is None else file.read_row_group(chunk)
        names: list[str] = table.column("path").to_pylist()
        return names

    def part(self, chunk: int) -> str:
        """Return the path of a chunk's rows."""
        return f"{self.folder}/part-{chunk:07d}.parquet"

    def write(self, chunk: int, rows: pa.Table) -> None:
        """Write the rows of a chunk in one step; the same rows may be written twice."""
        with writing(self._files, self.part(chunk)) as stream:
            pq.write_table(rows, stream)

    def missing(self, job: Job) -> list[int]:
        """Return the chunks without a part, in ascending order."""
        done = {info.path for info in self._files.get_file_info(fs.FileSelector(self.folder))}
        names = {path.rpartition("/")[2] for path in done}
        return [chunk for chunk in range(job.chunks) if self.part(chunk).rpartition("/")[2] not in names]

    def finish(self, job: Job) -> dict[str, int]:
        """Merge the parts into the output and remove them.

        Returns:
            Number of rows with each error code, in descending order.

        Raises:
            HalftoneError: a part does not hold each image of its chunk once.
        """
        counts: dict[str, int] = {}
        merged, schema = f"{self.folder}/all.parquet", SCHEMA.with_metadata({KEY: job.to_json()})
        with writing(self._files, merged) as stream, pq.ParquetWriter(stream, schema) as writer:
            for table in self._row_groups(job):
                for each in table.column("error_code").drop_null().value_counts().to_pylist():
                    counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
                writer.write_table(table)
        self._files.move(merged, self.output)
        self._files.delete_dir(self.folder)
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def _row_groups(self, job: Job) -> Iterator[pa.Table]:
        """Yield the rows in the order of the names, in tables of at least a row group."""
        waiting: list[pa.Table] = []
        for chunk in range(job.chunks):
            with self._open(self.part(chunk)) as file:
                if (rows := file.metadata.num_rows) != job.size(chunk):
                    raise HalftoneError(
                        f"{self.part(chunk)} holds {rows} rows instead of {job.size(chunk)}: remove it, and run the "
                        "same command again"
                    )
                table = file.read().cast(SCHEMA)
            waiting.append(table)
            if sum(each.num_rows for each in waiting) >= _ROW_GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[pq.ParquetFile]:
        with self._files.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
            yield file
