"""Configuration: sources in order, sizes in words, and what is refused."""

from pathlib import Path

import pytest

from sluiceway import config


def test_flags_beat_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sluiceway.toml"
    file.write_text(
        'http = "127.0.0.1:1"\nseries_max = 7\nmemory_max = "2GiB"\n[gateway]\nparked_max = 3\n'
    )
    monkeypatch.setenv("SLUICEWAY_SERIES_MAX", "8")
    monkeypatch.setenv("SLUICEWAY_QUERY__CONCURRENCY_MAX", "5")
    loaded = config.load(file, http="127.0.0.1:2", data_dir=None)
    assert loaded.http == "127.0.0.1:2"
    assert loaded.series_max == 8
    assert loaded.memory_bytes_max() == 2 << 30
    assert loaded.gateway.parked_max == 3
    assert loaded.query.concurrency_max == 5


def test_defaults_are_whole() -> None:
    loaded = config.load(None)
    assert loaded.memory_bytes_max() > 0
    assert loaded.key_file() == Path("sluiceway-data/keys.toml")


@pytest.mark.parametrize(
    "flags",
    [
        {"http": "0.0.0.0:9090"},
        {"http": "0.0.0.0:9090", "auth": "keys"},
        {"otlp_grpc": "[::]:4317"},
        {"tls_cert": Path("a.pem")},
        {"http": "nowhere"},
        {"memory_max": "much"},
    ],
)
def test_refused(flags: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        config.load(None, **flags)


def test_off_loopback_with_tls_and_keys() -> None:
    loaded = config.load(
        None, http="0.0.0.0:9090", auth="keys", tls_cert=Path("c"), tls_key=Path("k")
    )
    assert loaded.auth == "keys"
    assert config.load(None, http="0.0.0.0:9090", allow_insecure=True).allow_insecure


@pytest.mark.parametrize(
    ("text", "size"), [("1k", 1024), ("8GiB", 8 << 30), ("1.5 mb", 3 << 19), ("77", 77)]
)
def test_sizes(text: str, size: int) -> None:
    assert config.parse_size(text) == size


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.toml"
    file.write_text("serie_max = 7\n")
    with pytest.raises(ValueError, match="serie_max"):
        config.load(file)
    file.write_text("a = = 1\n")
    with pytest.raises(ValueError, match=r"sluiceway\.toml: "):
        config.load(file)
    config.Config()  # the bad file is nobody else's
