"""What others on this machine could read or change is told, and stops nothing."""

import os
from pathlib import Path

import pytest

from pipeline.app import context
from pipeline.settings import ProviderSettings


@pytest.mark.parametrize(
    ("mode", "is_told"),
    [
        pytest.param(0o644, True, id="S04-all-may-read"),
        pytest.param(0o640, True, id="S04-the-group-may-read"),
        pytest.param(0o600, False, id="S04-private"),
    ],
)
def test_a_key_that_others_can_read_is_told_without_showing_it(tmp_path: Path, mode: int, is_told: bool) -> None:
    (tmp_path / ".env").write_text("COMETAPI_KEY=sk-canary-7f3a\n")
    (tmp_path / ".env").chmod(mode)
    told = context.key_exposure(tmp_path)
    assert (told is not None) is is_told
    assert told is None or (f"chmod 600 {tmp_path / '.env'}" in told and "canary" not in told)


def test_S04_a_key_file_of_somebody_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("COMETAPI_KEY=sk-canary-7f3a\n")
    if os.getuid() == 0:  # what root owns is trusted
        os.chown(tmp_path / ".env", 12345, 12345)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert "belongs to another user" in str(context.key_exposure(tmp_path))


def test_no_key_file_is_nothing_to_tell(tmp_path: Path) -> None:
    assert context.key_exposure(tmp_path) is None


@pytest.mark.parametrize(
    ("mode", "is_told"),
    [
        pytest.param(0o777, True, id="S11-all-may-write"),
        pytest.param(0o1777, False, id="S11-sticky"),
        pytest.param(0o755, False, id="S11-ours"),
    ],
)
def test_a_folder_that_everybody_can_write_to_is_told(tmp_path: Path, mode: int, is_told: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    assert (context.folder_exposure(tmp_path / "out") is not None) is is_told


@pytest.mark.parametrize(
    ("base_url", "told"),
    [
        (None, None),
        ("https://api.cometapi.com/relay", None),
        ("http://127.0.0.1:8801", None),
        ("https://relay.example/v1", "the key in COMETAPI_KEY goes to relay.example, which is not api.cometapi.com"),
        ("https://api.cometapi.com.evil.example", "goes to api.cometapi.com.evil.example, which is not"),
    ],
)
def test_a_host_that_is_not_the_kinds_own_is_told_with_the_name_of_the_key(base_url: str | None, told: str) -> None:
    said = context.of_host(ProviderSettings(base_url=base_url))
    assert (said is None) is (told is None)
    assert said is None or told in said
