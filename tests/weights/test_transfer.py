"""One file from a server on this machine: broken connections, wrong files, redirects, processes."""

import dataclasses
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from loopback_files import LoopbackFiles

from atd.errors import LoadError, NotEnoughDiskError
from atd.weights import transfer, web
from atd.weights.transfer import PageError, UnreachableError, Wanted, WrongFileError, fetch, incomplete_file

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/releases/download/net/net.pth"


@pytest.fixture
def wanted(files):
    files.files[PATH] = CONTENT
    return Wanted(
        label="net.pth", address=f"{files.url}{PATH}", most=2 * len(CONTENT), size=len(CONTENT), sha256=SHA256
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / ".incomplete"


def fetched(wanted, folder):
    """The content that is fetched, and what lies in the folder afterwards if it is then given its own name."""
    with incomplete_file(folder / "net", wanted.label) as file:
        received = fetch(wanted, file)
        file.move(folder.parent / "net.pth")
    content = (folder.parent / "net.pth").read_bytes()
    assert received.sha256 == hashlib.sha256(content).hexdigest()
    assert received.size == len(content)
    assert not folder.exists()
    return content


def refused(wanted, folder, error, match):
    """The error's sentence; nothing may be left."""
    with pytest.raises(error, match=match) as caught, incomplete_file(folder / "net", wanted.label) as file:
        fetch(wanted, file)
    assert not folder.exists()
    return str(caught.value)


def ranges(files):
    return [request.range for request in files.requests]


def test_a_connection_that_breaks_twice_is_continued_where_it_broke(files, wanted, folder):
    files.drops = [300_000, 200_000]
    assert fetched(wanted, folder) == CONTENT
    assert ranges(files) == [None, "bytes=300000-", "bytes=500000-"]
    assert files.sent == len(CONTENT)


def test_a_server_that_knows_no_ranges_sends_all_once_more(files, wanted, folder):
    files.drops, files.ranges = [300_000], False
    assert fetched(wanted, folder) == CONTENT
    assert len(files.requests) == 2


def test_a_file_without_tag_and_known_hash_is_not_continued(files, wanted, folder):
    files.drops, files.tags = [300_000], False
    assert fetched(dataclasses.replace(wanted, sha256=None), folder) == CONTENT
    assert ranges(files) == [None, None]


def test_what_broke_off_is_kept_and_goes_on_at_the_next_attempt(files, wanted, folder):
    files.drops = [100_000] * transfer.ATTEMPTS
    with (
        pytest.raises(UnreachableError, match=r"net\.pth: .*broke after 600000 of 1048576 bytes.*0\.6 MB are kept"),
        incomplete_file(folder / "net", "net.pth") as file,
    ):
        fetch(wanted, file)
    assert len(files.requests) == transfer.ATTEMPTS
    files.requests.clear()
    assert fetched(wanted, folder) == CONTENT
    assert ranges(files) == ["bytes=600000-"]


def test_a_file_that_changed_at_the_server_meanwhile_is_fetched_anew(files, wanted, folder):
    files.drops = [100_000] * transfer.ATTEMPTS
    with pytest.raises(UnreachableError), incomplete_file(folder / "net", "net.pth") as file:
        fetch(wanted, file)
    other = bytes(reversed(CONTENT))
    files.files[PATH] = other
    unknown = dataclasses.replace(wanted, sha256=None)
    assert fetched(unknown, folder) == other
    assert ranges(files)[-1] == "bytes=600000-"


def test_a_beginning_that_was_damaged_on_disk_is_fetched_anew(files, wanted, folder):
    files.drops = [100_000] * transfer.ATTEMPTS
    with pytest.raises(UnreachableError), incomplete_file(folder / "net", "net.pth") as file:
        fetch(wanted, file)
    with (folder / "net").open("r+b") as file:
        file.write(b"damage")
    assert fetched(wanted, folder) == CONTENT
    assert ranges(files)[-2:] == ["bytes=600000-", None]


def test_a_wrong_length_is_refused_before_it_is_read(files, wanted, folder):
    files.files[PATH] = CONTENT + b"x"
    refused(wanted, folder, WrongFileError, "has 1048577 bytes at 127.0.0.1:.*, expected 1048576")


def test_a_wrong_hash_is_refused_and_not_kept(files, wanted, folder):
    files.files[PATH] = CONTENT[:-1] + b"x"
    refused(wanted, folder, WrongFileError, rf"has the SHA-256 [0-9a-f]{{64}}, expected {SHA256}")


def test_more_bytes_than_a_network_has_are_refused_announced_or_not(files, wanted, folder):
    small = dataclasses.replace(wanted, most=1000, size=None, sha256=None)
    refused(small, folder, WrongFileError, "has 1048576 bytes .* no file of this network has more than 1000")
    files.files[PATH] = lambda request: (200, {"Content-Length": ""}, CONTENT)
    refused(small, folder, WrongFileError, "does not end within 1000 bytes")


def test_an_endless_file_is_left_at_its_cap(files, wanted, folder):
    """The server notices: it has not got rid of more than the cap and what the system buffers."""
    most = 100_000
    files.files[PATH] = lambda request: (200, {"Content-Length": ""}, bytes(64 << 20))
    endless = dataclasses.replace(wanted, most=most, size=None, sha256=None)
    refused(endless, folder, WrongFileError, f"does not end within {most} bytes")
    assert files.sent < 32 << 20


def test_a_web_page_in_place_of_the_file_is_told(files, wanted, folder):
    files.files[PATH] = lambda request: (200, {"Content-Type": "text/html"}, b"<html>sign in</html>")
    refused(wanted, folder, PageError, r"gave a web page \(200 OK\) in place of net\.pth")


def test_a_busy_server_is_asked_again_a_few_times(files, wanted, folder):
    answers = [(503, {}, b""), (429, {}, b"")]
    files.files[PATH] = lambda request: answers.pop(0) if answers else (200, {}, CONTENT)
    assert fetched(wanted, folder) == CONTENT
    files.requests.clear()
    files.files[PATH] = lambda request: (503, {}, b"")
    refused(wanted, folder, UnreachableError, "answers 503 Service Unavailable")
    assert len(files.requests) == transfer.ATTEMPTS


def test_a_server_that_is_not_there_is_asked_twice(wanted, folder):
    gone = dataclasses.replace(wanted, address="http://127.0.0.1:9/net.pth")
    refused(gone, folder, UnreachableError, r"net\.pth: 127\.0\.0\.1:9 could not be reached \(.*[Rr]efused")


def test_a_server_that_falls_silent_is_left(files, wanted, folder, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    files.pause_after = 1000
    with pytest.raises(UnreachableError, match="timed out"), incomplete_file(folder / "net", "net.pth") as file:
        fetch(wanted, file)
    assert (folder / "net").stat().st_size == 2000


def test_too_little_disk_is_told_before_anything_is_written(wanted, folder):
    free = shutil.disk_usage(folder.parent.parent).free
    large = dataclasses.replace(wanted, beside=2 * free)
    refused(large, folder, NotEnoughDiskError, r"net\.pth needs .* MB in .*cache, where .* MB are free")


# Addresses and redirects


def test_a_redirect_to_another_server_is_followed_without_the_token(files, wanted, folder):
    with LoopbackFiles() as other:
        other.files["/elsewhere"] = CONTENT
        files.files["/first"] = lambda request: (302, {"Location": PATH}, b"")
        files.files[PATH] = lambda request: (302, {"Location": f"{other.url}/elsewhere"}, b"")
        moved = dataclasses.replace(wanted, address=f"{files.url}/first", headers={"authorization": "Bearer hf_secret"})
        assert fetched(moved, folder) == CONTENT
        assert ["authorization" in request.headers for request in files.requests] == [True, True]
        assert ["authorization" in request.headers for request in other.requests] == [False]


def test_a_broken_connection_is_continued_through_the_redirect(files, wanted, folder):
    files.files["/first"] = lambda request: (302, {"Location": PATH}, b"")
    files.drops = [300_000]
    assert fetched(dataclasses.replace(wanted, address=f"{files.url}/first"), folder) == CONTENT
    assert ranges(files) == [None, None, "bytes=300000-", "bytes=300000-"]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("http://example.org/net.pth", "redirects to example.org over plain http"),
        ("file:///etc/passwd", "only https addresses are"),
        ("ftp://127.0.0.1/net.pth", "only https addresses are"),
        ("http://[", "an address that is none"),
        ("/first", "redirects more than 10 times"),
        ("//", "redirects more than 10 times"),
    ],
)
def test_a_redirect_that_leads_astray_is_not_followed(files, wanted, folder, place, sentence):
    files.files["/first"] = lambda request: (302, {"Location": place}, b"")
    refused(dataclasses.replace(wanted, address=f"{files.url}/first"), folder, LoadError, sentence)


def test_no_redirect_leads_from_https_to_plain_http():
    """Neither to this machine nor to the hub that the user has named."""
    for place in ("http://127.0.0.1/net.pth", "http://hub.example/net.pth", "http://github.com/net.pth"):
        with pytest.raises(LoadError, match="over plain http"):
            web._redirected("https://github.com/net.pth", place, "http://hub.example")
    assert web._redirected("https://github.com/a/b", "../c d", None) == "https://github.com/c%20d"


@pytest.mark.parametrize("address", ["http://example.org/net.pth", "file:///etc/passwd", "ftp://a/b", "net.pth", ""])
def test_addresses_that_are_not_https_are_not_asked(address):
    with pytest.raises(LoadError, match="only https addresses are"), web.ask(address):
        pass


def test_a_hub_over_plain_http_on_another_machine_is_warned_of_once(cache, caplog):
    hub = "http://hub.example:8080"
    for _ in range(2):
        with pytest.raises(UnreachableError, match="could not be reached"), web.ask(f"{hub}/org/net", hub=hub):
            pass
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "HF_ENDPOINT is http://hub.example:8080, which is not encrypted" in warnings[0]
    with pytest.raises(LoadError, match="only https"), web.ask("http://other.example:8080/org/net", hub=hub):
        pass


# Processes

FETCH = """
import logging, sys
from pathlib import Path
from atd.weights.transfer import Wanted, fetch, incomplete_file
logging.basicConfig(level=logging.INFO)
address, sha256, size, folder = sys.argv[1:]
target = Path(folder).parent / "net.pth"
wanted = Wanted(label="net.pth", address=address, most=1 << 24, size=int(size), sha256=sha256)
with incomplete_file(Path(folder) / "net", wanted.label) as file:
    if not target.is_file():
        fetch(wanted, file)
        file.move(target)
"""


def start(wanted, folder):
    arguments = [wanted.address, wanted.sha256, str(wanted.size), str(folder)]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


@pytest.mark.slow
def test_a_killed_download_goes_on_in_the_next_process(files, wanted, folder):
    files.pause_after = 400_000
    process = start(wanted, folder)
    assert files.paused.wait(60)
    # What is on its way is waited for: the process has it on its file once it has read it.
    while not (folder / "net").stat().st_size:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = (folder / "net").stat().st_size
    assert 0 < kept <= 400_000
    assert not (folder.parent / "net.pth").exists()
    files.pause_after = None
    files.resume.set()
    assert fetched(wanted, folder) == CONTENT
    assert ranges(files) == [None, f"bytes={kept}-"]


@pytest.mark.slow
def test_two_processes_that_want_one_file_fetch_it_once(files, wanted, folder):
    files.pause_after = 400_000
    first = start(wanted, folder)
    assert files.paused.wait(60)
    second = start(wanted, folder)
    line = second.stderr.readline()
    assert "another process is downloading net.pth: waiting for it" in line
    files.resume.set()
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert (folder.parent / "net.pth").read_bytes() == CONTENT
    assert len(files.requests) == 1
    assert not folder.exists()
