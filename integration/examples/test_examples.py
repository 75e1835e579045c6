"""The programs under examples/, each run as its README says, across nodes and across languages.

`EXAMPLES_AMQP_URLS` (a list with commas) names another broker to run them against; without it a cluster is started.
"""

import os
from collections.abc import Iterator

import pytest

from integration.examples.programs import LANGUAGES, Watched, install_modules, run
from integration.harness import Cluster, temporary_directory


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    """Where to connect: one address a node."""
    given = os.environ.get("EXAMPLES_AMQP_URLS")
    if given:
        yield given.split(",")
        return
    with temporary_directory() as directory, Cluster(directory) as cluster:
        yield [node.url for node in cluster.nodes]


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """Both languages have their library."""
    install_modules()


@pytest.mark.parametrize("sender", LANGUAGES)
@pytest.mark.parametrize("receiver", LANGUAGES)
def test_shop_gives_every_order_to_every_service(urls: list[str], sender: str, receiver: str) -> None:
    first, last = urls[0], urls[-1]
    services = ("stock", "payment", "mail")
    started = [Watched(last, f"shop/service.{receiver}", service) for service in services]
    try:
        assert [f"{service} waits for orders" for service in services] == [each.first for each in started]
        assert run(first, f"shop/order.{sender}", "두 개의 컵", "pot") == "ordered | 두 개의 컵 | pot"
        for service, each in zip(services, started, strict=True):
            assert each.line() == f"{service} handles | 두 개의 컵 | pot"
            assert each.is_silent(0.1)
    finally:
        for each in started:
            each.__exit__()


def test_shop_keeps_orders_for_a_service_that_is_away(urls: list[str]) -> None:
    with Watched(urls[0], "shop/service.py", "stock") as service:
        assert service.first == "stock waits for orders"
    run(urls[-1], "shop/order.js", "later")
    with Watched(urls[0], "shop/service.js", "stock") as service:
        assert {service.first, service.line()} == {"stock waits for orders", "stock handles | later"}


@pytest.mark.parametrize("sender", LANGUAGES)
@pytest.mark.parametrize("receiver", LANGUAGES)
def test_mail_is_written_by_the_worker_of_its_template(urls: list[str], sender: str, receiver: str) -> None:
    first, last = urls[0], urls[-1]
    with (
        Watched(first, f"mail/worker.{receiver}", "*.ko") as korean,
        Watched(last, f"mail/worker.{receiver}", "invoice.#") as invoices,
    ):
        assert (korean.first, invoices.first) == ("waiting for *.ko", "waiting for invoice.#")
        sent = run(last, f"mail/send.{sender}", "welcome.ko", "지우")
        assert sent == "welcome.ko for 지우 is on its way"
        assert korean.line() == "지우님, 환영합니다!"
        run(first, f"mail/send.{sender}", "invoice.ko", "민준")
        assert korean.line() == invoices.line() == "민준님, 청구서를 첨부합니다."
        run(first, f"mail/send.{sender}", "invoice.en", "Ann")
        assert invoices.line() == "Dear Ann, your invoice is attached."
        assert korean.is_silent()
        # A template that no worker knows is rejected and not given to a worker for ever.
        run(first, f"mail/send.{sender}", "farewell.ko", "Ann")
        assert korean.is_silent()


@pytest.mark.parametrize("sender", LANGUAGES)
def test_mail_that_nobody_writes_comes_back(urls: list[str], sender: str) -> None:
    assert run(urls[0], f"mail/send.{sender}", "welcome.fr", "Zoé") == "nobody writes welcome.fr"


@pytest.mark.parametrize("sender", LANGUAGES)
@pytest.mark.parametrize("receiver", LANGUAGES)
def test_logs_reach_who_watches_their_severity(urls: list[str], sender: str, receiver: str) -> None:
    first, last = urls[0], urls[-1]
    with (
        Watched(last, f"logs/watch.{receiver}", "error", "warning") as serious,
        Watched(first, f"logs/watch.{receiver}", "info") as chatty,
    ):
        assert (serious.first, chatty.first) == ("watching error warning", "watching info")
        for severity, text in (
            ("error", "disk is full"),
            ("info", "사용자 로그인"),
            ("debug", "x"),
            ("warning", "hot"),
        ):
            run(first, f"logs/log.{sender}", severity, text)
        assert [serious.line(), serious.line()] == ["error: disk is full", "warning: hot"]
        assert chatty.line() == "info: 사용자 로그인"
        assert serious.is_silent()
        assert chatty.is_silent(0)
