"""The nightly-report example: both functions served by the real runtime, the sample event posted as the router does."""

from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec
import pytest
import yaml
from fixtures.examples import EXAMPLES, post_event, sample, served
from wisp_api import cloudevent, subscription
from wisp_api.source import ScheduleConfig
from wisp_api.timing import parse
from wisp_events.schedule.ticker import tick_event

FOLDER = EXAMPLES / "nightly-report"
SCHEDULE = yaml.safe_load((FOLDER / "subscription.yaml").read_text())["spec"]["source"]["schedule"]


def code(manifest: str, folder: Path) -> Path:
    """A folder with the manifest's inline files, as the platform mounts them."""
    folder.mkdir()
    for name, text in yaml.safe_load((FOLDER / manifest).read_text())["spec"]["code"]["files"].items():
        (folder / name).write_text(text)
    return folder


def test_the_report_is_of_the_day_before_the_tick(tmp_path: Path) -> None:
    """The tick of the night to 29 March sums up the 28th, the same when it comes again."""
    with (
        served("nightly-report", code("sales.yaml", tmp_path / "sales"), tmp_path / "sales.log") as sales,
        served(
            "nightly-report", code("function.yaml", tmp_path / "report"), tmp_path / "log", {"SALES_URL": sales}
        ) as url,
    ):
        answers = [post_event(url, sample("nightly-report/events/tick.json")) for _ in range(2)]
    assert answers[0] == answers[1]
    status, body = answers[0]
    report = msgspec.json.decode(body)
    assert (status, report["report"], report["day"]) == (200, "sales", "2026-03-28")
    assert 20 <= report["orders"] <= 60
    assert report["total"] > 0


def test_the_sample_is_a_tick_of_the_subscription() -> None:
    """The sample is, attribute for attribute, the event that the ingest makes of this Subscription at this tick, but for the uid in its id."""
    wanted = sample("nightly-report/events/tick.json")
    source = msgspec.convert(SCHEDULE, subscription.ScheduleSource)
    tick = datetime.fromisoformat(wanted["time"])
    timing = parse(source.cron, source.timezone, None)
    assert list(islice(timing.after(datetime.fromisoformat("2026-03-28T12:00:00Z")), 1)) == [tick]
    config = ScheduleConfig(
        namespace="default",
        name="every-night",
        uid="3f0c5c1e-8d0f-4d3c-9c43-5f1b8f6a2e77",
        generation=1,
        since="2026-01-01T00:00:00Z",
        stream="",
        data=msgspec.Raw(msgspec.json.encode(source.data)),
    )
    assert msgspec.json.decode(cloudevent.encode(tick_event(config, tick))) == wanted


@pytest.mark.parametrize(("tick", "local"), [("2026-03-29T01:00:00Z", "03:00"), ("2026-10-25T00:30:00Z", "02:30")])
def test_the_nights_of_the_readme(tick: str, local: str) -> None:
    """In the nights in which the clocks change there is one tick, when the README says."""
    moment, timing = datetime.fromisoformat(tick), parse(SCHEDULE["cron"], SCHEDULE["timezone"], None)
    midnight = moment.replace(hour=0, minute=0).timestamp() - 7200
    night = [
        one
        for one in islice(timing.after(datetime.fromtimestamp(midnight, moment.tzinfo)), 3)
        if one.date() == moment.date()
    ]
    assert night == [moment]
    assert moment.astimezone(timing.zone).strftime("%H:%M") == local
