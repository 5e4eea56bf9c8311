"""The schedules of docs/retraining: each is what its scheduler can read, as far as that can be told here."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

HERE = Path("docs/retraining")


def test_the_units_pass_systemd() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    units = [str(HERE / name) for name in ("segue-retrain.service", "segue-retrain.timer")]
    ended = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(("code", "ends", "says"), [(0, 0, "published"), (3, 0, "rejected"), (1, 1, "failed")])
def test_the_script_tells_rejected_from_failed(tmp_path: Path, code: int, ends: int, says: str) -> None:
    segue = tmp_path / "segue"
    segue.write_text(f"#!/bin/sh\nexit {code}\n")
    segue.chmod(0o755)
    words = ["/bin/sh", str(HERE / "retrain.sh"), "recipe.toml"]
    ended = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    assert ended.returncode == ends
    assert says in ended.stderr


def test_the_cron_table_has_five_fields_a_user_and_a_command() -> None:
    lines = [line for line in (HERE / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    jobs = [line.split(maxsplit=6) for line in lines if not re.match("[A-Z]+=", line)]
    assert [job[:6] for job in jobs] == [["17", "3", "*", "*", "1", "segue"]]
    assert "retrain.sh" in jobs[0][6]


def test_the_cron_job_never_runs_twice_at_once() -> None:
    job = yaml.safe_load((HERE / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # What a pod failure policy demands.
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_workflow_runs_one_at_a_time_on_a_schedule() -> None:
    workflow = yaml.safe_load((HERE / "github-actions.yml").read_text())
    assert workflow[True]["schedule"] == [{"cron": "17 3 * * 1"}]  # YAML reads `on` as a boolean.
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert any("retrain.sh" in step.get("run", "") for step in workflow["jobs"]["retrain"]["steps"])


def test_the_dag_has_two_tasks_and_rejected_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow is far too large to install for this: a stand-in takes the arguments that its operators take."""
    tasks: dict[str, dict[str, Any]] = {}
    order: list[tuple[str, str]] = []

    class Task:
        def __init__(self, *, task_id: str, **arguments: Any) -> None:
            self.name = task_id
            tasks[task_id] = arguments

        def __rshift__(self, other: "Task") -> None:
            order.append((self.name, other.name))

    class Dag:
        def __init__(self, **arguments: Any) -> None:
            assert {"dag_id", "schedule", "start_date", "catchup"} <= set(arguments)

        def __enter__(self) -> "Dag":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    for name in ("airflow", "airflow.providers", "airflow.providers.standard", "airflow.providers.standard.operators"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    bash, sdk = ModuleType("airflow.providers.standard.operators.bash"), ModuleType("airflow.sdk")
    bash.BashOperator, sdk.DAG = Task, Dag  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, bash.__name__, bash)
    monkeypatch.setitem(sys.modules, sdk.__name__, sdk)
    runpy.run_path(str(HERE / "airflow_dag.py"))
    assert order == [("drift", "retrain")]
    assert tasks["retrain"]["skip_on_exit_code"] == 3
    assert "$? -eq 4" in tasks["drift"]["bash_command"]
