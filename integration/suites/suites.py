"""What each suite needs to run: packages beside its sources, the broker's port in its files, and a command.

The sources are fetched by whoever runs this, and are copied before anything is changed in them. Where a suite takes
no address, the number 5672 in the named files becomes the broker's port.
"""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PYTEST = "pytest>=8", "pytest-timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One project's tests.

    Args:
        packages: installed from PyPI, or from npm for Node.
        command: run in the copy; {python}, {port} and {report} are replaced, as in the variables.
        rewritten: files in which 5672 becomes the port.
        replaced: file of the copy -> file of this directory that takes its place.
        with_metadata: its own package is installed as well, for a version that it looks up.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    rewritten: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    with_metadata: bool = False
    is_node: bool = False


def _pytest(*arguments: str) -> tuple[str, ...]:
    common = ("-q", "-p", "no:cacheprovider", "-W", "ignore", "--junitxml={report}")
    return ("{python}", "-m", "pytest", *common, *arguments)


_KOMBU_ADDRESS = ("RABBITMQ_HOST", "127.0.0.1"), ("RABBITMQ_5672_TCP", "{port}")

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="amqplib",
            is_node=True,
            packages=("claire@0.4.1",),
            # The time limit counts for a whole file too.
            command=(
                "node", "--test", "--test-timeout=60000", "--test-reporter=junit",
                "--test-reporter-destination={report}",
            ),
            variables=(("URL", "amqp://localhost:{port}"),),
            rewritten=("lib/connect.js",),
        ),
        Suite(
            name="pika",
            packages=(*PYTEST, "gevent", "tornado", "twisted"),
            command=_pytest("tests/acceptance"),
            rewritten=("tests/acceptance/*.py", "tests/base/*.py"),
        ),
        Suite(
            name="py-amqp",
            packages=(*PYTEST, "vine"),
            # Without those that need a broker with TLS and a certificate of theirs.
            command=_pytest("-E", "rabbitmq", "-k", "not tls", "t/integration"),
            variables=_KOMBU_ADDRESS,
        ),
        Suite(
            name="kombu",
            packages=(*PYTEST, "pytest-freezer", "hypothesis", "amqp", "vine", "tzdata", "packaging"),
            command=_pytest("-E", "py-amqp", "t/integration/test_py_amqp.py"),
            variables=_KOMBU_ADDRESS,
        ),
        Suite(
            name="aio-pika",
            packages=(*PYTEST, "aiomisc-pytest", "shortuuid", "timeout-decorator"),
            command=_pytest("--timeout=120", "--ignore=tests/test_amqps.py", "tests"),
            variables=(("BROKER_PORT", "{port}"),),
            replaced=(("tests/docker_client.py", "no_engine.py"),),
            with_metadata=True,
        ),
    )
}  # fmt: skip
