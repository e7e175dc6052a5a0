"""Who is posted to next, with what, and who is tried again when. No I/O, no clock: times are given.

Each watcher of a topic has one place for the newest message, and at most one post of it under way: so nobody hears
an older message after a newer one, and a watcher that cannot be reached costs one place, not a queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import chain, count, islice

from docprogress.posting.http1 import Response
from docprogress.posting.report import Recipient
from docprogress.posting.sigv4 import Payload, RequestSigner
from docprogress.posting.update import Update
from docprogress.posting.verdict import Verdict
from docprogress.process import jitter

_FIRST_RETRY_SECONDS = 0.1
_FIRST_RETRY_AFTER_HANG_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 10.0
# By then a page has asked by itself; and a newer message gives a place its time anew.
GIVE_UP_SECONDS = 60.0
# Places held for stragglers, some 500 bytes each. More of them are not tried again until the next message.
_MAX_STRAGGLERS = 20_000
# As many as a page of the table holds. What is beyond will answer 410 to the next update too.
_MAX_STALE = 5_000
_KEPT_TOPICS = 256
# So many refusals in a row are most likely everyone's: until somebody takes the message, one is asked at a time.
_REFUSALS_IN_A_ROW = 64


class Place:
    """One watcher's place for the newest message, while that is on its way.

    Attributes:
        sent: the message of the post under way, or of the last one.
        is_late: it is tried on the stragglers' share of the connections.
        is_slow: the post under way has waited so long that it no longer counts as one in flight.
        hung: the last post had no answer.
        resent: how often it was repeated at once because a kept connection had ended.
    """

    # Most places live for one post: what they never need stands here, and costs them nothing.
    sent: Payload | None = None
    signer: RequestSigner | None = None
    attempts = 0
    resent = 0
    hung = False
    is_late = False
    is_slow = False
    is_throttled = False
    is_tried = False
    is_waiting = False

    def __init__(self, topic: Topic, recipient: Recipient, now: float) -> None:
        self.topic = topic
        self.recipient = recipient
        self.update = topic.update
        self.payload = topic.update.payload
        self.since = now


class Topic:
    """What is told to one set of watchers: a document's states."""

    __slots__ = (
        "again",
        "due",
        "hung",
        "in_flight",
        "is_fresh",
        "is_late",
        "places",
        "refused_in_a_row",
        "slow",
        "stale",
        "unsent",
        "update",
        "used_at",
    )

    def __init__(self, update: Update) -> None:
        self.update = update  # the newest
        self.used_at = 0.0
        self.places: dict[str, Place] = {}
        self.slow: dict[str, None] = {}  # those that answered too slowly the last time
        self.stale: dict[str, Recipient] = {}  # those to forget
        self.unsent: deque[Recipient] = deque()
        self.again: deque[Place] = deque()  # to be sent at once
        self.due: deque[Place] = deque()  # stragglers whose time has come
        self.hung: deque[Place] = deque()  # those among them that gave no answer
        self.in_flight = 0
        self.refused_in_a_row = 0
        self.is_fresh = self.is_late = False  # whether it stands in the backlog's queue of that name


class Backlog:
    """All topics of an engine.

    Attributes:
        in_flight: posts under way, without the slow ones.
        fresh: topics with watchers that were not tried yet. Each has a turn, and so it is with the late ones.
    """

    def __init__(self, most_late: int) -> None:
        self.in_flight = 0
        self.fresh: deque[Topic] = deque()
        self._late: deque[Topic] = deque()
        self._most_late = most_late
        self._late_in_flight = self._hung_in_flight = 0
        self._topics: dict[Hashable, Topic] = {}  # the least recently used first
        self._waiting: list[tuple[float, int, Place]] = []
        self._number = count()  # of equal times the earlier goes first, and places need no order
        self._stragglers = 0

    # What the caller brings

    def begin(self, update: Update, now: float) -> None:
        """Make `update` its topic's newest; it is over at once when a newer version has begun."""
        self._drop_unused(now)
        topic = self._topics.pop(update.topic, None) or Topic(update)
        self._topics[update.topic] = topic
        topic.used_at = now
        if update.version < topic.update.version:
            update.end()
            return
        if topic.update is not update:
            topic.update.end()
            topic.unsent.clear()  # they are read again for this one
            topic.update = update
        update.stale = topic.stale
        update.begin()

    def add(self, update: Update, page: Sequence[Recipient]) -> None:
        if update.over:
            return
        update.handed(len(page))
        if page:
            topic = self._topics[update.topic]
            topic.unsent.extend(page)
            self._is_fresh(topic)
        else:
            update.ask_for_page()

    # What the engine takes

    def next(self, window: int, now: float) -> Place | None:
        """The next to post to, under way from now on: of each topic in turn, those never tried first, nobody twice."""
        topics = len(self.fresh)
        # A topic's part of the window; alone it leaves a quarter to whoever comes.
        share = window - window // 4 if topics <= 1 else max(1, window // topics)
        place = self._next_of(self.fresh, self._take_fresh, share, now) if topics else None
        if place is None and self._late:
            place = self._next_of(self._late, self._take_late, share, now)
        if place is None:
            return None
        place.sent = place.payload
        if place.is_slow:
            place.is_slow = False
        place.topic.in_flight += 1
        self.in_flight += 1
        if place.is_late:
            self._late_in_flight += 1
            self._hung_in_flight += place.hung
        return place

    def count(self) -> int:
        """How many could be sent now, about."""
        late = sum(len(topic.due) + len(topic.hung) for topic in self._late)
        return self.count_fresh() + min(late, self._most_late - self._late_in_flight)

    def count_fresh(self) -> int:
        return sum(len(topic.unsent) + len(topic.again) for topic in self.fresh)

    @property
    def next_due(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def ended(self, place: Place) -> None:
        """Its post was answered or given up. One of the outcomes below follows."""
        if not place.is_slow:
            place.topic.in_flight -= 1
            self.in_flight -= 1
        if place.is_late:
            self._late_in_flight -= 1
            self._hung_in_flight -= place.hung

    def slow(self, place: Place) -> None:
        """Its post has waited for so long that it holds up nobody any more."""
        place.is_slow = True
        place.topic.in_flight -= 1
        self.in_flight -= 1
        self._tried(place)
        place.update.check()

    def wake(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            place = heapq.heappop(self._waiting)[2]
            if place.is_waiting:
                self._is_due(place)

    def forgive(self) -> None:
        """Let those that gave no answer once have their turn like the others: the gateway was slow, and not they."""
        waiting = [place for _, _, place in self._waiting if place.is_waiting and place.hung]
        for place in chain(waiting, *(topic.hung for topic in self._late)):
            if place.attempts == 1:
                place.is_waiting = place.is_late = place.hung = False
                self._stragglers -= 1
                self.again(place)
        for topic in self._late:
            topic.hung = deque(place for place in topic.hung if place.hung)

    def unreachable(self, problem: str, now: float) -> None:
        """Nobody can be connected to: note why, and drop who has waited too long."""
        for topic in self.fresh:
            topic.update.problems[problem] += 1
            if now - topic.used_at > GIVE_UP_SECONDS:
                topic.unsent.clear()
        for topic in (*self.fresh, *self._late):
            for places in (topic.again, topic.due, topic.hung):
                while places and now - places[0].since > GIVE_UP_SECONDS:
                    self._done(places.popleft())

    def end(self) -> None:
        for topic in self._topics.values():
            topic.update.end()

    # What became of a post

    def delivered_at_once(self, place: Place) -> None:
        """It is one that was not tried before, and has ended well: all that follows, in one step."""
        topic = place.topic
        topic.in_flight -= 1
        self.in_flight -= 1
        topic.refused_in_a_row = 0
        del topic.places[place.recipient.connection_id]
        place.update.delivered_at_once()

    def again(self, place: Place) -> None:
        """Send it again at once: nobody is to blame."""
        place.topic.again.append(place)
        self._is_fresh(place.topic)

    def unanswered(self, place: Place, problem: str, now: float, *, hung: bool) -> None:
        place.update.problems[problem] += 1
        self._retry(place, now, hung=hung, throttled=False)

    def answered(self, place: Place, verdict: Verdict, response: Response, now: float) -> None:
        if verdict is not Verdict.DELIVERED:
            place.update.problems[f"{response.status} {response.error_type}".rstrip()] += 1
            if verdict in (Verdict.THROTTLED, Verdict.UNAVAILABLE):
                self._retry(place, now, hung=False, throttled=verdict is Verdict.THROTTLED)
                return
        topic, update = place.topic, place.update
        connection_id = place.recipient.connection_id
        self._note_pace(place)
        if place.payload is not place.sent and verdict is not Verdict.STALE:
            place.attempts, place.hung = 0, False
            self.again(place)  # a newer message came meanwhile
            return
        self._done(place)
        if not place.is_tried:
            update.tried()
        if place.is_throttled:
            update.throttled(-1)
        topic.refused_in_a_row = topic.refused_in_a_row + 1 if verdict is Verdict.REFUSED else 0
        if verdict is Verdict.DELIVERED:
            update.delivered()
        elif verdict is Verdict.STALE:
            if len(topic.stale) < _MAX_STALE:
                topic.stale[connection_id] = place.recipient
                update.wake.set()
            update.gone()
        else:
            detail = response.body.decode("utf-8", "replace")[:300] or response.error_type
            update.refused(response.status, connection_id, detail)

    # Inside

    def _next_of(
        self, queue: deque[Topic], take: Callable[[Topic, float], Place | None], share: int, now: float
    ) -> Place | None:
        for _ in range(len(queue)):
            topic = queue[0]
            queue.rotate(-1)
            if topic.in_flight < (share if topic.refused_in_a_row < _REFUSALS_IN_A_ROW else 1):
                place = take(topic, now)
                if place is not None:
                    return place
        return None

    def _take_fresh(self, topic: Topic, now: float) -> Place | None:
        if topic.again:
            return topic.again.popleft()
        update = topic.update
        while topic.unsent:
            recipient = topic.unsent.popleft()
            if not topic.unsent:
                update.ask_for_page()
            update.sent()
            connection_id = recipient.connection_id
            if not (connection_id in topic.places or connection_id in topic.stale or connection_id in topic.slow):
                place = topic.places[connection_id] = Place(topic, recipient, now)
                return place
            self._add_known(topic, recipient, now)
        self.fresh.pop()  # it stands last, since it is its turn
        topic.is_fresh = False
        update.check()
        return None

    def _add_known(self, topic: Topic, recipient: Recipient, now: float) -> None:
        """One to whom nothing is sent now: it is not through with an older message, is gone, or was slow."""
        update, connection_id = topic.update, recipient.connection_id
        place = topic.places.get(connection_id)
        if place is not None:
            self._renew(place, recipient, now)
        elif connection_id in topic.stale:
            update.tried()
            update.gone()
        else:  # it comes last, and nobody waits for it
            place = topic.places[connection_id] = Place(topic, recipient, now)
            self._becomes_late(place)
            self._tried(place)
            self._is_due(place)

    def _renew(self, place: Place, recipient: Recipient, now: float) -> None:
        """Put the newest message in the place of one that is not through with an older."""
        place.recipient, place.update, place.payload = recipient, place.topic.update, place.topic.update.payload
        place.since = now
        place.is_tried = False
        if place.is_throttled:
            place.update.throttled(1)
        self._tried(place)
        if place.is_waiting and place.update.settle_seconds > 0:
            self._is_due(place)  # it is waited for, and there is no message after it

    def _take_late(self, topic: Topic, _now: float) -> Place | None:
        if self._late_in_flight < self._most_late:
            if topic.due:
                return topic.due.popleft()
            if topic.hung and self._hung_in_flight < max(1, self._most_late // 2):
                return topic.hung.popleft()
        if not (topic.due or topic.hung):
            self._late.pop()
            topic.is_late = False
        return None

    def _note_pace(self, place: Place) -> None:
        """Remember who is slow: they come last at the next update."""
        slow = place.topic.slow
        if place.is_slow:
            if len(slow) < _MAX_STRAGGLERS:
                slow[place.recipient.connection_id] = None
        elif slow:
            slow.pop(place.recipient.connection_id, None)

    def _tried(self, place: Place) -> None:
        if not place.is_tried:
            place.is_tried = True
            place.update.tried()

    def _retry(self, place: Place, now: float, *, hung: bool, throttled: bool) -> None:
        if throttled is not place.is_throttled:
            place.is_throttled = throttled
            place.update.throttled(1 if throttled else -1)
        self._tried(place)
        if (not place.is_late and self._stragglers >= _MAX_STRAGGLERS) or now - place.since > GIVE_UP_SECONDS:
            place.is_slow = hung
            self._note_pace(place)
            self._done(place)
        else:
            self._becomes_late(place)
            place.hung = hung
            # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
            first = _FIRST_RETRY_AFTER_HANG_SECONDS if hung else _FIRST_RETRY_SECONDS
            longest = min(_LONGEST_RETRY_SECONDS, first * 2 ** min(place.attempts, 10))
            delay = jitter(0, longest)
            place.attempts += 1
            place.is_waiting = True
            heapq.heappush(self._waiting, (now + delay, next(self._number), place))
        place.update.check()

    def _becomes_late(self, place: Place) -> None:
        if not place.is_late:
            place.is_late = True
            self._stragglers += 1

    def _is_due(self, place: Place) -> None:
        place.is_waiting = False
        topic = place.topic
        (topic.hung if place.hung else topic.due).append(place)
        if not topic.is_late:
            topic.is_late = True
            self._late.append(topic)

    def _is_fresh(self, topic: Topic) -> None:
        if not topic.is_fresh:
            topic.is_fresh = True
            self.fresh.append(topic)

    def _done(self, place: Place) -> None:
        del place.topic.places[place.recipient.connection_id]
        if place.is_late:
            self._stragglers -= 1

    def _drop_unused(self, now: float) -> None:
        for topic in list(islice(self._topics.values(), 8)):
            is_old = len(self._topics) > _KEPT_TOPICS or now - topic.used_at > GIVE_UP_SECONDS
            if is_old and topic.update.over and not (topic.places or topic.unsent):
                del self._topics[topic.update.topic]
