"""Where the sockets between the two sides are."""

from pathlib import Path

from sluiceway.serve.directory import SOCKET_PATH_BYTES_MAX, socket_directory


def test_beside_the_data_where_the_address_fits(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as short, socket_directory(Path(short)) as chosen:
        assert chosen == Path(short).resolve() / "run"
        assert chosen.stat().st_mode & 0o077 == 0


def test_elsewhere_below_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with socket_directory(deep) as chosen:
        assert len(str(chosen / "evaluate.sock")) <= SOCKET_PATH_BYTES_MAX
        assert chosen.stat().st_mode & 0o077 == 0
    assert not chosen.exists()
