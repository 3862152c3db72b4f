"""Offline scoring on a Ray cluster of two nodes, one of which is killed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving.batch import run
from serving.batch.run import Result, score
from serving.settings import Settings
from tests.serving.batch.cluster import cluster, recorded
from tests.serving.batch.test_interrupted_run import crops

PICTURES = 160


def test_a_node_that_is_killed_costs_no_picture(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = crops(tmp_path / "pictures", PICTURES)
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(small))
    settings = Settings(model="efficientnet_lite0", variant="onnxruntime-fp32", batch=8)
    with cluster(2) as nodes:
        chunks, recording = recorded({2: lambda: nodes.remove(1)})
        monkeypatch.setattr(run, "score_chunks", recording)

        result = score(
            settings,
            location=str(tmp_path / "pictures"),
            output=f"local://{tmp_path}/rows.parquet",
            top_k=3,
            progress=lambda done, total: None,
            ray_address=nodes.address,
        )

    assert isinstance(result, Result)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["path"] for row in rows] == names
    assert {row["variant"] for row in rows} == {"onnxruntime-fp32"}
    assert len({chunk.chunk for chunk in chunks}) == len(chunks) == PICTURES // 16
    assert sum(count for count, _ in result.nodes.values()) == PICTURES
    assert result.refused == []
    assert [path.name for path in tmp_path.iterdir() if "parts" in path.name] == []
