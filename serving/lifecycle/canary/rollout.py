"""Roll-out with a canary: load a candidate beside the active version, try it out, then promote or withdraw it."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from models.common.text import line
from serving.http.errors import RequestError
from serving.lifecycle.canary.candidate import Candidate
from serving.lifecycle.canary.rule import Plan, Step
from serving.lifecycle.hot_swap import HotSwap, Swap
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")

MOST_DECISIONS = 50
"""Decisions of a model that are kept; the log has all."""

_RETRY_SECONDS = 0.1


What = Literal["started", "changed", "share", "promoted", "withdrawn", "rolled_back"]
By = Literal["operator", "rule"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an operator asks of a canary; None: as it is, or the default."""

    bundle: str | None = None
    share: float | None = None
    sticky: str | None = None
    auto: bool | None = None
    min_agreement: float | None = None
    max_slowdown: float | None = None

    def plan(self, former: Plan) -> Plan:
        """Return the plan with the requested changes."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        limits = {name: given.pop(name) for name in ("min_agreement", "max_slowdown") if name in given}
        given.pop("bundle", None)
        return replace(former, limits=replace(former.limits, **limits), **given)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One change of a roll-out."""

    time: str
    """UTC, in ISO 8601."""

    version: str
    """The candidate's version."""

    decision: What
    """What was done."""

    by: By
    """Who decided."""

    reason: str
    """Why, or with which plan."""


class Rollout:
    """Candidates of all models, at most one of each; its methods block: call them in a thread.

    Args:
        models: the models of the service.
        hot_swap: loads and activates models.
        recorder: counts evidence and decisions.
    """

    def __init__(self, models: Registry, hot_swap: HotSwap, recorder: Recorder) -> None:
        self._models = models
        self._hot_swap = hot_swap
        self._recorder = recorder
        self._decisions: defaultdict[str, deque[Decision]] = defaultdict(lambda: deque(maxlen=MOST_DECISIONS))

    def decisions(self, name: str) -> list[Decision]:
        """Return the last decisions about a model, oldest first."""
        return [*self._decisions[name]] if name in self._decisions else []

    def start(self, name: str, request: Request) -> None:
        """Load a candidate, or change the plan of the one that is there.

        Raises:
            RequestError: 404 no such model; 409 it is being replaced, another bundle is on trial, or the bundle is what
                serves already; 422 the bundle can't serve; 503 no memory or not ready. The active version then keeps
                serving.
        """
        with self._hot_swap.exclusive(name) as active:
            candidate = self._models.candidate(name)
            if candidate is None:
                self._load(name, request, active)
                return
            if request.bundle not in (None, candidate.model.bundle):
                raise RequestError(
                    409,
                    "canary_running",
                    f"{name} has the candidate {candidate.model.version} of {candidate.model.bundle} on trial: end "
                    f"that first with `DELETE /admin/models/{name}/canary`",
                )
            plan = request.plan(candidate.plan)
            self._decided(candidate, "changed", "operator", _shown(plan))
            candidate.change(plan)

    def promote(self, name: str) -> Swap:
        """Activate the candidate; the version that it replaces becomes the previous one.

        Raises:
            RequestError: 404 no such model, 409 there is no candidate or a swap runs, 503 not ready.
        """
        with self._hot_swap.exclusive(name) as active:
            return self._promote(self._candidate(name), active, "operator", "by request")

    def withdraw(self, name: str) -> None:
        """Take the candidate's requests away at once, and free it once the last one has ended.

        Raises:
            RequestError: as `promote`.
        """
        with self._hot_swap.exclusive(name):
            self._withdraw(self._candidate(name), "withdrawn", "operator", "by request")

    def _candidate(self, name: str) -> Candidate:
        candidate = self._models.candidate(name)
        if candidate is None:
            message = f"{name} has no candidate: load one with `POST /admin/models/{name}/canary`"
            raise RequestError(409, "no_canary", message)
        return candidate

    def _load(self, name: str, request: Request, active: ServedModel) -> None:
        model = self._hot_swap.load_beside(name, request.bundle, active)
        if model.version == active.version:
            self._hot_swap.free(model, model.close)
            raise RequestError(
                409,
                "same_version",
                f"{model.bundle} holds the version {model.version}, which serves already: put another one there, or "
                'name another bundle with {"bundle": "OTHER"}',
            )
        plan = request.plan(Plan())
        candidate = Candidate(
            model,
            plan,
            self._recorder.candidate(name, model.version),
            act=self._act,
            use_active=partial(self._models.use, name),
            idle=self._recorder.idle,
        )
        try:
            self._models.start_trial(candidate)
        except RequestError:
            candidate.close()
            raise
        self._recorder.trial(name, model.version, model.variant, model.queue, lambda: candidate.share)
        self._decided(candidate, "started", "operator", f"bundle {model.bundle}, {_shown(plan)}")

    def _act(self, candidate: Candidate, step: Step) -> None:
        """Do what the rule wants, in a thread: requests and the comparison go on."""
        if step.action == "share":
            self._decided(candidate, "share", "rule", step.reason)
            return
        threading.Thread(target=self._finish, args=(candidate, step), name="canary-act", daemon=True).start()

    def _finish(self, candidate: Candidate, step: Step) -> None:
        name = candidate.model.name
        while self._models.candidate(name) is candidate:
            try:
                with self._hot_swap.exclusive(name) as active:
                    # An operator may have ended it meanwhile.
                    if self._models.candidate(name) is not candidate:
                        return
                    if step.action == "promoted":
                        self._promote(candidate, active, "rule", step.reason)
                    else:
                        self._withdraw(candidate, "rolled_back", "rule", step.reason)
            except RequestError as error:
                if error.status != 409:
                    return
                # Another change of the model is under way.
                time.sleep(_RETRY_SECONDS)

    def _promote(self, candidate: Candidate, active: ServedModel, by: By, reason: str) -> Swap:
        start, model = time.monotonic(), candidate.model
        self._recorder.trial_ended(model.name, model.version, model.variant)
        swap = self._hot_swap.activate(model, active, start)
        model.on_trial = False
        self._recorder.swapped(model.name, "loaded")
        self._end(candidate, "promoted", by, reason)
        return swap

    def _withdraw(
        self,
        candidate: Candidate,
        decision: What,
        by: By,
        reason: str,
    ) -> None:
        model = candidate.model
        self._recorder.trial_ended(model.name, model.version, model.variant)
        self._end(candidate, decision, by, reason)
        self._hot_swap.free(model, candidate.close)

    def _end(self, candidate: Candidate, decision: What, by: By, reason: str) -> None:
        # First: a client that sees no candidate any more also sees why.
        self._decided(candidate, decision, by, reason)
        candidate.stop()
        self._models.end_trial(candidate.model.name)

    def _decided(
        self,
        candidate: Candidate,
        decision: What,
        by: By,
        reason: str,
    ) -> None:
        name, version = candidate.model.name, candidate.model.version
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._decisions[name].append(Decision(time=now, version=version, decision=decision, by=by, reason=reason))
        self._recorder.decided(name, decision, by)
        logger.info("canary of %s: %s %s by %s: %s", name, version, decision, by, line(reason))


def _shown(plan: Plan) -> str:
    sticky = f"sticky by {plan.sticky}" if plan.sticky else "by chance"
    by = "by the rule" if plan.auto else "by hand"
    return (
        f"share {plan.share:g}, {sticky}, {by}, min_agreement {plan.limits.min_agreement:g}, "
        f"max_slowdown {plan.limits.max_slowdown:g}"
    )
