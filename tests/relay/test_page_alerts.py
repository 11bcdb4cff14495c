"""Alerts on the live page, in a real browser: among the changes, and those that are open as far as the page has seen."""

import pytest

from tests.relay.blotter import Blotter, wall
from tests.relay.stage import calm
from tests.relay.test_page import beat, blotter, browser, live, some, visit, wait_for
from watcher.model.events import UnreadAlert
from watcher.model.times import format_rfc3339

pytestmark = pytest.mark.browser
__all__ = ["blotter", "browser", "visit"]


def open_alerts(page):
    """Alert by alert, the newest first: what the line says."""
    return [" ".join(text.split()) for text in page.locator("#open li .what").all_text_contents()]


def until_open(page, count):
    page.wait_for_function("count => document.getElementById('open').childElementCount === count", arg=count)


def test_an_alert_that_fires_stands_among_the_changes_and_among_the_open_ones_until_it_is_cleared(blotter, visit):
    first, second, *_ = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    assert not page.locator("#alerts").is_visible()
    assert not page.locator("#open-figure").is_visible()
    blotter.cross(first, "750000", "below")
    until_open(page, 1)
    assert page.locator("#alerts").is_visible()
    assert page.locator("#open-count").text_content() == "1"
    assert open_alerts(page) == ["Alert gas-low below 5"]
    (line,) = page.locator("#open li").all()
    assert line.locator(".sum").get_attribute("data-full") == "0.75"
    assert "USDC" in line.text_content()
    assert "was 1" in line.text_content()
    kinds = page.locator("#stream li").evaluate_all("all => all.map(li => li.className)")
    assert kinds == ["fired", ""], "the newest first: the crossing, then its change"
    wait_for(page, first, "0.75")
    blotter.cross(second, "9000000", "above", alert="rich", threshold="8000000")
    until_open(page, 2)
    assert open_alerts(page) == ["Alert rich above 8", "Alert gas-low below 5"]
    blotter.cross(first, "6000000", "cleared")
    until_open(page, 1)
    assert open_alerts(page) == ["Alert rich above 8"]
    assert page.locator("#stream li.over .what").text_content() == "Cleared gas-low"
    assert page.locator("#announce").text_content() == "Alert \u2068gas-low\u2069 is cleared."
    blotter.cross(second, "1", "cleared", alert="rich", threshold="8000000")
    page.wait_for_function("() => document.getElementById('alerts').hidden")
    assert not page.locator("#open-figure").is_visible()
    page.wait_for_function("() => document.getElementById('total').textContent === '4'")  # the changes alone


def test_colour_is_not_the_only_sign_and_what_is_looked_for_is_found_by_the_name_of_the_alert(blotter, visit):
    first, second, *_ = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    blotter.cross(first, "750000", "below")
    blotter.cross(second, "750000", "cleared", alert="other")
    page.wait_for_selector("#stream li.over")
    colours = [page.locator(f"#stream li.{kind} .word").evaluate("el => getComputedStyle(el).color") for kind in ("fired", "over")]  # fmt: skip
    words = [page.locator(f"#stream li.{kind} .word").text_content() for kind in ("fired", "over")]
    assert len(set(colours)) == 2
    assert words == ["Alert", "Cleared"]
    page.locator("#q").fill("gas-low")
    page.wait_for_function("() => document.querySelector('#stream li.over').hidden")
    assert page.locator("#open li").is_visible()


def test_text_of_an_alert_is_shown_as_text_and_what_is_invisible_in_it_as_escapes(blotter, visit):
    (key, *_) = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    blotter.cross(key, "1", "below", alert="<img src=x onerror=alert(1)>\u202e")
    until_open(page, 1)
    assert page.locator("#open li .alert").text_content() == "<img src=x onerror=alert(1)>\\u{202e}"
    assert page.locator("#open img, #stream img").count() == 0
    assert "\u202e" not in page.locator("#announce").text_content()


def test_after_a_cut_no_crossing_is_missing_or_twice(blotter, visit):
    (key, *_) = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    blotter.cross(key, "750000", "below")
    until_open(page, 1)
    blotter.stop()
    page.wait_for_function("() => document.getElementById('link').dataset.state === 'down'")
    blotter.cross(key, "6000000", "cleared")
    blotter.cross(key, "4000000", "below")
    blotter.start()
    live(page)
    page.wait_for_function("() => document.querySelectorAll('#stream li.fired, #stream li.over').length === 3")
    assert open_alerts(page) == ["Alert gas-low below 5"]
    assert page.locator("#open li .sum").get_attribute("data-full") == "4"


def test_a_crossing_that_comes_again_is_shown_once(blotter, visit):
    """As after a cut of a page that was too slow: its cursor stood before changes that were held back."""

    def route(socket):
        def onward(text):
            for _ in range(2 if text.startswith('{"type":"crossed"') else 1):
                socket.send(text)

        socket.connect_to_server().on_message(onward)

    first, second, *_ = some(blotter)
    blotter.start()
    page = visit("about:blank")
    page.route_web_socket("**/v1/stream", route)
    page.goto(blotter.url)
    live(page)
    for amount, direction in (("750000", "below"), ("6000000", "cleared")):
        blotter.cross(first, amount, direction)
    blotter.cross(second, "750000", "below")
    until_open(page, 1)
    kinds = page.locator("#stream li:not([class=''])").evaluate_all(
        "all => all.map(li => li.className).filter(Boolean)"
    )
    assert kinds == ["fired", "over", "fired"]


def test_what_a_snapshot_came_in_place_of_closes_no_alert_but_leaves_none_of_which_nobody_knows(blotter, visit):
    first, second, *_ = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    for key in (first, second):
        blotter.cross(key, "750000", "below")
    until_open(page, 2)
    wait_for(page, second, "0.75")
    blotter.stop()
    page.wait_for_function("() => document.getElementById('link').dataset.state === 'down'")
    blotter.later(7200.0)
    blotter.cross(first, "6000000", "cleared")
    blotter.later(7200.0)
    blotter.move(second_of(blotter, first, second), "2")
    blotter.start()
    live(page)
    until_open(page, 1)
    assert page.locator("#open li .where .addr").get_attribute("data-full") == second.account


def second_of(blotter, *taken):
    """The key of a balance that nothing above has touched; what is committed with it trims the log."""
    return next(key for key in map(blotter.states.get, blotter.states) if key.key not in taken).key


def test_a_filter_leaves_out_alerts_of_balances_that_it_does_not_show(blotter, visit):
    first, second, *_ = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    for key in (first, second):
        blotter.cross(key, "750000", "below")
    until_open(page, 2)
    wait_for(page, second, "0.75")
    page.evaluate("account => narrowTo('account', account)", first.account)
    until_open(page, 1)
    assert page.locator("#open li .where .addr").get_attribute("data-full") == first.account


def test_thousands_of_open_alerts_are_counted_and_the_newest_are_shown(blotter, visit):
    (key, *_) = some(blotter)
    blotter.start()
    page = visit(blotter.url)
    live(page)
    for number in range(130):
        blotter.cross(key, str(1000 + number), "below", alert=f"alert {number}")
    page.wait_for_function("() => document.getElementById('open-count').textContent === '130'")
    until_open(page, 100)
    assert open_alerts(page)[0] == "Alert alert 129 below 5"
    assert page.locator("#alerts-seen").text_content().endswith("the newest 100 of 130")


def test_a_provider_says_which_alerts_wait_for_a_read_and_how_many_balances(tmp_path, visit):
    with Blotter(tmp_path, pace=calm(heartbeat=0.2, first_heartbeat=0.1, sweep=0.02)) as blotter:
        some(blotter)
        blotter.heartbeat([beat("helius", unread=(UnreadAlert("<i>cold</i>\u202e", format_rfc3339(wall()), 3),))])
        blotter.start()
        page = visit(blotter.url)
        live(page)
        page.wait_for_function("() => document.querySelector('#health .due').childElementCount === 1")
        line = page.locator("#health .due span").text_content()
        assert line.startswith("Alert <i>cold</i>\\u{202e}: 3 balances not read, since ")
        assert page.locator("#health .due i").count() == 0
        blotter.heartbeat([beat("helius")])
        page.wait_for_function("() => document.querySelector('#health .due').childElementCount === 0")
        assert "read again" in page.locator("#announce").text_content()
