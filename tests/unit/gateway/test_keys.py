"""Keys: what a credential stands for, and how the file changes under us."""

import base64
import os
from pathlib import Path

import pytest

from sluiceway.errors import TenantFault
from sluiceway.gateway.keys import Keyring, new_key


def test_basic_auth_has_the_key_as_its_password(tmp_path: Path) -> None:
    key, text = new_key("default", "grafana", ("read",))
    file = tmp_path / "keys.toml"
    file.write_text(text)
    basic = b"Basic " + base64.b64encode(b"anybody:" + key.encode())
    keyring = Keyring(file)
    assert keyring.authorize({b"authorization": basic}, "read").tenant == "default"
    with pytest.raises(TenantFault, match="may not write"):
        keyring.authorize({b"authorization": basic}, "write")


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Basic !!", b"Basic \xff", b"Bearer a_b_\xff"])
def test_malformed_credentials_are_401(tmp_path: Path, value: bytes) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("")
    with pytest.raises(TenantFault) as caught:
        Keyring(file).authorize({b"authorization": value}, "read")
    assert caught.value.status == 401


def test_a_revoked_key_ends_with_the_reload(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, text = new_key("default", "agent", ("write",))
    file.write_text(text)
    keyring = Keyring(file)
    headers = {b"authorization": b"Bearer " + key.encode()}
    keyring.authorize(headers, "write")
    assert not keyring.reload()
    file.write_text("# revoked\n")
    os.utime(file, ns=(1, 1))
    assert keyring.reload()
    with pytest.raises(TenantFault):
        keyring.authorize(headers, "write")


def test_a_broken_file_keeps_the_old_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, text = new_key("default", "agent", ("write",))
    file.write_text(text)
    keyring = Keyring(file)
    file.write_text("[[key]\n")
    with pytest.raises(ValueError):
        keyring.reload()
    assert keyring.authorize({b"authorization": b"Bearer " + key.encode()}, "write")


def test_the_key_itself_is_not_in_the_file() -> None:
    key, text = new_key("default", "agent", ("write",))
    assert key not in text
    assert len(key) > 50
    with pytest.raises(ValueError):
        new_key("default", 'a"b', ("write",))
