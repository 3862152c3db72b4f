"""Catalogue of the metrics: name, type, labels, buckets and help (docs/observability.md has the same table)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELTAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_ITEMS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """Description of a family of time series."""

    name: str
    """Full name in Prometheus."""

    kind: Literal["counter", "gauge", "histogram"]
    """Type in Prometheus."""

    labels: tuple[str, ...]
    """Names of the labels, in the order of the values that the recorder passes."""

    help: str
    """One line that explains the metric."""

    buckets: tuple[float, ...] = ()
    """Ascending upper bounds of a histogram's buckets, without the infinite one."""


QUEUE_DEPTH = Metric(
    name="halftone_queue_depth",
    kind="gauge",
    labels=("model", "variant"),
    help="Images that wait for the model now.",
)
QUEUE_WAIT_SECONDS = Metric(
    name="halftone_queue_wait_seconds",
    kind="histogram",
    labels=("model", "variant"),
    help="Total time that an image waited: for decoding, and for its batch.",
    buckets=_SECONDS,
)
BATCH_ITEMS = Metric(
    name="halftone_batch_items",
    kind="histogram",
    labels=("model", "variant"),
    help="Images per run of the model.",
    buckets=_ITEMS,
)
DECODE_SECONDS = Metric(
    name="halftone_decode_seconds",
    kind="histogram",
    labels=("model", "variant"),
    help="Time from the bytes of an image to the model's pixels.",
    buckets=_SECONDS,
)
INFER_SECONDS = Metric(
    name="halftone_infer_seconds",
    kind="histogram",
    labels=("model", "variant"),
    help="Time of one run of the model on one batch.",
    buckets=_SECONDS,
)
REQUEST_SECONDS = Metric(
    name="halftone_request_seconds",
    kind="histogram",
    labels=("route", "status", "model"),
    help="Time from a request's arrival to the end of its response.",
    buckets=_SECONDS,
)
REJECTED_TOTAL = Metric(
    name="halftone_rejected_total",
    kind="counter",
    labels=("reason",),
    help="Requests, and single images of a batch, that got an error as response, by its code.",
)
MODEL_INFO = Metric(
    name="halftone_model_info",
    kind="gauge",
    labels=("name", "version", "variant"),
    help="1 for each loaded model.",
)
SWAPS_TOTAL = Metric(
    name="halftone_swaps_total",
    kind="counter",
    labels=("model", "result"),
    help="Attempts to replace a model while it serves: loaded, refused or rolled_back.",
)
SHADOW_TOTAL = Metric(
    name="halftone_shadow_total",
    kind="counter",
    labels=("model", "variant", "result"),
    help="Sampled images by result of the FP32 reference: agree, disagree, undecided, dropped (no idle time), failed.",
)
SHADOW_MIN_AGREEMENT = Metric(
    name="halftone_shadow_min_agreement",
    kind="gauge",
    labels=("model", "variant"),
    help="Share of agree among agree and disagree that the parity gate wants of the served precision.",
)
SHADOW_LOGIT_DELTA = Metric(
    name="halftone_shadow_logit_delta",
    kind="histogram",
    labels=("model", "variant"),
    help="Largest difference of a logit between the served variant and the FP32 reference, for a sampled image.",
    buckets=_DELTAS,
)
INPUT_DRIFT = Metric(
    name="halftone_input_drift",
    kind="gauge",
    labels=("model", "version", "variant", "measure"),
    help="Distance of the last 500 sampled images from those of the proof, 0 to 1, by a measure.",
)
INPUT_DRIFT_DETECTED = Metric(
    name="halftone_input_drift_detected",
    kind="gauge",
    labels=("model", "version", "variant", "measure"),
    help="1 if that distance is neither chance nor small, else 0.",
)
COLLECTED_TOTAL = Metric(
    name="halftone_collected_total",
    kind="counter",
    labels=("result",),
    help="Pictures to collect: unfamiliar, unconfident, disagree, random (written for that), known, dropped, failed.",
)
ANSWERS_TOTAL = Metric(
    name="halftone_answers_total",
    kind="counter",
    labels=("model", "version", "role"),
    help="Answered requests by the version that computed them, which was active or a candidate.",
)
CANARY_SHARE = Metric(
    name="halftone_canary_share",
    kind="gauge",
    labels=("model", "version"),
    help="Share of the requests that a candidate gets now.",
)
CANARY_TOTAL = Metric(
    name="halftone_canary_total",
    kind="counter",
    labels=("model", "version", "criterion", "result"),
    help="Evidence about a candidate: good or bad by errors, agreement, confidence, latency; copies dropped.",
)
CANARY_DECISIONS_TOTAL = Metric(
    name="halftone_canary_decisions_total",
    kind="counter",
    labels=("model", "decision", "by"),
    help="Decisions about candidates: started, changed, share, promoted, withdrawn, rolled_back; by operator or rule.",
)

METRICS = (
    QUEUE_DEPTH,
    QUEUE_WAIT_SECONDS,
    BATCH_ITEMS,
    DECODE_SECONDS,
    INFER_SECONDS,
    REQUEST_SECONDS,
    REJECTED_TOTAL,
    MODEL_INFO,
    SWAPS_TOTAL,
    SHADOW_TOTAL,
    SHADOW_MIN_AGREEMENT,
    SHADOW_LOGIT_DELTA,
    INPUT_DRIFT,
    INPUT_DRIFT_DETECTED,
    COLLECTED_TOTAL,
    ANSWERS_TOTAL,
    CANARY_SHARE,
    CANARY_TOTAL,
    CANARY_DECISIONS_TOTAL,
)
