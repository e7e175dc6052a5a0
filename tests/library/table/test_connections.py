"""Connections and subscriptions, on a DynamoDB that evaluates the real expressions.

The emulator is not AWS: not proved here are IAM, TTL's own deletions, and that DynamoDB counts a page of a Query
as the emulator does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import Stubber

from docprogress.document import Connection, Subscription
from docprogress.table.client import Table
from docprogress.table.connections import Connections
from docprogress.table.states import States
from tests.library.table.support import NOW, Clock, live, offline_client, start

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@pytest.mark.emulator
class TestSubscriptions:
    EXPIRES = int(NOW) + 7200

    def test_a_connection_is_kept_with_its_principal_until_it_expires(
        self, client: DynamoDBClient, table_name: str, connections: Connections
    ) -> None:
        connections.add_connection(Connection("c=1", self.EXPIRES, "alice"), connected_at=1_800_000_000_123)

        assert self._connection(client, table_name, "c=1") == {
            "pk": {"S": "CONNECTION#c=1"},
            "sk": {"S": "CONNECTION"},
            "connected_at": {"N": "1800000000123"},
            "principal_id": {"S": "alice"},
            "expires_at": {"N": str(self.EXPIRES)},
        }

    def test_a_connection_without_a_principal_has_none(
        self, client: DynamoDBClient, table_name: str, connections: Connections
    ) -> None:
        connections.add_connection(Connection("anonymous", self.EXPIRES, None), connected_at=1)

        assert "principal_id" not in self._connection(client, table_name, "anonymous")

    def test_a_subscription_is_found_with_when_it_was_made_and_when_it_expires(
        self, connections: Connections, document_id: str, clock: Clock
    ) -> None:
        clock.now += 0.123
        connections.subscribe(document_id, Connection("c1", self.EXPIRES, None))

        assert list(connections.watchers(document_id)) == [
            [Subscription("c1", int(NOW * 1000) + 123, self.EXPIRES, None)]
        ]

    def test_watchers_are_read_from_behind_the_one_that_was_reached_last(
        self, connections: Connections, document_id: str
    ) -> None:
        for connection_id in ("c1", "c2", "c3"):
            connections.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))

        assert [[each.connection_id for each in page] for page in connections.watchers(document_id, after="c1")] == [
            ["c2", "c3"]
        ]

    def test_the_state_of_a_document_is_no_watcher(
        self, connections: Connections, store: States, document_id: str
    ) -> None:
        start(store, document_id)

        assert live(connections, document_id) == []

    def test_unsubscribing_ends_one_subscription_and_is_repeatable(
        self, connections: Connections, document_id: str
    ) -> None:
        for connection_id in ("c1", "c2"):
            connections.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        for _ in range(2):
            connections.unsubscribe(document_id, "c1")

        assert live(connections, document_id) == ["c2"]

    def test_an_expired_subscription_is_told_with_its_end_so_that_it_can_be_closed(
        self, connections: Connections, document_id: str, clock: Clock
    ) -> None:
        connections.subscribe(document_id, Connection("old", int(NOW) + 10, "alice"))
        clock.now += 30

        assert list(connections.watchers(document_id)) == [
            [Subscription("old", int(NOW * 1000), int(NOW) + 10, "alice")]
        ]

    def test_an_expired_connection_is_not_found(self, connections: Connections, clock: Clock) -> None:
        connection = Connection("short", int(NOW) + 10, "alice")
        connections.add_connection(connection, connected_at=1)
        assert connections.connection("short") == connection
        clock.now += 10
        assert connections.connection("short") is None

    def test_a_connection_may_have_so_many_subscriptions_and_renew_each(
        self, connections: Connections, document_id: str
    ) -> None:
        connection = Connection(f"c-{document_id}", self.EXPIRES, None)
        for number in range(3):
            assert connections.may_subscribe(f"{document_id}-{number}", connection.connection_id, limit=3)
            connections.subscribe(f"{document_id}-{number}", connection)

        assert not connections.may_subscribe(f"{document_id}-3", connection.connection_id, limit=3)
        assert connections.may_subscribe(f"{document_id}-1", connection.connection_id, limit=3)
        assert connections.may_subscribe(document_id, "another", limit=3)

    def test_a_connection_that_is_gone_is_forgotten_and_the_others_stay(
        self, connections: Connections, document_id: str
    ) -> None:
        for connection_id in ("c1", "c2", "c3"):
            connections.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        gone = [subscription for page in connections.watchers(document_id) for subscription in page][:2]
        connections.forget(document_id, gone)

        assert live(connections, document_id) == ["c3"]

    def test_forgetting_spares_a_subscription_made_meanwhile(
        self, connections: Connections, document_id: str, clock: Clock
    ) -> None:
        for connection_id in ("c1", "c2"):
            connections.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        gone = [subscription for page in connections.watchers(document_id) for subscription in page]
        clock.now += 0.001
        connections.subscribe(document_id, Connection("c1", self.EXPIRES, None))
        connections.forget(document_id, gone)

        assert live(connections, document_id) == ["c1"]

    def test_forgetting_what_is_forgotten_already_is_no_error(self, connections: Connections, document_id: str) -> None:
        connections.forget(document_id, [Subscription("never", 1, self.EXPIRES, None)])

        assert live(connections, document_id) == []

    def test_a_connection_leaves_with_all_its_subscriptions_and_nobody_elses(
        self, client: DynamoDBClient, table_name: str, connections: Connections, store: States, document_id: str
    ) -> None:
        connections.add_connection(Connection("leaver", self.EXPIRES, None), connected_at=1)
        documents = [f"{document_id}-{number}" for number in range(60)]
        for name in documents:
            connections.subscribe(name, Connection("leaver", self.EXPIRES, None))
        connections.subscribe(documents[0], Connection("stayer", self.EXPIRES, None))
        start(store, documents[0])

        connections.remove_connection("leaver")

        assert [name for name in documents if live(connections, name)] == documents[:1]
        assert live(connections, documents[0]) == ["stayer"]
        assert store.read(documents[0]) is not None
        assert self._connection(client, table_name, "leaver") is None

    def test_removing_a_connection_that_is_not_there_is_no_error(self, connections: Connections) -> None:
        connections.remove_connection("never-was")

    def test_watchers_come_a_page_of_the_query_at_a_time(
        self, client: DynamoDBClient, table_name: str, connections: Connections, document_id: str
    ) -> None:
        # Ids of 900 bytes, in the key and beside it, make a megabyte of some 570 rows.
        ids = [f"{number:04d}-{'x' * 895}" for number in range(800)]
        subscribed: list[Any] = [
            {
                "PutRequest": {
                    "Item": {
                        "pk": {"S": f"DOCUMENT#{document_id}"},
                        "sk": {"S": f"CONNECTION#{connection_id}"},
                        "connection_id": {"S": connection_id},
                        "subscribed_at": {"N": "1"},
                        "expires_at": {"N": str(self.EXPIRES)},
                    }
                }
            }
            for connection_id in ids
        ]
        for first in range(0, len(subscribed), 25):
            client.batch_write_item(RequestItems={table_name: subscribed[first : first + 25]})

        pages = list(connections.watchers(document_id))

        assert len(pages) >= 2
        assert [subscription.connection_id for page in pages for subscription in page] == ids

    @pytest.mark.parametrize("spoilt", [{}, {"subscribed_at": {"N": "1"}}, {"subscribed_at": {"S": "1"}}])
    def test_a_row_that_cannot_be_read_costs_the_others_nothing(
        self,
        client: DynamoDBClient,
        table_name: str,
        connections: Connections,
        document_id: str,
        spoilt: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        for connection_id in ("a=", "c="):
            connections.subscribe(document_id, Connection(connection_id, self.EXPIRES))
        key: Any = {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "CONNECTION#b="}}
        client.put_item(TableName=table_name, Item={**key, "connection_id": {"S": "b="}, **spoilt})

        pages = list(connections.watchers(document_id))

        assert [subscription.connection_id for page in pages for subscription in page] == ["a=", "c="]
        assert "A subscription that cannot be read is passed over" in caplog.text

    def test_what_was_written_last_is_read_and_no_more_of_it_at_a_time_than_memory_bears(
        self, client: DynamoDBClient, connections: Connections, store: States, document_id: str
    ) -> None:
        asked: dict[str, Any] = {}

        def note(params: Any, model: Any, **_: object) -> None:
            asked[f"{model.name} {params.get('KeyConditionExpression', params.get('Key'))}"] = params

        client.meta.events.register("provide-client-params.dynamodb", note)
        try:
            list(connections.watchers(document_id))
            connections.connection("c1")
            connections.unsubscribe(document_id, "c1")
            store.read(document_id)
            store.find(document_id)
        finally:
            client.meta.events.unregister("provide-client-params.dynamodb", note)

        assert len(asked) == 5
        for read, params in asked.items():
            assert params.get("ConsistentRead"), f"a watcher could miss a state between two reads: {read}"
        assert [params["Limit"] for params in asked.values() if "Limit" in params] == [1000]

    @staticmethod
    def _connection(client: DynamoDBClient, table_name: str, connection_id: str) -> Any:
        key = {"pk": {"S": f"CONNECTION#{connection_id}"}, "sk": {"S": "CONNECTION"}}
        return client.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item")


def test_a_disconnect_deletes_again_what_dynamodb_left_over() -> None:
    client = offline_client()
    key = {"pk": {"S": "DOCUMENT#d"}, "sk": {"S": "CONNECTION#c"}}
    connection = {"pk": {"S": "CONNECTION#c"}, "sk": {"S": "CONNECTION"}}
    left = {"t": [{"DeleteRequest": {"Key": key}}]}
    with Stubber(client) as stubber:
        stubber.add_response("query", {"Items": [key]})
        stubber.add_response(
            "batch_write_item",
            {"UnprocessedItems": left},
            {"RequestItems": {"t": [*left["t"], {"DeleteRequest": {"Key": connection}}]}},
        )
        stubber.add_response("batch_write_item", {"UnprocessedItems": {}}, {"RequestItems": left})
        Connections(Table("t", lambda: client)).remove_connection("c")
        stubber.assert_no_pending_responses()
    client.close()


def test_what_dynamodb_leaves_over_again_and_again_is_left_to_its_ttl(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("docprogress.table.connections.time.sleep", waits.append)
    monkeypatch.setattr("docprogress.table.connections.jitter", lambda _least, most: most)
    client = offline_client()
    left: Any = {"t": [{"DeleteRequest": {"Key": {"pk": {"S": "CONNECTION#c"}, "sk": {"S": "CONNECTION"}}}}]}
    with Stubber(client) as stubber:
        stubber.add_response("query", {"Items": []})
        for _ in range(6):
            stubber.add_response("batch_write_item", {"UnprocessedItems": left}, {"RequestItems": left})
        Connections(Table("t", lambda: client)).remove_connection("c")
        stubber.assert_no_pending_responses()
    client.close()
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert "1 rows of a closed connection are left to their TTL" in caplog.messages


def test_a_subscription_that_cannot_be_forgotten_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("delete_item", "ThrottlingException")
        stubber.add_response("delete_item", {})
        Connections(Table("t", lambda: client)).forget("d", [Subscription(id_, 1, 2, None) for id_ in ("c1", "c2")])
        stubber.assert_no_pending_responses()
    client.close()
    assert "A subscription is not forgotten yet" in caplog.text
