"""How many posts are in flight, by the answers of the last moments. Does not prove what rate comes of it."""

from __future__ import annotations

import pytest

from docprogress.posting.window import START, Window

MOST = 900


def step(window: Window, *, seconds: float = 0.015, answers: int = 100, throttled: int = 0, full: bool = True) -> int:
    for number in range(answers):
        window.waits.append(seconds)
        if number < throttled:
            window.throttled()
    window.is_full = full
    window.adapt()
    return window.size


def test_the_window_begins_where_most_gateways_keep_up_and_never_passes_what_it_may() -> None:
    assert Window(MOST).size == START
    assert Window(3).size == 3
    window = Window(MOST)
    sizes = [step(window) for _ in range(40)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == MOST


def test_it_grows_only_while_it_keeps_posts_back() -> None:
    window = Window(MOST)
    assert step(window, full=False) == START
    grown = step(window)
    assert grown == START + START // 8
    for _ in range(100):
        window.waits.append(0.015)
    window.adapt()
    assert window.size == grown, "that it was full once is no reason to grow for ever"


def test_it_does_not_grow_when_answers_only_wait_longer() -> None:
    window = Window(MOST)
    size = step(window, seconds=0.015)
    assert step(window, seconds=0.09) == size
    assert step(window, seconds=0.03) > size, "some take longer than the quickest at any gateway"


def test_after_a_rest_the_next_servers_pace_is_the_usual_one() -> None:
    window = Window(MOST)
    size = step(window, seconds=0.015)
    window.rest()
    assert step(window, seconds=0.09) > size


def test_it_does_not_grow_when_it_is_its_owner_who_is_behind() -> None:
    for waiting, grows in ((START / 2 - 1, True), (START / 2, False)):
        window = Window(MOST)
        for _ in range(100):
            window.waits.append(0.015)
        window.is_full = True
        window.adapt(ready_at_once=waiting)
        assert (window.size > START) is grows


def test_it_shrinks_where_the_gateway_throttles_and_grows_again_after() -> None:
    window = Window(MOST)
    shrunk = [step(window, throttled=50) for _ in range(3)]
    assert shrunk == [89, 62, 43], "by three tenths each"
    assert [step(window, throttled=100) for _ in range(30)][-1] == 8
    assert step(window) > 8


def test_a_few_watchers_with_full_buffers_do_not_shrink_it() -> None:
    window = Window(MOST)
    assert step(window, throttled=20) >= START
    assert step(window, answers=3, throttled=3) >= START, "so few answers tell nothing of the gateway"


def test_posts_that_hang_make_room_for_others() -> None:
    window = Window(MOST)
    for _ in range(4):
        for _ in range(3):
            window.slow()
        window.waits.append(3.0)
        window.waits.append(3.0)
        window.is_full = True
        window.adapt()
    assert window.size == 648, "by a half each"


def test_as_many_that_are_slow_as_are_answered_do_not_make_it_grow() -> None:
    window = Window(MOST)
    for _ in range(3):
        window.slow()
        window.waits.append(3.0)
    window.is_full = True
    window.adapt()
    assert window.size == START


def test_a_post_is_slow_by_what_is_usual() -> None:
    window = Window(MOST)
    assert window.slow_seconds == 0.5
    for seconds, slow in ((0.001, 0.1), (0.04, 0.2), (3.0, 0.5)):
        step(window, seconds=seconds)
        assert window.slow_seconds == pytest.approx(slow)
