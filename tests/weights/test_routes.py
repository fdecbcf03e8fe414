"""Every network by each of its sources, in their order; what is kept, shown and refused."""

import dataclasses
import hashlib
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save as serialize
from small_networks import same_weights, small

import atd
from atd import registry
from atd.cli import main
from atd.errors import LoadError
from atd.registry import DriveFile, HttpsFile, HubFile, Sources
from atd.weights import hub as hub_module
from atd.weights.integrity import file_sha256

COMMUNITY = ["4xNomosWebPhoto_atd", "4xRealWebPhoto_v3_atd", "4xNomos8k_atd_jpg", "4xNomos2_hq_atd"]
ROUTES = [(name, kind) for name in registry.list_models() for kind in registry.get(name).sources.in_order]


def as_pth(model, path):
    torch.save({"params_ema": model.state_dict()}, path)
    return path.read_bytes()


def small_row(name):
    """The row of `name` for a network of its family with few parameters, and such a network."""
    info = registry.get(name)
    model = small(info.architecture, in_chans=info.in_channels)
    task = info.task if info.scale == 1 else dataclasses.replace(info.task, scale=2)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return dataclasses.replace(info, config=model.config, task=task, parameters=parameters), model


def use(monkeypatch, info):
    monkeypatch.setitem(registry._table(), info.name, info)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def three(hub, files, drive, monkeypatch, tmp_path):
    """4xNomosWebPhoto_atd, small, with a source of each kind that has it."""
    info, model = small_row(COMMUNITY[0])
    tensors, pickle = serialize(model.state_dict()), as_pth(model, tmp_path / "net.pth")
    revision = hub.commit("Phips/net", {"net.safetensors": tensors})
    files.files["/releases/download/net/net.pth"] = pickle
    drive.files["id-net-1"] = pickle
    sources = Sources(
        hub=HubFile(repository="Phips/net", revision=revision, name="net.safetensors", sha256=sha256(tensors)),
        https=HttpsFile(url=f"{files.url}/releases/download/net/net.pth", sha256=sha256(pickle), size=len(pickle)),
        drive=DriveFile(folder="folder-1", id="id-net-1", name="net.pth"),
    )
    use(monkeypatch, dataclasses.replace(info, sources=sources))
    return model


@pytest.mark.parametrize(("name", "kind"), ROUTES, ids=["-".join(route) for route in ROUTES])
def test_every_network_comes_by_each_of_its_sources(hub, files, drive, monkeypatch, tmp_path, name, kind):
    """Under the names, ids and addresses of the registry; small networks in place of the large ones."""
    info, model = small_row(name)
    source = info.sources.in_order[kind]
    content = serialize(model.state_dict()) if kind == "hub" else as_pth(model, tmp_path / "net.pth")
    known = {"size": len(content) if source.size else None, "sha256": sha256(content) if source.sha256 else None}
    if isinstance(source, HubFile):
        source = dataclasses.replace(source, revision=hub.commit(source.repository, {source.name: content}), **known)
    elif isinstance(source, HttpsFile):
        path = source.url.removeprefix("https://github.com")
        files.files[path] = lambda request: (302, {"Location": "/storage/1?signature=x"}, b"")
        files.files["/storage/1"] = content
        source = dataclasses.replace(source, url=f"{files.url}{path}", **known)
    else:
        identity = source.id or "id-of-the-file"
        drive.files[identity] = content
        drive.folders[source.folder] = [("read me.txt", "id-other"), (source.name, identity)]
        source = dataclasses.replace(source, **known)
    use(monkeypatch, dataclasses.replace(info, sources=Sources(**{kind: source})))
    loaded = atd.load(name)
    assert (loaded.name, loaded.task) == (name, info.task.key)
    assert same_weights(loaded, model)
    hub.requests.clear()
    files.requests.clear()
    assert same_weights(atd.load(name), model)
    assert same_weights(atd.load(name, local_files_only=True), model)
    assert (hub.requests, files.requests) == ([], [])


def test_sources_are_tried_in_order_and_every_failure_is_told(three, hub, files, drive, cache):
    content = files.files["/releases/download/net/net.pth"]
    assert same_weights(atd.load(COMMUNITY[0]), three)
    assert files.requests == []
    hub.repositories.clear()
    (hub_module.hub_cache() / "models--Phips--net").rename(hub_module.hub_cache() / "gone")
    assert same_weights(atd.load(COMMUNITY[0]), three)
    assert [request.path for request in files.requests] == ["/releases/download/net/net.pth"]
    for path in (cache / COMMUNITY[0]).iterdir():
        path.unlink()
    files.files["/releases/download/net/net.pth"] = content[:-1] + b"x"
    assert same_weights(atd.load(COMMUNITY[0]), three)
    assert [request.query.get("id") for request in files.requests][-1] == "id-net-1"
    for path in (cache / COMMUNITY[0]).iterdir():
        path.unlink()
    drive.files["id-net-1"] = b"<html>"
    with pytest.raises(LoadError) as caught:
        atd.load(COMMUNITY[0])
    lines = str(caught.value).splitlines()
    for line, part in zip(
        lines,
        [
            "not in the cache",
            "no hub repository Phips/net",
            "has the SHA-256",
            "is a web page",
            "To use a file: download",
        ],
        strict=False,
    ):
        assert part in line
    assert not (cache / ".incomplete").exists()


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "local_files_only"])
def test_no_source_is_asked_when_requests_are_off(three, hub, files, monkeypatch, switch):
    if switch == "HF_HUB_OFFLINE":
        monkeypatch.setenv(switch, "1")
    with pytest.raises(LoadError, match="requests are switched off"):
        atd.load(COMMUNITY[0], local_files_only=switch == "local_files_only")
    assert (hub.requests, files.requests) == ([], [])


def test_one_source_alone_is_asked_when_it_is_named(three, hub, files, drive, cache):
    for kind, requests in (("drive", files.requests), ("https", files.requests), ("hub", hub.requests)):
        hub.requests.clear()
        files.requests.clear()
        assert atd.download(COMMUNITY[0], kind) == cache / COMMUNITY[0]
        assert len(requests) == 1
        assert len(hub.requests) + len(files.requests) == 1
        for path in (cache / COMMUNITY[0]).iterdir():
            path.unlink()
    with pytest.raises(LoadError, match="expected one of 'any', 'hub', 'https', 'drive'"):
        atd.download(COMMUNITY[0], "torrent")
    with pytest.raises(LoadError, match="No https address is known for atd_sr_x4"):
        atd.download("atd_sr_x4", "https")


def test_a_mirror_of_the_hub_is_asked_in_its_place(three, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    assert same_weights(atd.load(COMMUNITY[0]), three)
    assert all("//" not in request for request in hub.requests)


def test_what_was_fetched_with_unknown_hash_is_recorded_and_shown(hub, drive, cache, monkeypatch, tmp_path, capsys):
    info, model = small_row("atd_sr_x4")
    content = as_pth(model, tmp_path / "net.pth")
    drive.folders[info.sources.drive.folder] = [(info.sources.drive.name, "id-sr-x4")]
    drive.files["id-sr-x4"] = content
    use(monkeypatch, info)
    atd.load(info.name)
    placed = hub_module.placed_file(info.name)
    assert main(["info", info.name]) == 0
    text = capsys.readouterr().out
    assert f"({len(content)} bytes, SHA-256 {sha256(content)})" in text
    assert file_sha256(placed) in text
    assert "size unknown, SHA-256 unknown" in text
    assert sha256(content) in (placed.parent / "README.md").read_text(encoding="utf-8")
    data = bytearray(placed.read_bytes())
    data[-1] ^= 1
    placed.write_bytes(data)
    with pytest.raises(LoadError, match="has changed since it was put into the cache"):
        atd.load(info.name)


def test_an_archive_of_another_network_is_refused_and_not_kept(three, hub, files, cache, monkeypatch, tmp_path):
    other = as_pth(small("ATD"), tmp_path / "other.pth")
    info = registry.get(COMMUNITY[0])
    url = f"{files.url}/other.pth"
    files.files["/other.pth"] = other
    use(monkeypatch, dataclasses.replace(info, sources=Sources(https=HttpsFile(url=url, sha256=sha256(other)))))
    with pytest.raises(LoadError, match=f"not {COMMUNITY[0]}"):
        atd.load(COMMUNITY[0])
    assert list(cache.iterdir()) == []


def test_a_pickle_with_code_is_refused_by_every_route(three, files, cache, monkeypatch, tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"params_ema": Code()}, tmp_path / "code.pth")
    content = (tmp_path / "code.pth").read_bytes()
    files.files["/code.pth"] = content
    info = registry.get(COMMUNITY[0])
    source = HttpsFile(url=f"{files.url}/code.pth", sha256=sha256(content))
    use(monkeypatch, dataclasses.replace(info, sources=Sources(https=source)))
    with pytest.raises(LoadError, match="holds a Python object"):
        atd.load(COMMUNITY[0])
    assert not (tmp_path / "ran").exists()
    assert list(cache.iterdir()) == []


def test_a_revision_is_one_of_the_networks_own_repository(three, hub):
    newer = small(registry.get(COMMUNITY[0]).architecture, seed=5)
    revision = hub.commit("Phips/net", {"net.safetensors": serialize(newer.state_dict())})
    assert same_weights(atd.load(COMMUNITY[0], revision=revision), newer)
    assert same_weights(atd.load(COMMUNITY[0]), three)
    with pytest.raises(LoadError, match="no revision v9"):
        atd.load(COMMUNITY[0], revision="v9")


# The community networks


@pytest.mark.slow
def test_a_community_file_of_true_size_comes_from_the_hub(hub, monkeypatch):
    """True keys, shapes, types and bytes: the index buffer is in the file, and the header is of the same length."""
    info = registry.get(COMMUNITY[0])
    with torch.device("meta"):
        shapes = atd.create(info.name).state_dict()
    tensors = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
    with torch.device("cpu"):
        index = small("ATDCVPR", window_size=16).state_dict()["relative_position_index_SA"]
    tensors["relative_position_index_SA"] = index
    content = serialize(tensors)
    header = int.from_bytes(content[:8], "little")
    padding = info.sources.hub.size - len(content)
    assert padding >= 0
    content = (
        (header + padding).to_bytes(8, "little") + content[8 : 8 + header] + b" " * padding + content[8 + header :]
    )
    assert len(content) == 81_689_540
    revision = hub.commit(info.sources.hub.repository, {info.sources.hub.name: content})
    pinned = dataclasses.replace(info.sources.hub, revision=revision, sha256=sha256(content))
    use(monkeypatch, dataclasses.replace(info, sources=dataclasses.replace(info.sources, hub=pinned)))
    loaded = atd.load(info.name)
    assert loaded.name == info.name
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 20_260_929


@pytest.mark.parametrize("name", COMMUNITY)
def test_rows_of_the_community_networks_are_those_of_their_author(name):
    """Sizes and hashes as their repositories state them."""
    info = registry.get(name)
    assert (info.architecture, info.scale, info.task.key, info.licence) == ("ATDCVPR", 4, "real", "CC-BY-4.0")
    assert info.config == registry.get("atd_cvpr_sr_x4").config
    assert info.scores == {}
    hub, https = info.sources.hub, info.sources.https
    assert (hub.repository, hub.name, hub.size) == (f"Phips/{name}", f"{name}.safetensors", 81_689_540)
    assert https.url == f"https://github.com/Phhofm/models/releases/download/{name}/{name}.pth"
    assert all(len(digest) == 64 for digest in (hub.sha256, https.sha256))
    assert len(hub.revision) == 40
    assert hub.size < https.size < info.largest_file


def test_community_networks_name_their_author_wherever_they_are_shown(three, cache, tmp_path, capsys):
    attribution = (
        "4xNomosWebPhoto_atd by Philip Hofmann, licence CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/)"
    )
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert attribution in listed
    for name in COMMUNITY:
        assert f"{name} by Philip Hofmann" in listed
        assert registry.get(name).good_for in listed
    assert main(["info", COMMUNITY[0]]) == 0
    assert attribution in capsys.readouterr().out
    folder = atd.download(COMMUNITY[0])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert attribution in card
    assert "license: cc-by-4.0" in card
    assert "Philip Hofmann" in (atd.load(COMMUNITY[0]).save_pretrained(tmp_path / "mine") / "README.md").read_text()


def test_results_of_a_community_network_bear_its_name(three, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((16, 12)).convert("RGB").save(photo)
    assert main(["restore", "-i", str(photo), "-o", str(tmp_path / "out"), "-n", COMMUNITY[0], "--quiet"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"photo_{COMMUNITY[0]}.png"]
    with Image.open(tmp_path / "out" / f"photo_{COMMUNITY[0]}.png") as image:
        assert image.size == (32, 24)


def test_a_bare_file_of_the_shared_shape_is_named_by_its_content_alone(monkeypatch, tmp_path, capsys):
    """The CVPR network ×4 and the four community networks have one configuration."""
    rows = {name: small_row(name)[0] for name in ("atd_cvpr_sr_x4", *COMMUNITY)}
    content = serialize(small("ATDCVPR", seed=1).state_dict())
    known = dataclasses.replace(rows[COMMUNITY[2]].sources.hub, sha256=sha256(content))
    rows[COMMUNITY[2]] = dataclasses.replace(rows[COMMUNITY[2]], sources=Sources(hub=known))
    for row in rows.values():
        # As detection gives it for a file without description.
        use(monkeypatch, dataclasses.replace(row, config={**row.config, "category_size": 256}))
    (tmp_path / "a.safetensors").write_bytes(content)
    (tmp_path / "b.safetensors").write_bytes(serialize(small("ATDCVPR", seed=2).state_dict()))
    assert main(["list", str(tmp_path), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["task"]) == (COMMUNITY[2], "real")
    assert (second["name"], second["task"]) == (None, "sr")


def test_list_sources_has_a_row_for_each_source(capsys):
    assert main(["list", "--sources", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["kind"]) for row in rows] == ROUTES
    assert main(["list", "4x*", "--sources"]) == 0
    text = capsys.readouterr().out
    for name in COMMUNITY:
        for source in registry.get(name).sources.in_order.values():
            (line,) = [line for line in text.splitlines() if source.sha256 in line]
            assert line.startswith(name)
            assert str(source.size) in line
            assert source.label in line
