"""A Celery application as people write them, for integration/test_celery.py and for the workers that it starts.

WARREN_CELERY_BROKERS: URLs with a semicolon between, the first tried first.
WARREN_CELERY_QUEUES: `quorum` for Celery's own delayed delivery; anything else for its defaults.
"""

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from kombu import Exchange, Queue

PRIORITIES = 10


def make_app(brokers: str, queues: str) -> Celery:
    """An application whose results come back over rpc://."""
    app = Celery("tasks", broker=brokers, backend="rpc://")
    app.conf.update(
        task_default_queue=f"celery-{queues}",
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_detect_quorum_queues=True,
        broker_connection_retry_on_startup=True,
        broker_heartbeat=10,
        result_persistent=False,
    )
    if queues == "quorum":
        app.conf.update(task_default_queue_type="quorum", task_default_exchange_type="topic")
    else:
        app.conf.task_queues = [
            Queue(f"celery-{queues}", Exchange(f"celery-{queues}"), routing_key=f"celery-{queues}"),
            Queue("ranked", Exchange("ranked"), routing_key="ranked", max_priority=PRIORITIES),
        ]
    return app


app = make_app(
    os.environ.get("WARREN_CELERY_BROKERS", "amqp://"), os.environ.get("WARREN_CELERY_QUEUES", "classic")
)


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def note(file: str, word: str) -> str:
    """Append a line, so that a test sees what ran, when, and in which order."""
    with Path(file).open("a") as log:
        log.write(f"{word}\n")
    return word


@app.task(bind=True, max_retries=5)
def fail_twice(self: "Task[Any, Any]") -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return int(self.request.retries)


@app.task
def hang_once(file: str) -> str:
    """The first worker that runs it never comes back; `file` tells the next one."""
    if not Path(file).exists():
        Path(file).write_text(str(os.getpid()))
        time.sleep(600)
    return "done"
