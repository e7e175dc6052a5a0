"""Behind the route `say`: {"action": "say", "docId": "invoice-7", "text": "See page 3"} goes to all who watch it."""

import json
from typing import Any

import docprogress
from docprogress.access import may_watch
from docprogress.document import is_document_id


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    match json.loads(event["body"]):
        case {"docId": document_id, "text": str(text)} if is_document_id(document_id):
            said = _say(document_id, text, (event["requestContext"].get("authorizer") or {}).get("principalId"))
        case _:
            said = False
    return {"statusCode": 200, "body": json.dumps({"status": "said" if said else "refused"})}


def _say(document_id: str, text: str, speaker: str | None) -> bool:
    publisher = docprogress.connect()
    if not may_watch(speaker, publisher.states.find(document_id)):
        return False
    publisher.post(document_id, {"status": "chat", "text": text[:500], "from": speaker})
    return True
