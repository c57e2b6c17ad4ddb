"""Which port `up` takes when it may take any."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from actors import up
from actors.config import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_of_our_choice_is_none_that_an_outgoing_connection_could_get(tmp_path: Path, host: str) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    assert up.QUIET_PORTS.stop <= 32_768, "where Linux begins, unless it is told otherwise"
    for _ in range(20):
        chosen = up.choose_port(Settings(data_dir=tmp_path, host=host, port=0)).port
        assert chosen in up.QUIET_PORTS


def test_a_taken_port_is_passed_over_and_without_a_quiet_one_any_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.free_port("127.0.0.1")))
        taken.listen()
        port = taken.getsockname()[1]
        free = up.free_port("127.0.0.1")
        monkeypatch.setattr(random, "sample", lambda *_: [port, free])
        assert up.choose_port(settings).port == free
        monkeypatch.setattr(random, "sample", lambda *_: [port])
        assert up.choose_port(settings).port not in (0, port)


def test_a_host_that_is_not_ours_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(up.Refused, match=r"192\.0\.2\.1:0 cannot be used"):
        up.choose_port(Settings(data_dir=tmp_path, host="192.0.2.1", port=0, insecure=True))
