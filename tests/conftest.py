"""Fixtures that several test files share."""

import os
import socket
from pathlib import Path

# A worker of pytest-xdist shares the cores with the others. torch reads this when it is imported, so it comes first.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _threads)))

import pytest
from browser import find_browser
from loopback_files import LoopbackDrive, LoopbackFiles
from loopback_hub import LoopbackHub

from atd.weights import drive as drive_module
from atd.weights import transfer

# In CI a test may be skipped for these reasons only, so that no protocol test goes missing unseen.
ALLOWED_SKIPS = (
    "needs a CUDA card",
    "Triton's interpreter of this version cannot run with this NumPy",
    "gloo of this torch cannot average for FSDP",
    # `nox -s ray` has it, and CI runs it.
    "Ray is not installed",
    "fish is not installed",
    "zsh is not installed",
    # `nox -s export` has them, and CI runs it.
    "ONNX Runtime is not installed",
    "OpenVINO is not installed",
    "this torch exports no network for every size",
    "ATD_EXPORT_BUNDLED is not set",
)


# More of them would hold a copy of torch each, for little.
MOST_WORKERS = 4


def pytest_xdist_auto_num_workers(config) -> int:
    """Processes for `-n auto`: one a core for whole folders, none for files, which end before a second one starts."""
    if all(Path(argument.split("::")[0]).is_dir() for argument in config.args):
        return min(os.cpu_count() or 1, MOST_WORKERS)
    return 0


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(items) -> None:
    """The slow ones first: a long test that comes last would leave the other cores without work."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter) -> None:
    """Name the skips that CI does not allow; `pytest_sessionfinish` has failed the run for them."""
    for reason in _unexpected_skips(terminalreporter):
        terminalreporter.write_line(f"skipped in CI without leave: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == 0 and reporter and _unexpected_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexpected_skips(reporter) -> list[str]:
    if not os.environ.get("CI"):
        return []
    reasons = (report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", []))
    return [reason for reason in reasons if not reason.startswith(ALLOWED_SKIPS)]


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


@pytest.fixture(scope="session")
def browser() -> str:
    """The program of a browser."""
    return find_browser()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for weights, and an environment in which no request leaves the machine."""
    for name in ("ATD_HUB_REPO", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ATD_HOME", str(tmp_path / "atd"))
    monkeypatch.setattr(drive_module, "FILE_ADDRESS", "http://127.0.0.1:9/download")
    monkeypatch.setattr(drive_module, "FOLDER_ADDRESS", "http://127.0.0.1:9/embeddedfolderview")
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    resolve = socket.getaddrinfo

    def resolve_here(host, *arguments, **keywords):
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise socket.gaierror(socket.EAI_NONAME, "no name is resolved in tests")
        return resolve(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return tmp_path / "atd"


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub on this machine to which the huggingface_hub client is directed."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def files(cache):
    """A server of files on this machine, such as GitHub's releases."""
    with LoopbackFiles() as server:
        yield server


@pytest.fixture
def drive(files, monkeypatch):
    """Google Drive on this machine."""
    monkeypatch.setattr(drive_module, "FILE_ADDRESS", f"{files.url}/download")
    monkeypatch.setattr(drive_module, "FOLDER_ADDRESS", f"{files.url}/embeddedfolderview")
    return LoopbackDrive(files)
