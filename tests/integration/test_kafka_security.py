"""A journal on a real Kafka that wants TLS and SASL: who knows the password is let in."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes import waiting
from fakes.server import Server
from services.kafka import Guarded, Kafka

T = 1_700_000_000
within = partial(waiting.within, seconds=40)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("kafka")
    guarded = Guarded(place / "guarded")
    with Kafka(place, guarded=guarded):
        yield guarded


def served(place: Path, guarded: Guarded, topic: str, **security: object) -> Server:
    told = {
        "protocol": "sasl-tls",
        "ca": guarded.ca,
        "user": guarded.USER,
        "password_file": guarded.password_file,
        **security,
    }
    lines = ['journal = "kafka"', "[kafka]", f'brokers = "{guarded.address}"', "replication = 1"]
    lines += [f'topic = "{topic}"', "outbox_bytes_max = 0", "[kafka.security]"]
    lines += [f'{name} = "{value}"' for name, value in told.items() if value is not None]
    config = place / f"{topic}.toml"
    config.write_text("\n".join((*lines, "")))
    return Server(place / topic, "--config", str(config))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_acks_over_tls_and_sasl(tmp_path: Path, guarded: Guarded, mechanism: str) -> None:
    server = served(tmp_path, guarded, f"in-{mechanism.lower()}", mechanism=mechanism)
    with server:
        assert server.write([({"__name__": "m"}, [(T * 1000, 1.0)])]) == 204
        within(lambda: server.values("m", T) != {}, "it is there")
        server.kill()
        server.start()
        within(lambda: server.values("m", T) != {}, "and again")


def test_who_is_not_let_in_acks_nothing(tmp_path: Path, guarded: Guarded) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    wrong.chmod(0o600)
    other = Guarded(tmp_path / "other")
    cases = {"password": {"password_file": wrong}, "authority": {"ca": other.ca}}
    for name, security in cases.items():
        server = served(tmp_path, guarded, f"out-{name}", **security)
        server.start(wait=False)
        try:
            within(lambda server=server: answered(server), "it listens, or has ended")
            assert server.process is not None
            ended = server.process.poll()
            assert ended == 1 if ended is not None else not acked(server), name
        finally:
            server.kill()


def answered(server: Server) -> bool:
    assert server.process is not None
    try:
        return server.process.poll() is not None or server.call("GET", "/healthz")[0] == 200
    except OSError:
        return False


def acked(server: Server) -> bool:
    try:
        return server.write([({"__name__": "m"}, [(T * 1000, 1.0)])]) == 204
    except OSError:
        return False
