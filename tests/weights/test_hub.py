"""The real huggingface_hub client against a hub on this machine: cache, revisions, hashes, faults and uploads."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from small_networks import output, same_weights, small

import atd
from atd import registry
from atd.errors import LoadError
from atd.loading import download
from atd.weights import hub as hub_module

MODEL = "me/net"
ZOO = "me/zoo"
NAME = "atd_light_sr_x2"


def files_of(model):
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in model.save_pretrained(folder).iterdir()}


@pytest.fixture
def model():
    return small("ATD")


@pytest.fixture(scope="module")
def official():
    """Stands for the authors' network, under the paths of ATD_HUB_REPO."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = atd.create(NAME).eval()
    return network, {f"{NAME}/{name}": content for name, content in files_of(network).items()}


# Repositories by id


def test_a_repository_is_fetched_once_and_needs_no_request_afterwards(hub, model):
    revision = hub.commit(MODEL, files_of(model))
    for source in (f"{MODEL}@{revision}", f"{MODEL}@main", MODEL):
        assert torch.equal(output(atd.load(source)), output(model))
    hub.requests.clear()
    for arguments in ({}, {"revision": "main"}, {"revision": revision}, {"local_files_only": True}):
        assert atd.load(MODEL, **arguments).config == model.config
    assert atd.ATD.from_pretrained(MODEL).config == model.config
    assert hub.requests == []


def test_offline_means_no_request_with_and_without_the_file(hub, model, monkeypatch):
    hub.commit(MODEL, files_of(model))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE"):
        atd.load(MODEL)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(LoadError, match="local_files_only"):
        atd.load(MODEL, local_files_only=True)
    assert hub.requests == []
    atd.load(MODEL)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert torch.equal(output(atd.load(MODEL)), output(model))
    assert hub.requests == []


def test_a_repository_without_config_is_recognised_and_asked_for_one_only_once(hub):
    model = small("ATD", category_size=256)
    files = files_of(model)
    hub.commit(MODEL, {"model.safetensors": files["model.safetensors"]})
    assert torch.equal(output(atd.load(MODEL)), output(model))
    hub.requests.clear()
    atd.load(MODEL)
    assert hub.requests == []


def test_config_and_weights_come_from_one_commit_when_the_branch_moves_on(hub):
    first, second = small("ATD", category_size=16), small("ATD", category_size=5)
    hub.commit(MODEL, files_of(first))
    hub_module.hub_file(MODEL, "main", "model.safetensors")  # interrupted before the config was fetched
    hub.commit(MODEL, files_of(second))
    assert atd.load(MODEL).config["category_size"] == 16


def test_missing_repositories_revisions_and_files_are_told_apart(hub, model):
    hub.commit(MODEL, {"README.md": b"nothing here"})
    for source, message in [
        ("me/other", "no hub repository me/other"),
        (f"{MODEL}@{'0' * 40}", "no revision 0000"),
        (f"{MODEL}@v9", "no revision v9"),
        (MODEL, "no file model.safetensors"),
    ]:
        with pytest.raises(LoadError, match=message) as caught:
            atd.load(source)
        assert "\n" not in str(caught.value)


def test_a_pickle_in_a_repository_is_never_fetched(hub, model):
    hub.commit(MODEL, {"pytorch_model.bin": b"code", "model.pth": b"code"})
    with pytest.raises(LoadError, match=r"no file model\.safetensors"):
        atd.load(MODEL)
    assert not any(request.endswith((".bin", ".pth")) for request in hub.requests)


def test_an_unreachable_hub_is_one_sentence(cache, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its attempts
    with pytest.raises(LoadError, match="could not be reached") as caught:
        atd.load(MODEL)
    assert "\n" not in str(caught.value)


# Content that is not what it should be


def test_content_that_does_not_match_the_hubs_hash_is_refused_and_not_kept(hub, model):
    hub.commit(MODEL, files_of(model))
    hub.corrupt.add("model.safetensors")
    with pytest.raises(LoadError, match="SHA-256"):
        atd.load(MODEL)
    assert not list(hub_module.hub_cache().rglob("model.safetensors"))
    hub.corrupt.clear()
    assert torch.equal(output(atd.load(MODEL)), output(model))


def test_a_cached_file_that_changed_on_disk_is_refused(hub, model):
    hub.commit(MODEL, files_of(model))
    atd.load(MODEL)
    (path,) = hub_module.hub_cache().rglob("model.safetensors")
    blob = path.resolve()
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(LoadError, match="SHA-256"):
        atd.load(MODEL, local_files_only=True)


def test_a_truncated_safetensors_on_the_hub_is_refused(hub, model):
    files = files_of(model)
    hub.commit(MODEL, {**files, "model.safetensors": files["model.safetensors"][:-100]})
    with pytest.raises(LoadError, match="truncated or damaged"):
        atd.load(MODEL)


@pytest.mark.parametrize("tag", ["absolute", "climbing", "of another file"])
def test_what_a_hostile_hub_names_files_by_is_no_path(hub, model, tmp_path, tag):
    """huggingface_hub 2.4 takes ETags for names in its cache, and an absolute one leads out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = {"absolute": str(outside / "evil"), "climbing": "../../../../outside/evil", "of another file": "0" * 64}
    hub.commit(MODEL, files_of(model))
    before = {path for path in tmp_path.rglob("*") if "hf" not in path.relative_to(tmp_path).parts[:1]}

    def hostile(method, status, headers, body):
        name = names[tag]
        said = {
            "ETag": f'"{name}"',
            "X-Linked-Etag": f'"{name}"',
            "Content-Disposition": f"attachment; filename={name}",
        }
        return status, {**headers, **said}, body

    hub.distort = hostile
    if tag == "of another file":
        with pytest.raises(LoadError, match=r"SHA-256 [0-9a-f]{64}, expected 0000"):
            atd.load(MODEL)
    else:
        assert torch.equal(output(atd.load(MODEL)), output(model))
    after = {path for path in tmp_path.rglob("*") if "hf" not in path.relative_to(tmp_path).parts[:1]}
    assert after == before
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("commit", ["/tmp/evil", "../../../../outside", "", "main", "f" * 39])
def test_a_commit_that_is_none_is_refused_for_a_branch_and_not_needed_for_a_commit(hub, model, tmp_path, commit):
    revision = hub.commit(MODEL, files_of(model))
    hub.distort = lambda method, status, headers, body: (status, {**headers, "X-Repo-Commit": commit}, body)
    with pytest.raises(LoadError, match="does not say of which commit"):
        atd.load(f"{MODEL}@main")
    assert not list(hub_module.hub_cache().rglob("*.safetensors"))
    assert torch.equal(output(atd.load(f"{MODEL}@{revision}")), output(model))


def test_a_revision_that_climbs_out_of_the_cache_is_refused(hub):
    for revision in ("../../x", "/tmp/x", "a//b", "."):
        with pytest.raises(LoadError, match="is none; expected a commit, a tag or a branch"):
            hub_module.hub_file(MODEL, revision, "model.safetensors")
    assert hub.requests == []


def test_the_cache_is_one_that_huggingface_hub_reads(hub, model, monkeypatch):
    """Its own functions find our files, for branch and commit, and fetch nothing more."""
    from huggingface_hub import hf_hub_download, scan_cache_dir

    revision = hub.commit(MODEL, files_of(model))
    atd.load(MODEL)
    hub.requests.clear()
    for name in ("main", revision):
        path = hf_hub_download(
            MODEL, "model.safetensors", revision=name, cache_dir=hub_module.hub_cache(), local_files_only=True
        )
        assert same_weights(atd.load(path), model)
    assert hub.requests == []
    (repository,) = scan_cache_dir(hub_module.hub_cache()).repos
    assert repository.repo_id == MODEL
    assert {file.file_name for commit in repository.revisions for file in commit.files} == {
        "config.json",
        "model.safetensors",
    }


def test_the_token_goes_to_the_hub(hub, model, monkeypatch):
    hub.commit(MODEL, files_of(model))
    seen = []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.heard = seen.append
    atd.load(MODEL)
    assert {headers["Authorization"] for headers in seen} == {"Bearer hf_secret"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_no_file_behind(hub, model, how):
    hub.commit(MODEL, files_of(model))
    hub.pause_after = 2000
    code = f"import signal, atd; signal.signal(signal.SIGINT, signal.default_int_handler); atd.load({MODEL!r})"
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert hub.paused.wait(120)
        process.send_signal(how)
        process.wait(60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not list(hub_module.hub_cache().rglob("model.safetensors"))
    hub.pause_after = None
    hub.resume.set()
    with pytest.raises(LoadError, match="local_files_only"):
        atd.load(MODEL, local_files_only=True)
    assert torch.equal(output(atd.load(MODEL)), output(model))


# The official weights in ATD_HUB_REPO


def test_official_weights_come_from_the_named_repository_at_its_revision(hub, official, monkeypatch):
    network, files = official
    revision = hub.commit(ZOO, files)
    hub.commit(ZOO, {f"{NAME}/model.safetensors": b"a later commit"})
    monkeypatch.setenv("ATD_HUB_REPO", f"{ZOO}@{revision}")
    assert not hub_module.is_cached(registry.get(NAME))
    loaded = atd.load(NAME)
    assert loaded.name == NAME
    assert same_weights(loaded, network)
    hub.requests.clear()
    assert hub_module.is_cached(registry.get(NAME))
    atd.load(NAME)
    monkeypatch.setenv("ATD_HUB_REPO", ZOO)
    atd.load(NAME, revision=revision)
    assert hub.requests == []


def test_without_a_revision_no_request_is_made(hub, official, monkeypatch):
    hub.commit(ZOO, official[1])
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setenv("ATD_HUB_REPO", ZOO)
    with pytest.raises(LoadError, match="org/repo@revision"):
        atd.load(NAME)
    with pytest.raises(LoadError, match="org/repo@revision"):
        download(NAME)
    monkeypatch.setenv("ATD_HUB_REPO", "not a repository")
    with pytest.raises(LoadError, match="ATD_HUB_REPO"):
        atd.load(NAME)
    assert hub.requests == []


def test_a_converted_file_comes_before_the_hub_and_a_revision_before_both(hub, official, cache, monkeypatch):
    network, files = official
    revision = hub.commit(ZOO, files)
    converted = atd.create(NAME).eval()
    converted.save_pretrained(cache / NAME)
    monkeypatch.setenv("ATD_HUB_REPO", f"{ZOO}@{revision}")
    assert same_weights(atd.load(NAME), converted)
    assert hub.requests == []
    assert same_weights(atd.load(NAME, revision=revision), network)


@pytest.mark.parametrize("right", [True, False])
def test_the_registrys_own_hash_is_checked(hub, official, monkeypatch, right):
    _, files = official
    revision = hub.commit(ZOO, files)
    digest = hashlib.sha256(files[f"{NAME}/model.safetensors"]).hexdigest() if right else "0" * 64
    pinned = registry.Sources(hub=registry.HubFile(revision=revision, sha256=digest))
    monkeypatch.setitem(registry._table(), NAME, dataclasses.replace(registry.get(NAME), sources=pinned))
    monkeypatch.setenv("ATD_HUB_REPO", ZOO)
    if right:
        assert atd.load(NAME).name == NAME
    else:
        with pytest.raises(LoadError, match=f"SHA-256.*{'0' * 64}"):
            atd.load(NAME)
        assert not list(hub_module.hub_cache().rglob("model.safetensors"))


def test_a_repository_with_another_networks_file_is_refused(hub, official, monkeypatch):
    content = official[1][f"{NAME}/model.safetensors"]
    revision = hub.commit(ZOO, {"atd_light_sr_x4/model.safetensors": content})
    monkeypatch.setenv("ATD_HUB_REPO", f"{ZOO}@{revision}")
    with pytest.raises(LoadError, match="holds the weights of atd_light_sr_x2, not atd_light_sr_x4"):
        atd.load("atd_light_sr_x4")


def test_what_the_hub_lacks_is_told_with_the_other_ways(hub, official, monkeypatch):
    revision = hub.commit(ZOO, official[1])
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setenv("ATD_HUB_REPO", f"{ZOO}@{revision}")
    with pytest.raises(LoadError) as caught:
        atd.load("atd_light_sr_x3")
    for part in ("no file atd_light_sr_x3/model.safetensors", "Google Drive", "atd convert", "--weights bundled"):
        assert part in str(caught.value)


def test_download_places_the_weights_for_good(hub, official, cache, monkeypatch):
    network, files = official
    monkeypatch.setenv("ATD_HUB_REPO", f"{ZOO}@{hub.commit(ZOO, files)}")
    assert download(NAME) == cache / NAME
    monkeypatch.delenv("ATD_HUB_REPO")
    hub.requests.clear()
    assert same_weights(atd.load(NAME), network)
    assert download(NAME) == cache / NAME
    assert hub.requests == []


# The environment of a fresh process, and uploads


@pytest.mark.slow
def test_a_fresh_process_honours_the_environment(hub, model, tmp_path):
    hub.commit(MODEL, files_of(model))
    environment = {key: value for key, value in os.environ.items() if key not in ("ATD_HOME", "HF_HOME")}
    environment.update(XDG_CACHE_HOME=str(tmp_path / "xdg"), HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    code = f"""
import os, atd
from atd.weights import hub
config = atd.load({MODEL!r}).config
os.environ["HF_HUB_OFFLINE"] = "1"
assert atd.load({MODEL!r}).config == config
print(hub.home(), hub.hub_cache())
"""
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    home = tmp_path / "xdg" / "huggingface"
    assert run.stdout.split() == [str(home / "atd"), str(home / "hub")]
    assert run.stderr == ""
    assert list((home / "hub").rglob("model.safetensors"))


def test_a_pushed_model_comes_back_from_the_hub(hub, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    url = model.push_to_hub(MODEL, token="hf_test")
    commit = hub.repositories[MODEL].refs["main"]
    assert url == f"{hub.url}/{MODEL}/commit/{commit}"
    stored = hub.repositories[MODEL].commits[commit]
    assert set(stored) == {"model.safetensors", "config.json", "README.md"}
    assert json.loads(stored["config.json"])["architecture"] == "ATD"
    assert torch.equal(output(atd.load(MODEL)), output(model))
