"""What is told to Kafka's client of TLS and SASL, and what is refused before it is."""

from pathlib import Path
from typing import Any

import pytest

from sluiceway.journal.config import KafkaConfig, own_settings
from sluiceway.journal.security import KafkaSecurity


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("secret words\n")
    path.chmod(0o600)
    return path


def test_settings_of_the_client(tmp_path: Path, password: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-")
    security = KafkaSecurity("sasl-tls", ca, user="me", password_file=password)
    settings = own_settings(KafkaConfig(brokers="a:9", security=security))
    assert settings["security.protocol"] == "SASL_SSL"
    assert settings["sasl.mechanism"] == "SCRAM-SHA-256"
    assert (settings["sasl.username"], settings["sasl.password"]) == ("me", "secret words")
    assert settings["ssl.ca.location"] == str(ca)
    assert "security.protocol" not in own_settings(KafkaConfig(brokers="a:9"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"protocol": "sasl-tls"}, "needs user"),
        ({"protocol": "plaintext", "user": "me"}, "need protocol"),
        ({"protocol": "plaintext", "ca": Path("x")}, "need protocol"),
        ({"protocol": "tls", "cert": Path("x")}, "together"),
    ],
)
def test_what_does_not_fit_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KafkaSecurity(**told).check("a:9")


def test_passwords_are_guarded(password: Path) -> None:
    plain = KafkaSecurity("sasl-plaintext", mechanism="PLAIN", user="me", password_file=password)
    plain.check("127.0.0.1:9,localhost:9,[::1]:9")
    with pytest.raises(ValueError, match="in the clear"):
        plain.check("127.0.0.1:9,kafka-1:9092")
    KafkaSecurity("sasl-plaintext", user="me", password_file=password).check("kafka-1:9092")
    password.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        plain.check("127.0.0.1:9")
