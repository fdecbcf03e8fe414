"""The Google Drive route, with a stand-in for gdown's two functions (their signatures are gdown 5.2's and 6.5's)."""

import shutil
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_networks import same_weights

import atd
from atd import registry
from atd.errors import LoadError
from atd.loading import download
from atd.registry import DriveFile
from atd.weights.drive import download as fetch

NAME = "atd_light_sr_x2"
FOLDER = "1nz0I798GM8HkPYVZCLe8i9LAK31mpYQs"  # the authors' public folder of TPAMI weights
FILE = "101_ATD_light_SRx2_scratch.pth"


@dataclass
class Listed:
    """What gdown.download_folder(skip_download=True) returns for each file."""

    id: str
    path: str
    local_path: str


class Drive:
    """Google Drive as gdown shows it: files by id, in folders."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.folders: dict[str, list[tuple[str, str]]] = {}
        self.calls: list[str] = []
        self.fault: BaseException | None = None

    def download(
        self, url=None, output=None, quiet=False, proxy=None, speed=None, use_cookies=True, verify=True, id=None
    ):
        self.calls.append(f"file {id}")
        assert url is None
        shutil.copyfile(self.files[id], output)
        if self.fault:
            raise self.fault
        return output

    def download_folder(
        self, url=None, id=None, output=None, quiet=False, proxy=None, speed=None, use_cookies=True, skip_download=False
    ):
        self.calls.append(f"folder {id}")
        assert url is None
        assert skip_download
        return [Listed(file_id, path, f"./{path}") for path, file_id in self.folders[id]]


@pytest.fixture
def drive(cache, monkeypatch):
    stand_in = Drive()
    module = types.SimpleNamespace(download=stand_in.download, download_folder=stand_in.download_folder)
    monkeypatch.setitem(sys.modules, "gdown", module)
    return stand_in


@pytest.fixture
def network(tmp_path, drive):
    """The authors' file for atd_light_sr_x2 in the TPAMI folder, and the network inside."""
    model = atd.create(NAME).eval()
    torch.save({"params_ema": model.state_dict()}, tmp_path / FILE)
    drive.files["id-101"] = tmp_path / FILE
    drive.folders[FOLDER] = [("notes.txt", "id-0"), (f"light/{FILE}", "id-101")]
    return model


def test_load_finds_the_file_in_the_authors_folder_and_keeps_it(drive, network, cache):
    loaded = atd.load(NAME)
    assert loaded.name == NAME
    assert same_weights(loaded, network)
    assert drive.calls == [f"folder {FOLDER}", "file id-101"]
    drive.calls.clear()
    assert same_weights(atd.load(NAME), network)
    assert drive.calls == []
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_a_known_file_id_needs_no_listing(drive, tmp_path, cache):
    info = registry.get("atd_cvpr_light_sr_x2")
    model = atd.create(info.name).eval()
    torch.save({"params": model.state_dict()}, tmp_path / "cvpr.pth")
    drive.files[info.sources.drive.id] = tmp_path / "cvpr.pth"
    assert download(info.name, "drive") == cache / info.name
    assert drive.calls == [f"file {info.sources.drive.id}"]
    assert same_weights(atd.load(info.name), model)


def test_nothing_is_asked_of_the_drive_when_requests_are_off(drive, network, monkeypatch):
    with pytest.raises(LoadError, match="switched off"):
        atd.load(NAME, local_files_only=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LoadError, match="switched off"):
        atd.load(NAME)
    assert drive.calls == []


def test_the_other_generations_file_of_the_same_name_is_refused(drive, network, cache):
    # Both folders use this file name: the content decides.
    drive.files[registry.get("atd_cvpr_light_sr_x2").sources.drive.id] = drive.files["id-101"]
    with pytest.raises(LoadError, match="holds the weights of atd_light_sr_x2, not atd_cvpr_light_sr_x2"):
        download("atd_cvpr_light_sr_x2", "drive")
    assert list(cache.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [RuntimeError("Too many users have viewed this file"), KeyboardInterrupt()])
def test_an_interrupted_or_refused_download_leaves_nothing(drive, network, cache, fault):
    drive.fault = fault
    expected = LoadError if isinstance(fault, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        atd.load(NAME)
    assert list(cache.iterdir()) == []
    if expected is LoadError:
        for part in ("Too many users", f"download {FILE} from https://drive.google.com/drive/folders/", "atd convert"):
            assert part in str(caught.value)


def test_a_quota_page_and_a_missing_file_are_named(drive, network, tmp_path):
    (tmp_path / FILE).write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    with pytest.raises(LoadError, match="web page"):
        download(NAME, "drive")
    drive.folders[FOLDER] = [("other.pth", "id-5")]
    with pytest.raises(LoadError, match=f"does not list {FILE}"):
        download(NAME, "drive")


def test_without_gdown_the_route_says_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(LoadError, match=r"pip install 'atd-restoration\[drive\]'"):
        download(NAME, "drive")


CONTENT = b"not the authors' file"
SHA256 = "d452b6cecaaa1b236e5c58f6e562f8f703dc61b91a40eb6e7a8f46d2d99b3032"  # by sha256sum


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({"size": 21, "sha256": SHA256}, None),
        ({}, None),
        ({"size": 22, "sha256": SHA256}, "gave 21 bytes for 003_ATD_SRx4_finetune.pth, which has 22"),
        ({"size": 21, "sha256": "0" * 64}, f"has the SHA-256 {SHA256}, expected 0000"),
    ],
)
def test_a_file_that_is_not_the_known_one_is_refused(drive, tmp_path, known, sentence):
    """Size and SHA-256 of the registry, where it has them."""
    row = registry.get("atd_cvpr_sr_x4").sources.drive
    assert (row.size, row.sha256[:8]) == (163_803_535, "092bf6aa")
    (tmp_path / "served").write_bytes(CONTENT)
    drive.files[row.id] = tmp_path / "served"
    file = DriveFile(folder=row.folder, name=row.name, id=row.id, **known)
    if sentence is None:
        assert fetch(file, tmp_path).read_bytes() == CONTENT
    else:
        with pytest.raises(LoadError, match=sentence):
            fetch(file, tmp_path)
