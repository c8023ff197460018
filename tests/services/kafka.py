"""Apache Kafka, the real one: KRaft brokers on loopback, from Maven Central.

The jars are fetched once by the machine's own Maven into the user's cache directory. Where Maven or
Java is absent, `jars` says why, and tests skip with these words.
"""

import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from services.cache import fetched

VERSION = "4.1.0"
HEAP_MB = 384
START_S_MAX = 240.0
"""On a machine that does much else."""
FETCH_S_MAX = 240.0
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluiceway.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
    <version>{VERSION}</version>
  </dependency></dependencies>
</project>
"""


def jars() -> Path:
    """The directory with Kafka and what it needs, fetched if it is not there. Skips the test where
    it cannot be had."""
    for command in ("java", "mvn"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command} on this machine: Kafka is not tested")
    return fetched(f"kafka-{VERSION}", _fetch)


def _fetch(fresh: Path) -> Path:
    (fresh / "pom.xml").write_text(POM)
    command_line = ["mvn", "-q", "-B", "-f", str(fresh / "pom.xml")]
    command_line += ["dependency:copy-dependencies", f"-DoutputDirectory={fresh / 'jars'}"]
    command_line += ["-DincludeScope=runtime"]
    ran = subprocess.run(
        command_line, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
    )
    if ran.returncode != 0:
        pytest.skip(f"Maven cannot fetch Kafka: it is not tested\n{ran.stdout[-1500:]}")
    return fresh / "jars"


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Guarded:
    """A listener with TLS and SASL beside the plain one, certificate and users made here."""

    USER, PASSWORD = "sluiceway", "a password of tests"

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self.ca, self._store = directory / "ca.pem", directory / "broker.p12"
        self.password_file = directory / "password"
        self.password_file.write_text(self.PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self._keytool(
            *("-genkeypair", "-alias", "broker", "-keyalg", "EC", "-dname", "CN=tests"),
            *("-ext", "san=ip:127.0.0.1", "-ext", "bc:c=ca:true", "-validity", "30"),
        )
        self._keytool("-exportcert", "-rfc", "-alias", "broker", "-file", str(self.ca))

    def _keytool(self, *words: str) -> None:
        store = ["-keystore", str(self._store), "-storetype", "PKCS12", "-storepass", "changeit"]
        subprocess.run(["keytool", *words, *store], check=True, capture_output=True)

    def settings(self) -> str:
        """Lines of server.properties."""
        login = "org.apache.kafka.common.security"
        plain, scram = f"{login}.plain.PlainLoginModule", f"{login}.scram.ScramLoginModule"
        user = f'user_{self.USER}="{self.PASSWORD}"'
        return (
            f"ssl.keystore.location={self._store}\nssl.keystore.type=PKCS12\n"
            "ssl.keystore.password=changeit\nssl.key.password=changeit\n"
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\n"
            f"listener.name.guarded.plain.sasl.jaas.config={plain} required {user};\n"
            f"listener.name.guarded.scram-sha-256.sasl.jaas.config={scram} required;\n"
        )

    def scram(self) -> list[str]:
        """Words of the tool that formats a broker's directory."""
        name = f"name={self.USER},password={self.PASSWORD}"
        return ["--add-scram", f"SCRAM-SHA-256=[{name}]"]


class Broker:
    """One node, broker and controller in one; may be killed, frozen and started again."""

    def __init__(
        self,
        directory: Path,
        number: int,
        port: int,
        voters: list[tuple[int, int]],
        guarded: Guarded | None = None,
    ):
        self.directory, self.number, self.port = directory, number, port
        self.address = f"127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_path = directory.parent / f"{directory.name}.log"
        directory.mkdir(parents=True)
        self._settings = directory / "server.properties"
        controller = dict(voters)[number]
        replicas = min(3, len(voters))
        quorum = ",".join(f"{node}@127.0.0.1:{port}" for node, port in voters)
        self._guarded = guarded
        listeners = [f"PLAINTEXT://127.0.0.1:{port}"]
        if guarded is not None:
            listeners.append(f"GUARDED://{guarded.address}")
        # The time-out: one that was killed comes back when its old life has ended.
        self._settings.write_text(
            f"process.roles=broker,controller\nnode.id={number}\n"
            f"controller.quorum.voters={quorum}\n"
            f"listeners={','.join(listeners)},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners={','.join(listeners)}\n"
            "controller.listener.names=CONTROLLER\n"
            "listener.security.protocol.map="
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,GUARDED:SASL_SSL\n"
            f"log.dirs={directory / 'data'}\n"
            f"offsets.topic.replication.factor={replicas}\n"
            f"transaction.state.log.replication.factor={replicas}\n"
            f"transaction.state.log.min.isr={min(2, replicas)}\n"
            "group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\nauto.create.topics.enable=false\n"
            "broker.session.timeout.ms=2500\nbroker.heartbeat.interval.ms=500\n"
            "num.network.threads=2\nnum.io.threads=2\nlog.cleaner.enable=false\n"
            + ("" if guarded is None else guarded.settings())
        )

    def format(self, cluster_id: str) -> None:
        words = ["format", "-t", cluster_id, "-c", str(self._settings)]
        words += [] if self._guarded is None else self._guarded.scram()
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", *words], check=True, capture_output=True
        )

    def start(self, wait: bool = True) -> "Broker":
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(self._settings)], stdout=log, stderr=log
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline_s:
            assert self.process is not None and self.process.poll() is None, self._tail()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"Kafka did not start: {self._tail()}")

    def kill(self) -> None:
        """kill -9, at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _java(self) -> list[str]:
        bounds = [f"-Xmx{HEAP_MB}m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *bounds, "-cp", f"{jars()}/*"]

    def _tail(self) -> str:
        return self._log_path.read_text()[-3000:]


class Kafka:
    """A cluster of one broker, or of three; one may have a guarded listener."""

    def __init__(self, directory: Path, brokers: int = 1, guarded: Guarded | None = None) -> None:
        ports = free_ports(2 * brokers)
        voters = [(number + 1, ports[brokers + number]) for number in range(brokers)]
        self.brokers = [
            Broker(directory / f"broker-{number + 1}", number + 1, ports[number], voters, guarded)
            for number in range(brokers)
        ]
        self.addresses = ",".join(broker.address for broker in self.brokers)

    def __enter__(self) -> "Kafka":
        # Never with a dash first: the tool would take it for an option.
        unique = b"\x01" + uuid.uuid4().bytes[1:]
        cluster_id = urlsafe_b64encode(unique).decode().rstrip("=")
        for broker in self.brokers:
            broker.format(cluster_id)
        for broker in self.brokers:
            broker.start(wait=False)
        for broker in self.brokers:
            broker.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.kill()
