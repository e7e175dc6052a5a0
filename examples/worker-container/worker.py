"""Takes documents from an SQS queue until the container is stopped. A message: {"docId": "invoice-7", "pages": 80}."""

import json
import logging
import os
import signal
import threading
import time
from typing import Any

import docprogress

# The queue's maxReceiveCount: after so many attempts a message goes to its dead-letter queue.
RECEIVED_AT_MOST = int(os.environ.get("RECEIVED_AT_MOST", "3"))


def read_page() -> None:
    time.sleep(0.01)  # the work


def is_done(publisher: docprogress.Publisher, message: dict[str, Any]) -> bool:
    """Whether nobody needs the message again."""
    attributes = message["Attributes"]
    try:
        document = json.loads(message["Body"])
        with publisher.track(
            document["docId"],
            run_id=message["MessageId"],
            # A message that was sent earlier never takes over from a later one.
            order=int(attributes["SentTimestamp"]),
            retry_follows=max(0, RECEIVED_AT_MOST - int(attributes["ApproximateReceiveCount"])),
        ) as tracker:
            tracker.start(total=document["pages"])
            for _ in range(document["pages"]):
                read_page()
                tracker.advance()
    except (docprogress.AlreadyProcessed, docprogress.Superseded):
        return True  # delivered twice, replaced by a newer run, or cancelled
    except Exception:
        logging.exception("Left in the queue: %s", message["MessageId"])
        return False
    return True


def main() -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    publisher = docprogress.connect()
    queue = publisher.session.client("sqs")
    url = os.environ["QUEUE_URL"]
    while not stopping.is_set():
        answer = queue.receive_message(
            QueueUrl=url, WaitTimeSeconds=5, AttributeNames=["ApproximateReceiveCount", "SentTimestamp"]
        )
        for message in answer.get("Messages", []):
            if is_done(publisher, message):
                queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
