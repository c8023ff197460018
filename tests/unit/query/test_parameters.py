"""Parameters of the HTTP API in Prometheus' words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.errors import TenantFault
from sluiceway.query.api.parameters import (
    TIME_MAX_MS,
    TIME_MIN_MS,
    Parameters,
    parse_time,
    unescape_name,
)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("0", 0),
        ("1.0015", 1002),
        ("-1.5", -1500),
        ("1e3", 1_000_000),
        ("1970-01-01T00:00:01Z", 1000),
        ("2015-07-01T20:10:51.781Z", 1435781451781),
        ("2015-07-01T22:10:51.781123456+02:00", 1435781451781),
        ("-292273086-05-16T16:47:06Z", TIME_MIN_MS),
        ("+292277025-08-18T07:12:54.999999999Z", TIME_MAX_MS),
        ("1e300", TIME_MAX_MS),
    ],
)
def test_times(text: str, time_ms: int) -> None:
    assert parse_time("time", text) == time_ms


@pytest.mark.parametrize("text", ["", "now", "2015-07-01", "2015-07-01T20:10:51", "NaN", "1 2"])
def test_bad_times(text: str) -> None:
    with pytest.raises(TenantFault, match='invalid parameter "start": cannot parse') as caught:
        parse_time("start", text)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("text", "ms"), [("5", 5000), ("0.25", 250), ("5m", 300_000), ("1h30m", 5_400_000)]
)
def test_durations(text: str, ms: int) -> None:
    assert Parameters(b"step=" + text.encode()).duration_ms("step") == ms


@pytest.mark.parametrize("text", [b"", b"x", b"1e99", b"NaN", b"5%20m"])
def test_bad_durations(text: bytes) -> None:
    with pytest.raises(TenantFault):
        Parameters(b"step=" + text).duration_ms("step")


def test_the_form_comes_before_the_url() -> None:
    parameters = Parameters(b"a=url&b=2", b"a=form&match%5B%5D=up&match%5B%5D=x%7B%7D")
    assert parameters.text("a") == "form"
    assert parameters.text("b") == "2"
    assert parameters.all("match[]") == ["up", "x{}"]
    assert parameters.text("c", "default") == "default"


@pytest.mark.parametrize("form", [b"a=%ff", b"\xff", b"&".join(b"a=1" for _ in range(2000))])
def test_not_a_form(form: bytes) -> None:
    with pytest.raises(TenantFault):
        Parameters(b"", form)


@pytest.mark.parametrize(("text", "count"), [("", 9), ("0", 9), ("3", 3), ("99", 9)])
def test_counts(text: str, count: int) -> None:
    assert Parameters(f"limit={text}".encode()).count("limit", 9) == count


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "9" * 30])
def test_bad_counts(text: str) -> None:
    with pytest.raises(TenantFault):
        Parameters(f"limit={text}".encode()).count("limit", 9)


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        ("job", "job"),
        ("U__http_2e_status", "http.status"),
        ("U__a__b", "a_b"),
        ("U___1F600_", "\U0001f600"),
        ("U___d800_", "_d800_"),
        ("U__", ""),
    ],
)
def test_escaped_names(escaped: str, name: str) -> None:
    assert unescape_name(escaped) == name


@given(st.binary(max_size=60))
def test_anything_is_a_value_or_a_fault(data: bytes) -> None:
    try:
        parameters = Parameters(data, data)
        for name in ("a", ""):
            parameters.time_ms(name, 0)
            parameters.duration_ms(name, 0)
    except TenantFault as fault:
        assert fault.status == 400
