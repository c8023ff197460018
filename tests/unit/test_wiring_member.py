"""What a member of the shards' group tells the process of each of its partitions."""

from pathlib import Path

from sluiceway.config import Config
from sluiceway.wiring_member import partition_settings


def test_partitions_share_no_place(tmp_path: Path) -> None:
    secrets = {name: tmp_path / name for name in ("secret", "password", "ca")}
    for path in secrets.values():
        path.write_text("a secret of more than thirty-two bytes, for all of them")
        path.chmod(0o600)
    security = {
        "protocol": "sasl-tls",
        "ca": secrets["ca"],
        "user": "me",
        "password_file": secrets["password"],
    }
    member = Config(
        roles="shard",
        journal="kafka",
        data_dir=tmp_path / "data",
        http="127.0.0.1:9090",
        shard_listen="127.0.0.1:9300",
        shard_secret=secrets["secret"],
        offsite_url="s3://bucket/shards",
        kafka={"brokers": "a:9", "partitions": 3, "group": "shards", "security": security},
    )
    own = [Config(**partition_settings(member, number)) for number in range(3)]
    for places in (
        {str(one.data_dir) for one in own},
        {one.offsite_url for one in own},
        {one.http for one in own},
        {one.shard_listen for one in own},
    ):
        assert len(places) == 3
    assert all(one.kafka.security == member.kafka.security for one in own)
