"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden networks and figures."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the shared images; they may not be redistributed, so they are found through the environment."""
    folder = os.environ.get("ATD_DATA")
    if not folder:
        pytest.skip("ATD_DATA is not set")
    return Path(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for weights, and an environment in which no request leaves the machine."""
    for name in ("ATD_HUB_REPO", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ATD_HOME", str(tmp_path / "atd"))
    return tmp_path / "atd"


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub on this machine to which the huggingface_hub client is directed."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
