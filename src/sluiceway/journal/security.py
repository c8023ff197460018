"""How the brokers are spoken to: TLS and SASL, in the client library's own names.

Invariant: a password comes from a file that its owner alone can read, and never goes over a
network in the clear.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

Protocol = Literal["plaintext", "tls", "sasl-plaintext", "sasl-tls"]
PROTOCOLS = {
    "plaintext": "PLAINTEXT",
    "tls": "SSL",
    "sasl-plaintext": "SASL_PLAINTEXT",
    "sasl-tls": "SASL_SSL",
}
Mechanism = Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]


@dataclass(frozen=True)
class KafkaSecurity:
    """`[kafka.security]`. What is not told here is as `kafka.settings` say."""

    protocol: Protocol = "plaintext"
    ca: Path | None = None
    """PEM of who signed the brokers' certificates; else those that the system trusts."""
    cert: Path | None = None
    """PEM of this process' own certificate, where brokers ask for one; with `key`."""
    key: Path | None = None
    mechanism: Mechanism = "SCRAM-SHA-256"
    user: str = ""
    password_file: Path | None = None

    def check(self, brokers: str) -> None:
        """Raises: ValueError, OSError (a file cannot be read)."""
        tls, sasl = self.protocol.endswith("tls"), self.protocol.startswith("sasl")
        if not tls and (self.ca or self.cert or self.key):
            raise ValueError("kafka.security: ca, cert and key need protocol tls or sasl-tls")
        if (self.cert is None) != (self.key is None):
            raise ValueError("kafka.security: cert and key come together")
        if not sasl and (self.user or self.password_file):
            raise ValueError("kafka.security: user and password_file need protocol sasl-tls")
        if sasl and not (self.user and self.password_file):
            raise ValueError(f"kafka.security: {self.protocol} needs user and password_file")
        if sasl and not tls and self.mechanism == "PLAIN" and not on_loopback(brokers):
            words = "PLAIN without TLS would send the password in the clear: use sasl-tls"
            raise ValueError(f"kafka.security: {words}")
        self.settings()

    def settings(self) -> dict[str, str]:
        """Raises: ValueError (others can read the password), OSError."""
        if self.protocol == "plaintext":
            return {}
        told = {"security.protocol": PROTOCOLS[self.protocol]}
        places = {
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.cert,
            "ssl.key.location": self.key,
        }
        for name, place in places.items():
            if place is not None:
                place.read_bytes()  # a name that is wrong is said at the start
                told[name] = str(place)
        if self.password_file is not None:
            told["sasl.mechanism"] = self.mechanism
            told["sasl.username"] = self.user
            told["sasl.password"] = read_password(self.password_file)
        return told


def read_password(path: Path) -> str:
    """Raises: OSError, ValueError (others may read it, or it is empty)."""
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: others may read it; chmod 600 it")
    password = path.read_text().strip()
    if not password:
        raise ValueError(f"{path}: no password in it")
    return password


def on_loopback(brokers: str) -> bool:
    """Whether all of `host:port,...` are this machine."""
    hosts = [broker.strip().rpartition(":")[0].strip("[]") for broker in brokers.split(",")]
    return all(host == "localhost" or is_loopback(host) for host in hosts)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
