"""The journal on Kafka: a partition by itself, the gateway's way in, the shard's feed."""
