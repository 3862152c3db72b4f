"""`python -m loadtest.tune`: the command line, the search and the capacity plan."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.reporting.cli import PeerError
from loadtest.tune.capacity import CapacityPlan
from loadtest.tune.report import TuningReport
from loadtest.tune.search import Measurement, Trial, search
from loadtest.tune.setting import UNTUNED, Setting
from serving.settings import Settings
from tests.commands import run

MODEL = "efficientnet_lite0"


def tune(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("loadtest.tune", *arguments, env=os.environ | environment)


def test_one_command_tunes_plans_and_checks_itself(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "tuned.env"

    result = tune(
        *("--variants", "onnxruntime-fp32", "--workers", "--threads", "--batches", "--rounds", "1"),
        *("--traffic", "500", "2000"),
        *("--seconds", "0.5", "--resolution", "0.3", "--p99-ms", "400"),
        *("--settings", str(file), "--output", str(tmp_path / "tune")),
        HALFTONE_ARTIFACTS=str(small),
        HALFTONE_BATCH="32",
        HALFTONE_WORKERS="3",
    )

    report = json.loads((tmp_path / "tune.json").read_text())
    plan = report["plan"]
    assert result.returncode == (0 if plan["error"] <= 0.15 else 1), result.stderr
    assert report["chosen"]["rate"] >= report["untuned"]["rate"] > 0
    assert {trial["setting"] for trial in report["trials"]} == {"untuned", "onnxruntime-fp32"}
    assert [each["requests_per_second"] for each in plan["traffic"]] == [500, 2000]
    assert plan["traffic"][0]["replicas"] <= plan["traffic"][1]["replicas"]
    assert f"{plan['traffic'][1]['replicas']} replicas" in (tmp_path / "tune.md").read_text()
    read = Settings.from_environment({"HALFTONE_SETTINGS": str(file)})
    assert (read.model, read.variant) == (MODEL, report["chosen"]["thorough"][0]["variant"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no_such"], "there is no bundle artifacts/no_such: `python -m export --model NAME` makes one"),
        (["--model", "a,b"], "one bundle"),
        (["--p99-ms", "0"], "--p99-ms must be"),
        (["--workers", "257"], "--workers must be 1 to 256"),
        (["--rounds", "0"], "--rounds and --finalists must be"),
        (["--utilisation", "1.2"], "--utilisation must be"),
        (["--traffic", "0"], "--traffic must be positive"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], message: str) -> None:
    result = tune(*arguments)

    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_variant_that_the_service_refuses_is_not_chosen(small: Path, tmp_path: Path) -> None:
    result = tune(
        *("--variants", "openvino-int8", "--workers", "--threads", "--batches", "--seconds", "0.5"),
        *("--rounds", "1", "--p99-ms", "0.01", "--settings", str(tmp_path / "no.env")),
        HALFTONE_ARTIFACTS=str(small),
    )

    assert result.returncode == 1
    assert "no setting held p99 within 0.01 ms" in result.stderr
    assert "openvino-int8" in result.stderr
    assert not (tmp_path / "no.env").exists()


def measurement(rate: float) -> Measurement:
    return Measurement(rate=rate, p99_ms=1.0, variant="v", peak_mib=100.0, client_bound=False)


rates = st.floats(1, 1000)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), rates, min_size=1),
    rates,
    st.floats(0.5, 2),
    st.floats(0.5, 2),
    st.floats(0.5, 2),
)
def test_the_best_trial_of_the_rounds_is_never_slower_than_the_untuned_service(
    by_variant: dict[str, float], untuned: float, more_workers: float, fewer_threads: float, batches: float
) -> None:
    def measure(setting: Setting, thorough: bool) -> Measurement:
        if setting.variant == "a":
            raise PeerError("refused")
        rate = untuned if setting == UNTUNED else by_variant[setting.variant]
        # Threads are tried with one worker.
        assert not (setting.workers and setting.threads)
        spread = (more_workers if setting.workers else 1) * (fewer_threads if setting.threads else 1)
        return measurement(rate * spread * (batches if setting.batch else 1))

    trials = search(measure, variants=sorted(by_variant), workers=[2], threads=[1], batches=[8], finalists=2, rounds=2)

    finalists = [trial for trial in trials if trial.thorough]
    assert trials[0] is finalists[0]
    assert all(len(trial.thorough) == 2 for trial in finalists)
    assert trials[0].rate == max(trial.rate for trial in finalists) >= untuned
    proven = [rate for name, rate in by_variant.items() if name != "a"]
    if proven:
        best = max(proven) * max(1, more_workers, fewer_threads) * max(1, batches)
        assert trials[0].rate == pytest.approx(max(best, untuned))
    assert all(trial.reason == "refused" for trial in trials if trial.setting.variant == "a")


@pytest.mark.parametrize(("best", "tie"), [([102.0, 100.0], True), ([202.0, 200.0], False)])
def test_a_gain_within_the_noise_is_called_a_tie(best: list[float], tie: bool) -> None:
    report = TuningReport(
        date=datetime.now(UTC),
        command="",
        model="m",
        target_ms=50,
        verdicts={},
        trials=[
            Trial(setting=Setting(variant="v"), thorough=[measurement(rate) for rate in best]),
            Trial(setting=UNTUNED, thorough=[measurement(100), measurement(100)]),
        ],
        plan=CapacityPlan(rate=101, confirmed=101, utilisation=0.8, cores=2, peak_mib=100),
        traffic=(),
        hardware={},
        versions={},
    )

    assert ("a tie: the 2 rounds can't tell the two apart" in report.markdown()) == tie


@settings(deadline=None)
@given(rates, rates, st.floats(0.1, 1), st.floats(0.1, 1e5))
def test_a_plan_has_no_more_replicas_than_needed(
    rate: float, confirmed: float, utilisation: float, traffic: float
) -> None:
    plan = CapacityPlan(rate=rate, confirmed=confirmed, utilisation=utilisation, cores=2, peak_mib=400.5)

    count = plan.replicas(traffic)
    assert count * utilisation * rate >= traffic * (1 - 1e-9)
    assert count == 1 or (count - 1) * utilisation * rate <= traffic * (1 + 1e-9)
    assert plan.holds == (abs(rate - confirmed) <= 0.15 * confirmed or plan.error <= 0.15)
    assert plan.memory_mib >= 400.5
    assert f"{count} replica" in plan.sentence(traffic)
