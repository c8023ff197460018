"""deploy/compose: no engine runs it here, so it is read: every command is one of our CLI's, every
file of settings is one that we take, and whom they name is there."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sluiceway import config as configuration
from sluiceway.cli import app

PLACE = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ROLES = {name: service for name, service in SERVICES.items() if "build" in service}


def mounted(service: dict[str, Any]) -> dict[str, Path]:
    """By path in the container the file here, of what is mounted from beside compose.yaml."""
    pairs = [volume.split(":") for volume in service["volumes"] if volume.startswith("./")]
    return {parts[1]: PLACE / parts[0] for parts in pairs}


def settings(name: str) -> configuration.Config:
    """As the service's process would load them, its command read by our own CLI."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    first, *words = ROLES[name]["command"]
    assert first == "serve"
    given = command.make_context("serve", list(words)).params
    file = mounted(ROLES[name])[str(given.pop("config"))]
    return configuration.load(file, **given)


@pytest.mark.parametrize("name", sorted(ROLES))
def test_each_role_takes_its_command_and_settings(name: str) -> None:
    found = settings(name)
    assert found.roles == name.partition("-")[0]
    if found.shard_secret is not None:
        assert str(found.shard_secret) in mounted(ROLES[name])
    hosts = [broker.partition(":")[0] for broker in found.kafka.brokers.split(",") if broker]
    hosts += [address.partition(":")[0] for _, address in found.shard_addresses()]
    hosts += [address.partition(":")[0] for _, address in found.fleet_addresses()]
    if found.offsite_url is not None:
        hosts.append(found.offsite_options["endpoint"].split("/")[2].partition(":")[0])
    assert set(hosts) <= SERVICES.keys()
    ports = {published.split(":")[1] for published in ROLES[name].get("ports", ())}
    assert ports <= {found.http.rpartition(":")[2]}


def test_the_parts_fit_together() -> None:
    gateway, query = settings("gateway"), settings("query")
    shards = [settings(name) for name in sorted(ROLES) if name.startswith("shard")]
    assert [shard.kafka.partition for shard in shards] == list(range(gateway.kafka.partitions))
    assert all(shard.kafka.partitions == gateway.kafka.partitions for shard in shards)
    assert len({shard.offsite_url for shard in shards}) == len(shards)
    assert len(query.shards) == len(shards)
    assert {name for name, _ in query.fleet_addresses()} == ROLES.keys()
    brokers = [name for name in SERVICES if name.startswith("kafka")]
    numbers = [SERVICES[name]["environment"]["KAFKA_NODE_ID"] for name in brokers]
    voters = SERVICES[brokers[0]]["environment"]["KAFKA_CONTROLLER_QUORUM_VOTERS"]
    wanted = ",".join(f"{n}@{b}:9093" for n, b in zip(numbers, brokers, strict=True))
    assert voters == wanted
    named = {v.partition(":")[0] for s in SERVICES.values() for v in s.get("volumes", ())}
    assert {volume for volume in named if not volume.startswith(".")} == COMPOSE["volumes"].keys()
    for service in SERVICES.values():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
