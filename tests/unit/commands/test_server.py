"""Addresses that are none end a command in one line."""

import json
from pathlib import Path

import pytest
import typer

from sluiceway.commands.backup import is_inside
from sluiceway.commands.export import export
from sluiceway.commands.server import Server
from sluiceway.errors import BackendUnavailable
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.remote import RemoteObjects, in_a_line


@pytest.mark.parametrize("address", ["127.0.0.1:port", "nowhere.invalid", "http://127.0.0.1:1"])
def test_a_wrong_address_is_told(address: str) -> None:
    with pytest.raises(OSError, match="no answer from http://"):
        Server(address).text("/ready")


@pytest.mark.parametrize("url", ["s3://", "foo://x", "s3:///"])
def test_a_store_that_is_none_is_told_in_a_line(url: str) -> None:
    with pytest.raises(ValueError, match="no place for objects") as refused:
        RemoteObjects(url)
    assert "\n" not in str(refused.value)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable, match="file"):
        EmbeddedObjects(tmp_path / "file" / "backups").create("a", b"")


def test_a_place_within_a_directory(tmp_path: Path) -> None:
    assert is_inside(f"file://{tmp_path}/data/x", tmp_path / "data")
    assert is_inside(str(tmp_path / "data"), tmp_path / "other" / ".." / "data")
    assert not is_inside(str(tmp_path / "data-2"), tmp_path / "data")
    assert not is_inside("s3://data/x", tmp_path / "data")


def test_an_export_of_all_times_is_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    for begin, end in (("-1e300", None), ("0", "1e18")):
        with pytest.raises(typer.Exit):
            export(begin, end, http="127.0.0.1:1")
        assert "at most 100 years apart" in capsys.readouterr().err


def test_what_an_answer_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warnings = ["partition 0 of 2 alone: ask", "partial: shard s1 does not answer"]
    answer = json.dumps({"status": "success", "data": 7, "warnings": warnings}).encode()
    of_part = ["s0 is partition 0 of 2 alone", warnings[1]]
    for part, lines in ((None, warnings), ("partition 0 of 2", of_part)):
        sent = (answer, part)
        monkeypatch.setattr(Server, "_send_for", lambda *_, sent=sent: sent)
        assert Server("s0").ask("GET", "/cardinality", prefix="/api/v1") == 7
        assert capsys.readouterr().err == "".join(f"sluiceway: {line}\n" for line in lines)


def test_what_a_store_said_is_a_line() -> None:
    said = "403: <?xml?>\n<Code>AccessDenied</Code>\n\nDebug source:\nGeneric {\n  store,\n}"
    assert in_a_line(OSError(said)) == "403: <?xml?> <Code>AccessDenied</Code>"
    assert in_a_line(OSError()) == "OSError"
