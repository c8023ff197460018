"""Three real brokers and a server over them, killed in turn under load (issue 5: 50 rounds).

    SLUICEWAY_KAFKA_ROUNDS=50 python -m pytest -m faults tests/faults/test_kafka.py

Every acked point is there with its value, once, and the ledger is exact; what was never acked is
there at most once.
"""

import os
import random
import time
from pathlib import Path

import pytest

from integration.test_kafka import Sender, check_all_there, server, within
from services.kafka import Kafka

ROUNDS = int(os.environ.get("SLUICEWAY_KAFKA_ROUNDS", "12"))
SEED = int(os.environ.get("SLUICEWAY_KAFKA_SEED", "1"))
AWAY_S = 4.0
"""All brokers: longer than the server waits before its outbox takes over."""


@pytest.mark.faults
@pytest.mark.timeout(7_200)
def test_brokers_and_server_killed_in_turn(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    now_ms = int(time.time() * 1000)
    killed = {"broker": 0, "server": 0, "all brokers": 0, "frozen broker": 0}
    with Kafka(tmp_path / "kafka", brokers=3) as kafka:
        often = "seal_s_max = 3.0"
        with server(kafka, tmp_path, "rounds", often, replication=3, outbox_after_s=1.0) as served:
            sender = Sender(served, now_ms)
            sender.start()
            for number in range(ROUNDS):
                sender.goes_on(30)
                victim = list(killed)[number % len(killed)]
                killed[victim] += 1
                broker = chance.choice(kafka.brokers)
                if victim == "server":
                    served.kill()
                    served.start()
                elif victim == "broker":
                    broker.kill()
                    sender.goes_on(30)
                    broker.start()
                elif victim == "frozen broker":
                    broker.freeze()
                    time.sleep(chance.uniform(1, 6))
                    broker.thaw()
                else:
                    for each in kafka.brokers:
                        each.kill()
                    sender.goes_on(30)
                    time.sleep(AWAY_S)
                    for each in kafka.brokers:
                        each.start(wait=False)
                    for each in kafka.brokers:
                        each.wait_ready()
            sender.stop()
            within(lambda: served.metrics()["sluiceway_outbox_records"] == 0, "all sent")
            told = check_all_there(served, sender)
    flow = told["tenants"]["default"]
    print(f"rounds {ROUNDS} {killed} acked {len(sender.acked)} refused {sender.refused}")
    print(f"stored {flow['stored']} duplicates dropped {flow['duplicate']} lost 0")
