"""The programs of examples/tutorials/, unchanged on Warren and on RabbitMQ, in both languages and across them.

On Warren, one program connects to the first node and its partner to the last.
"""

from collections.abc import Iterator

import pika
import pytest

from integration.differential.brokers import Missing, rabbitmq
from integration.examples.programs import LANGUAGES, Watched, install_modules, run
from integration.harness import Cluster, temporary_directory

crossed = pytest.mark.parametrize(("source", "target"), [("py", "js"), ("js", "py")])
"""Every program runs, and each language talks to the other."""


@pytest.fixture(scope="module", params=["warren", "rabbitmq"])
def urls(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Where the two programs of a tutorial connect."""
    if request.param == "warren":
        with temporary_directory() as directory, Cluster(directory) as cluster:
            yield cluster.nodes[0].url, cluster.nodes[-1].url
        return
    try:
        with rabbitmq() as (host, port):
            url = f"amqp://guest:guest@{host}:{port}/%2F"
            yield url, url
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """Both languages have their library."""
    install_modules()


def forget(url: str, queue: str) -> None:
    """Delete a queue, with what a worker that was ended did not get to ack."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)


@crossed
def test_hello(urls: tuple[str, str], source: str, target: str) -> None:
    """1: a text goes through a queue, whether somebody waits already or not."""
    first, last = urls
    assert run(first, f"tutorials/hello_send.{source}", "안녕") == "sent 안녕"
    with Watched(last, f"tutorials/hello_receive.{target}") as receiver:
        assert receiver.first == "waiting"
        assert receiver.line() == "received 안녕"
        run(first, f"tutorials/hello_send.{source}", "and another")
        assert receiver.line() == "received and another"
        assert receiver.is_silent(0.1)


@crossed
def test_work_goes_to_who_is_free(urls: tuple[str, str], source: str, target: str) -> None:
    """2: while a worker has a long task, the other does all the short ones."""
    first, last = urls
    forget(first, "work")
    with (
        Watched(first, f"tutorials/work_do.{target}") as one,
        Watched(last, f"tutorials/work_do.{target}") as other,
    ):
        assert one.first == other.first == "ready"
        assert run(first, f"tutorials/work_give.{source}", "long" + 30 * ".") == "gave 1"
        long, free = (one, other) if one.has_line(1.0) else (other, one)
        assert long.line() == "begins long" + 30 * "."
        assert run(first, f"tutorials/work_give.{source}", "a.", "b.", "c.") == "gave 3"
        wanted = [f"{does} {task}." for task in "abc" for does in ("begins", "done")]
        assert [free.line() for _ in wanted] == wanted
        assert long.line() == "done long" + 30 * "."


@crossed
def test_work_of_a_dead_worker_is_done_by_another(urls: tuple[str, str], source: str, target: str) -> None:
    """2: what was not acked goes to another worker, marked as redelivered."""
    first, last = urls
    forget(first, "work")
    with Watched(first, f"tutorials/work_do.{target}") as doomed:
        assert doomed.first == "ready"
        run(first, f"tutorials/work_give.{source}", "heavy..........")
        assert doomed.line() == "begins heavy.........."
    with Watched(last, f"tutorials/work_do.{target}") as survivor:
        assert {survivor.first, survivor.line()} == {"ready", "again heavy.........."}
        assert survivor.line() == "done heavy.........."


@crossed
def test_news_reach_all_who_listen(urls: tuple[str, str], source: str, target: str) -> None:
    """3: every listener hears everything from the moment it listens; what nobody hears is gone."""
    first, last = urls
    assert run(first, f"tutorials/news_tell.{source}", "too early") == "told too early"
    with (
        Watched(first, f"tutorials/news_hear.{target}") as one,
        Watched(last, f"tutorials/news_hear.{target}") as other,
    ):
        assert one.first == other.first == "listening"
        run(first, f"tutorials/news_tell.{source}", "토끼")
        assert one.line() == other.line() == "heard 토끼"


@crossed
def test_words_reach_who_asked_for_them(urls: tuple[str, str], source: str, target: str) -> None:
    """4: a direct exchange; one listener may ask for several words, and several for one."""
    first, last = urls
    with (
        Watched(last, f"tutorials/route_hear.{target}", "rain", "snow") as wet,
        Watched(first, f"tutorials/route_hear.{target}", "snow") as cold,
    ):
        assert wet.first == cold.first == "listening"
        for word in ("rain", "sun", "snow"):
            assert run(first, f"tutorials/route_tell.{source}", word, "today") == f"told {word}: today"
        assert [wet.line(), wet.line()] == ["heard rain: today", "heard snow: today"]
        assert cold.line() == "heard snow: today"
        assert wet.is_silent(0.1)


@crossed
def test_topics_reach_whose_pattern_fits(urls: tuple[str, str], source: str, target: str) -> None:
    """5: * is one word, # any number; two patterns of one listener that fit bring one copy."""
    first, last = urls
    with (
        Watched(last, f"tutorials/topic_hear.{target}", "garden.#", "*.*.rain") as garden,
        Watched(first, f"tutorials/topic_hear.{target}", "*.north.*") as north,
    ):
        assert garden.first == north.first == "listening"
        for key in ("garden", "garden.north.rain", "roof.rain", "roof.north.wind"):
            run(first, f"tutorials/topic_tell.{source}", key, "now")
        assert [garden.line(), garden.line()] == ["heard garden: now", "heard garden.north.rain: now"]
        assert [north.line(), north.line()] == ["heard garden.north.rain: now", "heard roof.north.wind: now"]
        assert garden.is_silent(0.1)


@crossed
@pytest.mark.parametrize("direct", [(), ("--direct",)], ids=["queue", "direct"])
def test_requests_are_answered(
    urls: tuple[str, str], source: str, target: str, direct: tuple[str, ...]
) -> None:
    """6: each answer finds its question, through a queue of its own or directly."""
    first, last = urls
    with Watched(last, f"tutorials/rpc_answer.{target}") as server:
        assert server.first == "answering"
        told = run(first, f"tutorials/rpc_ask.{source}", *direct, "27", "1", "97")
        assert told.splitlines() == ["27 takes 111 steps", "1 takes 0 steps", "97 takes 118 steps"]


@pytest.mark.parametrize("source", LANGUAGES)
def test_messages_are_confirmed(urls: tuple[str, str], source: str) -> None:
    """7: three ways to wait for confirms, and a message that comes back."""
    assert run(urls[0], f"tutorials/confirms.{source}", "25").splitlines() == [
        "one by one: 25 confirmed",
        "in batches: 25 confirmed",
        "as they come: 25 confirmed",
        "the queue holds 75",
        "came back: NO_ROUTE",
    ]
