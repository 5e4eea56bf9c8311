"""Retrain weekly, and at once when songs have drifted: a DAG for Airflow."""

from datetime import datetime, timedelta

try:
    from airflow.providers.standard.operators.bash import BashOperator  # Airflow 3
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG  # Airflow 2
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id="segue_retrain",
    description="A challenger is published where it is better than the champion beyond chance.",
    schedule="17 3 * * 1",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},  # A retry resumes after the last stage.
) as dag:
    # 4 means that the songs have drifted. It is told, and the weekly retraining runs in either case.
    drift = BashOperator(
        task_id="drift",
        bash_command=(
            "segue releases fetch s3://models/genres latest /var/lib/segue/champion && "
            "segue drift /var/lib/segue/champion /var/lib/segue/new-songs.arrow || [ $? -eq 4 ]"
        ),
    )
    # 3 means rejected: the task is shown as skipped and not as failed.
    retrain = BashOperator(
        task_id="retrain",
        bash_command="segue retrain /etc/segue/weekly.toml --json",
        skip_on_exit_code=3,
        execution_timeout=timedelta(hours=12),
    )
    drift >> retrain
