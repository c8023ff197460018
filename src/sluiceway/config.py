"""Configuration: composes what each package owns out of flags, environment and a TOML file.

Invariant: no component reads the environment or a file for its settings; flags beat the
environment (`SLUICEWAY_...`, nested with `__`), which beats the file, which beats the defaults.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sluiceway.alerts.config import AlertsConfig
from sluiceway.cost.config import CostConfig
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.journal.config import KafkaConfig
from sluiceway.query.limits import QueriesRun, QueryConfig
from sluiceway.rollup.config import TiersConfig

SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SHARDS_MAX = 256
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}


def parse_size(value: Any) -> Any:
    """Bytes out of `8GiB`, `512M` or a plain number; other values pass through to be refused."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", value.lower())
        if match:
            return int(float(match[1]) * SIZE_UNITS[match[2]])
    return value


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` into its parts; IPv6 hosts stand in brackets. Raises: ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"not HOST:PORT: {address!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(address: str) -> bool:
    host = split_address(address)[0]
    return host in LOOPBACK_HOSTS or host.startswith("127.")


class Config(BaseSettings):
    """Everything `sluiceway serve` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="SLUICEWAY_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    data_dir: Path = Path("sluiceway-data")
    http: str = "127.0.0.1:9090"
    otlp_grpc: str | None = None
    roles: Literal["all", "gateway", "shard", "query"] = "all"
    """`gateway`: takes writes into Kafka and keeps nothing; `shard`: reads its partition and takes
    no writes; `query`: answers queries over the shards in `shards`, and takes no writes."""
    journal: Literal["embedded", "kafka"] = "embedded"
    """Where acked requests are durable: the data directory, or a topic (`kafka`, below)."""
    shard_listen: str | None = None
    """HOST:PORT where processes with the role `query` reach this one's shard."""
    shard_address: str | None = None
    """HOST:PORT that others reach `shard_listen` at, where it is another one. With kafka.group both
    are the first partition's: the one of partition N is N above."""
    shards: tuple[str, ...] = ()
    """NAME=HOST:PORT of each shard that the role `query` asks; found through Kafka where it is
    empty and kafka.brokers is not."""
    shards_since_s: int = 0
    """Unix time since when each series has been sent to one shard: what reads older points is
    aggregated by the role `query` itself, series by series."""
    shard_secret: Path | None = None
    """The cluster's secret, a file; both sides of a link need it."""
    shards_ca: Path | None = None
    """The authority that shards' certificates are of; links are in TLS where it is set."""
    fleet: tuple[str, ...] = ()
    """NAME=HOST:PORT, or NAME=URL, of every process: whom `sluiceway status --config` asks."""
    offsite_url: str | None = None
    """Where the shard's checkpoints are kept: a directory, or s3://BUCKET/PREFIX."""
    offsite_options: dict[str, str] = {}
    """For the object store, as its client names them (endpoint, region)."""
    offsite_cache_bytes_max: Bytes = 1 << 30
    """Of blocks that a takeover left there, and that were asked for since; 0 fetches all of them
    before the start."""
    tenants_url: str | None = None
    """postgresql://USER:PASSWORD@HOST/DATABASE, for processes on several machines; in the directory
    unless set."""
    tenants_shards: int = Field(default=0, ge=0)
    """How many processes with a shard share the records at `tenants_url`: the record of a deleted
    tenant goes once so many have proved that its data is gone. 0: it stays."""
    tenants_dir: Path | None = None
    """Where the tenants' records are; the data directory unless set."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    auth: Literal["off", "keys"] = "off"
    auth_keys: Path | None = None
    """The key file; `keys.toml` in the data directory unless set."""
    allow_insecure: bool = False
    """Serve off loopback without TLS or keys."""
    memory_max: Bytes = 0
    """Bytes for the whole of Sluiceway; 0 is 60 % of the cgroup's or the machine's memory."""
    series_max: int = Field(default=5_000_000, gt=0)
    disk_max: Bytes = 0
    """Bytes of the data directory; 0 is what it holds plus what the file system has free."""
    retention_raw_ms: int = Field(default=0, ge=0)
    """Milliseconds that raw points are kept; 0 keeps them for ever."""
    visibility_wait_max_ms: int = Field(default=1_000, ge=0)
    query_threads: int = Field(default=2, gt=0)
    queries_run: QueriesRun = "idle"
    """On the cores' idle time, or `shared` with a lower weight than the acks."""
    seal_points_max: int = Field(default=2_000_000, gt=0)
    seal_journal_bytes_max: Bytes = 64 << 20
    seal_s_max: float = Field(default=60.0, gt=0)
    drain_s_max: float = Field(default=10.0, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    gateway: GatewayConfig = GatewayConfig()
    query: QueryConfig = QueryConfig()
    alerts: AlertsConfig = AlertsConfig()
    cost: CostConfig = CostConfig()
    tiers: TiersConfig = TiersConfig()
    kafka: KafkaConfig = KafkaConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file: the file is named by a flag, so it is read in `load`."""
        sources = [init_settings, env_settings]
        if _config_file is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=_config_file))
        return tuple(sources)

    @model_validator(mode="after")
    def _safe_to_serve(self) -> "Config":
        self.alerts.check()
        self.cost.check()
        self.tiers.check()
        self.kafka.check()
        if self.journal == "kafka" and not self.kafka.brokers:
            raise ValueError("journal = kafka needs kafka.brokers")
        if self.roles in ("gateway", "shard") and self.journal != "kafka":
            raise ValueError(f"--roles {self.roles} needs journal = kafka")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca needs --tls-cert")
        for address in (self.http, self.otlp_grpc):
            if address is not None:
                split_address(address)
                guarded = self.auth == "keys" or self.tls_client_ca is not None
                if not (is_loopback(address) or self.allow_insecure) and not (
                    guarded and self.tls_cert is not None
                ):
                    raise ValueError(
                        f"refusing to listen on {address} without TLS and keys (or client "
                        "certificates): set --tls-cert, --tls-key and --auth keys, or say "
                        "--allow-insecure"
                    )
        self._check_links()
        return self

    def _check_links(self) -> None:
        """Shards are reached with a secret, and off loopback in TLS."""
        links = dict(self.shard_addresses())
        if self.roles == "query" and not links and not self.finds_shards():
            raise ValueError("--roles query needs shards: NAME=HOST:PORT, ..., or kafka.brokers")
        asks = links or self.finds_shards()
        if (asks or self.shard_listen is not None) and self.shard_secret is None:
            raise ValueError("shard_listen and shards need shard_secret, a file")
        if self.shard_listen is not None:
            split_address(self.shard_listen)
            if not (is_loopback(self.shard_listen) or self.tls_cert or self.allow_insecure):
                raise ValueError(f"refusing to listen on {self.shard_listen} without TLS")
        for name, address in links.items():
            split_address(address)
            if not (is_loopback(address) or self.shards_ca or self.allow_insecure):
                raise ValueError(f"refusing to ask shard {name} at {address} without shards_ca")

        if self.offsite_url is not None and self.tiers.objects_url is not None:
            raise ValueError(
                "offsite_url takes the files of minutes and hours with the shard: tiers.objects_url"
                " is for processes without it (docs/tiers.md says how to move what lies there)"
            )
        if self.finds_shards() and self.kafka.partitions > SHARDS_MAX:
            raise ValueError(
                f"{self.kafka.partitions} partitions, the most shards are {SHARDS_MAX}"
            )
        if self.shard_address is not None:
            split_address(self.shard_address)
        if self.kafka.group and self.roles == "shard":
            if self.shard_listen is None or self.offsite_url is None:
                raise ValueError("kafka.group needs shard_listen and offsite_url")
            if split_address(self.http)[1] == 0 or split_address(self.shard_listen)[1] == 0:
                raise ValueError("kafka.group needs ports that are known")

    def finds_shards(self) -> bool:
        """Does the role `query` learn from Kafka where shards are?"""
        return self.roles == "query" and not self.shards and bool(self.kafka.brokers)

    def part(self) -> str:
        """Which part of the series this process has, where others have the rest; else empty."""
        log = self.kafka
        if self.journal != "kafka" or log.partitions == 1 or self.roles not in ("all", "shard"):
            return ""
        return f"partition {log.partition} of {log.partitions}"

    def fleet_addresses(self) -> list[tuple[str, str]]:
        """(name, address) of `fleet`. Raises: ValueError."""
        pairs = [(name, address) for name, _, address in (one.partition("=") for one in self.fleet)]
        if not all(name and address for name, address in pairs):
            raise ValueError("fleet: each is NAME=HOST:PORT")
        return pairs

    def shard_addresses(self) -> list[tuple[str, str]]:
        """(name, HOST:PORT) of `shards`. Raises: ValueError."""
        pairs = [
            (name, address) for name, _, address in (one.partition("=") for one in self.shards)
        ]
        for name, address in pairs:
            if not name or not address or not name.isprintable():
                raise ValueError(f"a shard is NAME=HOST:PORT, not {name!r}")
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("two shards have one name")
        if len(pairs) > SHARDS_MAX:
            raise ValueError(f"{len(pairs)} shards, the most are {SHARDS_MAX}")
        return pairs

    def tenants_place(self) -> Path:
        return self.tenants_dir or self.data_dir

    def memory_bytes_max(self) -> int:
        """What `memory_max` comes to on this machine."""
        return self.memory_max or machine_memory_bytes() * 6 // 10

    def key_file(self) -> Path:
        return self.auth_keys or self.data_dir / "keys.toml"


_config_file: Path | None = None


def load(file: Path | None, **flags: Any) -> Config:
    """The configuration; flags that are None were not given. Raises: ValueError, OSError."""
    global _config_file
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"no configuration file at {file}")
    try:
        if file is not None:
            tomllib.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    _config_file = file
    try:
        return Config(**{name: value for name, value in flags.items() if value is not None})
    finally:
        _config_file = None


def machine_memory_bytes() -> int:
    """The cgroup's limit where there is one below the machine's memory, else the machine's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(machine, int(text))
    return machine
