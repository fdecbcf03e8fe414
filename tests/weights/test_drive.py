"""Google Drive's addresses on this machine: files by id, folders, and the pages that it gives in place of files."""

import dataclasses
import shutil
import sys
import types

import pytest
import torch
from loopback_files import QUOTA
from small_networks import same_weights

import atd
from atd import registry
from atd.errors import LoadError
from atd.registry import DriveFile
from atd.weights import drive as drive_module
from atd.weights.transfer import WrongFileError, incomplete_file

NAME = "atd_light_sr_x2"
FOLDER = "1nz0I798GM8HkPYVZCLe8i9LAK31mpYQs"  # the authors' public folder of TPAMI weights
FILE = "101_ATD_light_SRx2_scratch.pth"


@pytest.fixture(autouse=True)
def no_gdown(monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)


@pytest.fixture
def network(tmp_path, drive):
    """The authors' file for atd_light_sr_x2 in the TPAMI folder, and the network inside."""
    model = atd.create(NAME).eval()
    torch.save({"params_ema": model.state_dict()}, tmp_path / FILE)
    drive.files["id-101"] = (tmp_path / FILE).read_bytes()
    drive.folders[FOLDER] = [("notes & more.txt", "id-00"), ("light", "light-folder")]
    drive.folders["light-folder"] = [(FILE, "id-101")]
    return model


def test_load_finds_the_file_in_a_folder_of_the_authors_folder_and_keeps_it(drive, network, cache):
    loaded = atd.load(NAME)
    assert loaded.name == NAME
    assert same_weights(loaded, network)
    assert drive.asked == [f"folder {FOLDER}", "folder light-folder", "file id-101"]
    assert same_weights(atd.load(NAME), network)
    assert len(drive.asked) == 3
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_a_known_file_id_needs_no_listing(drive, tmp_path, cache):
    info = registry.get("atd_cvpr_light_sr_x2")
    model = atd.create(info.name).eval()
    torch.save({"params": model.state_dict()}, tmp_path / "cvpr.pth")
    drive.files[info.sources.drive.id] = (tmp_path / "cvpr.pth").read_bytes()
    assert atd.download(info.name, "drive") == cache / info.name
    assert drive.asked == [f"file {info.sources.drive.id}"]
    assert same_weights(atd.load(info.name), model)


def test_the_form_of_the_virus_scan_is_followed_once(drive, network):
    drive.forms.add("id-101")
    assert same_weights(atd.load(NAME), network)
    assert drive.asked[-2:] == ["file id-101", "file id-101"]
    assert drive.server.requests[-1].query["uuid"] == "0b5e"


def test_a_form_that_leads_elsewhere_is_not_followed(drive, network):
    drive.forms.add("id-101")
    drive.action = "http://127.0.0.1:9/download"
    with pytest.raises(LoadError, match=r"gave a web page in place of .*Virus scan warning"):
        atd.download(NAME, "drive")
    assert drive.asked[-1:] == ["file id-101"]
    assert len(drive.asked) == 3


def test_a_download_that_broke_off_goes_on_after_the_form(drive, network, cache):
    drive.forms.add("id-101")
    drive.server.drops = [1 << 30, 1 << 30, 1 << 30, 500_000]  # listings, the form, and the file
    assert same_weights(atd.load(NAME), network)
    assert drive.server.requests[-1].range == "bytes=500000-"


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ((200, QUOTA), rf"gives {FILE} to nobody for now: its quota of downloads is used up"),
        ((404, "<html><title>Error 404 (Not Found)</title></html>"), rf"has no {FILE} any more"),
        ((200, "<html><title>Google Drive: Sign in</title></html>"), "asks for an account"),
        ((200, "<html><script>var x;</script><p>Under maintenance</p></html>"), "which begins: Under maintenance;"),
        ((500, "<html>"), "answers 500 Internal Server Error"),
    ],
)
def test_each_page_in_place_of_a_file_has_a_sentence(drive, network, cache, page, sentence):
    drive.pages["id-101"] = page
    with pytest.raises(LoadError, match=sentence) as caught:
        atd.load(NAME)
    for part in (f"download {FILE} from https://drive.google.com/drive/folders/{FOLDER}", "atd convert"):
        assert part in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_folder_without_the_file_and_a_folder_that_is_gone_are_told(drive, network):
    drive.folders[FOLDER] = [("other.pth", "id-55")]
    with pytest.raises(LoadError, match=f"does not list {FILE}; download {FILE} from"):
        atd.download(NAME, "drive")
    del drive.folders[FOLDER]
    with pytest.raises(LoadError, match=rf"404 Not Found to the listing of the folder {FOLDER}: it is not public"):
        atd.download(NAME, "drive")


def test_folders_that_hold_each_other_end(drive, network):
    drive.folders["light-folder"] = [("back", FOLDER), ("own", "light-folder")]
    with pytest.raises(LoadError, match="does not list"):
        atd.download(NAME, "drive")
    assert drive.asked == [f"folder {FOLDER}", "folder light-folder"]


def test_names_and_ids_of_a_listing_are_no_paths(drive, network, cache, tmp_path):
    drive.folders[FOLDER] = [("../../../evil.pth", "id-101"), (FILE, "../../evil"), (FILE, "id-101")]
    assert same_weights(atd.load(NAME), network)
    assert drive.asked[-1] == "file id-101"
    assert not list(tmp_path.rglob("*evil*"))


def test_the_other_generations_file_of_the_same_name_is_refused(drive, network, cache):
    # Both folders use this file name: the content decides.
    drive.files[registry.get("atd_cvpr_light_sr_x2").sources.drive.id] = drive.files["id-101"]
    with pytest.raises(LoadError, match="holds the weights of atd_light_sr_x2, not atd_cvpr_light_sr_x2"):
        atd.download("atd_cvpr_light_sr_x2", "drive")
    assert list(cache.iterdir()) == []


CONTENT = b"not the authors' file"
SHA256 = "d452b6cecaaa1b236e5c58f6e562f8f703dc61b91a40eb6e7a8f46d2d99b3032"  # by sha256sum


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({"size": 21, "sha256": SHA256}, None),
        ({}, None),
        ({"size": 22, "sha256": SHA256}, "has 21 bytes at .*, expected 22"),
        ({"size": 21, "sha256": "0" * 64}, f"has the SHA-256 {SHA256}, expected 0000"),
    ],
)
def test_a_file_that_is_not_the_known_one_is_refused(drive, tmp_path, known, sentence):
    """Size and SHA-256 of the registry, where it has them."""
    row = registry.get("atd_cvpr_sr_x4").sources.drive
    assert (row.size, row.sha256[:8]) == (163_803_535, "092bf6aa")
    assert row.size < registry.get("atd_cvpr_sr_x4").largest_file
    drive.files[row.id] = CONTENT
    file = DriveFile(folder=row.folder, name=row.name, id=row.id, **known)
    with incomplete_file(tmp_path / "part" / "file", row.name) as into:
        if sentence is None:
            drive_module.fetch_file(file, into, most=1 << 20)
            assert into.path.read_bytes() == CONTENT
            into.discard()
        else:
            with pytest.raises(WrongFileError, match=sentence):
                drive_module.fetch_file(file, into, most=1 << 20)
    assert not (tmp_path / "part").exists()


# gdown, where it is installed and what is above failed; its signatures are those of 5.2 and 6.5


@pytest.fixture
def gdown(drive, tmp_path, monkeypatch):
    """A stand-in for gdown's two functions, which has the files that Google Drive refuses to others."""
    calls = []

    def download(url=None, output=None, quiet=False, proxy=None, speed=None, use_cookies=True, verify=True, id=None):
        calls.append(f"file {id}")
        shutil.copyfile(tmp_path / FILE, output)
        return output

    def download_folder(
        url=None, id=None, output=None, quiet=False, proxy=None, speed=None, use_cookies=True, skip_download=False
    ):
        assert skip_download
        calls.append(f"folder {id}")
        return [types.SimpleNamespace(id="id-101", path=f"light/{FILE}", local_path="")]

    module = types.SimpleNamespace(download=download, download_folder=download_folder)
    monkeypatch.setitem(sys.modules, "gdown", module)
    return calls


def test_gdown_is_asked_when_google_drive_gave_a_page(drive, network, gdown, cache):
    drive.pages["id-101"] = (200, QUOTA)
    assert same_weights(atd.load(NAME), network)
    assert gdown == [f"folder {FOLDER}", "file id-101"]
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_gdown_is_not_asked_when_all_is_well_or_the_file_is_another(drive, network, gdown, monkeypatch):
    assert same_weights(atd.load(NAME), network)
    info = registry.get("atd_cvpr_light_sr_x2")
    drive.files[info.sources.drive.id] = b"x"
    known = dataclasses.replace(info.sources.drive, size=2)
    row = dataclasses.replace(info, sources=registry.Sources(drive=known))
    monkeypatch.setitem(registry._table(), info.name, row)
    with pytest.raises(LoadError, match=r"has 1 bytes at .*, expected 2"):
        atd.load(info.name)
    assert gdown == []
