"""A candidate version beside the active one: which requests it gets, and the evidence about it."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from serving.batching.batcher import Many
from serving.http.errors import RequestError
from serving.lifecycle.canary.comparison import Comparison
from serving.lifecycle.canary.criteria import Criterion
from serving.lifecycle.canary.rule import Plan, Step, next_step
from serving.lifecycle.served_model import ServedModel
from serving.telemetry.canary_metrics import CandidateRecorder

logger = logging.getLogger("bentoml.halftone")

_HASH_BYTES = 8
_LONGEST_REASON = 300

Headers = Iterable[tuple[bytes, bytes]]


class Candidate:
    """A loaded candidate; its methods may be called from any thread.

    Args:
        model: the candidate's model.
        plan: how it is tried out.
        recorder: counts its evidence.
        act: called with each step of the rule; must not block.
        use_active: yields the active version.
        idle: returns True if the service has no other work now.
    """

    def __init__(
        self,
        model: ServedModel,
        plan: Plan,
        recorder: CandidateRecorder,
        *,
        act: Callable[[Candidate, Step], object],
        use_active: Callable[[], AbstractContextManager[ServedModel]],
        idle: Callable[[], bool],
    ) -> None:
        self.model = model
        self.plan = plan
        self._recorder = recorder
        self._act = act
        self._lock = threading.Lock()
        self._tallies = plan.limits.tallies()
        self._answers = self._stage_answers = self._failures_in_a_row = 0
        self._stopped = False
        self._last_failure = ""
        self._comparison = Comparison(self, use_active, idle)

    @property
    def share(self) -> float:
        """Share of the requests that it gets now."""
        return 0.0 if self._stopped else self.plan.share

    def takes(self, headers: Headers) -> bool:
        """Return True if the candidate is to answer a request with these headers.

        The hash of version and value is compared with the share, so that a client that has the candidate keeps it when
        the share grows.
        """
        share = self.share
        if not share:
            return False
        if self.plan.sticky is not None:
            name = self.plan.sticky.encode()
            for key, value in headers:
                if key == name:
                    digest = blake2b(self.model.version.encode() + b"\0" + value, digest_size=_HASH_BYTES).digest()
                    return int.from_bytes(digest) < share * 2.0 ** (8 * _HASH_BYTES)
        return random.random() < share

    def change(self, plan: Plan) -> None:
        """Go on with another plan. Other limits start the evidence again: a limit must not be chosen to fit it."""
        with self._lock:
            if plan.limits != self.plan.limits:
                self._tallies = plan.limits.tallies()
            if plan.share != self.plan.share:
                self._stage_answers = 0
            self.plan = plan
            self._stopped = False
        self._consider()

    def answered(self) -> None:
        """Record that a client got the candidate's response."""
        with self._lock:
            self._answers += 1
            self._stage_answers += 1
        self.add("errors", bad=False)

    def failed(self, error: Exception) -> None:
        """Record that the candidate failed on a request or picture on which the active version did not."""
        with self._lock:
            first = not self._last_failure
            self._last_failure = error.message if isinstance(error, RequestError) else repr(error)[:_LONGEST_REASON]
        if first:
            logger.warning("the candidate %s of %s failed", self.model.version, self.model.name, exc_info=error)
        self.add("errors", bad=True)

    def add(self, criterion: Criterion, *, bad: bool) -> None:
        """Record the result for one picture, or for one request for `errors`."""
        with self._lock:
            if criterion == "errors":
                self._failures_in_a_row = self._failures_in_a_row + 1 if bad else 0
            if criterion not in self._tallies:
                return
            self._tallies[criterion].add(bad)
        self._recorder.compared(criterion, bad=bad)
        self._consider()

    @property
    def max_slowdown(self) -> float:
        """Time over that of the active version beyond which a picture was too slow."""
        return self.plan.limits.max_slowdown

    def copy(self, values: Many, results: Sequence[Any]) -> None:
        """Copy the pictures of a request that were classified, to compare the versions; see `Comparison.offer`."""
        self._comparison.offer(values, results)

    def dropped(self) -> None:
        """Record that there was no room for a copy."""
        self._recorder.dropped()

    def stop(self) -> None:
        """Take no requests any more, and let the comparison end; the model goes on."""
        self._stopped = True
        self._comparison.stop()

    def close(self) -> None:
        """Wait for the end of the comparison, finish the accepted requests and free the model."""
        self._stopped = True
        self._comparison.close()
        self.model.close()

    def description(self) -> dict[str, Any]:
        """Return plan and evidence for JSON."""
        with self._lock:
            return {
                "share": self.share,
                "sticky": self.plan.sticky,
                "auto": self.plan.auto,
                "answers": self._answers,
                "criteria": {name: tally.description() for name, tally in self._tallies.items()},
            }

    def _consider(self) -> None:
        """Ask the rule, once until its step is done."""
        with self._lock:
            if self._stopped:
                return
            step = next_step(
                self.plan,
                self._tallies,
                answers=self._stage_answers,
                failures=self._failures_in_a_row,
                last_failure=self._last_failure,
            )
            if step is None:
                return
            # No request reaches a candidate that is rolled back, while other changes may hold up the step itself.
            self._stopped = step.action != "share"
            if step.action == "share":
                self.plan = replace(self.plan, share=step.share)
                self._stage_answers = 0
        self._act(self, step)
