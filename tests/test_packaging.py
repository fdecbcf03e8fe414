"""What an installed package is: its imports, its names, its wheel, its torch.hub entries."""

import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_networks import same_weights

import atd
from atd import registry

ROOT = Path(__file__).parents[1]
NAME = "atd_light_sr_x2"


def python(code, folder, **environment):
    """Run `code` in a process of its own; its standard output."""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def test_import_is_silent_and_light(tmp_path):
    code = """
import sys, atd, torch
heavy = {"timm", "torchvision", "triton", "huggingface_hub", "gdown", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
assert not torch.cuda.is_initialized()
"""
    assert python(code, tmp_path) == ""


@pytest.mark.slow
def test_a_restore_on_the_cpu_needs_no_optional_package(tmp_path):
    # What torch itself imports differs from version to version: only imports by modules of this package count.
    code = """
import builtins
plain, imported = builtins.__import__, set()
def watched(name, globals=None, *rest):
    if (globals or {}).get("__name__", "").startswith("atd."):
        imported.add(name.partition(".")[0])
    return plain(name, globals, *rest)
builtins.__import__ = watched
import atd, numpy
model = atd.ATD(embed_dim=12, depths=[2], num_heads=[2], window_size=4, category_size=16, num_tokens=6,
                reducted_dim=3, dim_ffn_td=2, upscale=2, upsampler="pixelshuffledirect").eval()
result = atd.restore(model, numpy.zeros((9, 7, 3), numpy.uint8), tile=8, overlap=4)
assert result.shape == (18, 14, 3) and result.dtype == numpy.uint8
assert {"torch", "numpy"} <= imported
optional = {"timm", "torchvision", "triton", "pyvips", "gdown", "matplotlib"} & imported
assert not optional, optional
"""
    assert python(code, tmp_path) == ""


def test_no_submodule_bears_the_name_of_a_public_function():
    # Importing a submodule sets it as an attribute of the package: it would replace the function.
    public = {name for name in atd.__all__ if inspect.isfunction(getattr(atd, name))}
    assert {"load", "create", "list_models", "restore", "restore_file"} <= public
    assert not public & {module.name for module in pkgutil.iter_modules(atd.__path__)}


# torch.hub


def test_torch_hub_sees_one_entry_for_each_name():
    specification = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    hubconf = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hubconf)
    # torch.hub takes every callable whose name has no leading underscore for an entry.
    entries = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert entries == set(atd.list_models())
    assert "TPAMI" in getattr(hubconf, NAME).__doc__
    for module in hubconf.dependencies:  # torch.hub looks for them by the names under which they are imported
        importlib.import_module(module)


def test_torch_hub_loads_by_name(cache, tmp_path):
    model = atd.create(NAME)
    model.save_pretrained(tmp_path / "net")
    loaded = torch.hub.load(str(ROOT), NAME, source="local", weights=tmp_path / "net")
    assert loaded.name == NAME
    assert same_weights(loaded, model)
    with pytest.raises(atd.LoadError, match="official weights of atd_sr_x4"):
        torch.hub.load(str(ROOT), "atd_sr_x4", source="local", local_files_only=True)


def test_torch_hub_loads_bundled_weights(cache):
    model = torch.hub.load(str(ROOT), "atd_light_sr_x4", source="local", weights="bundled")
    assert (model.name, model.scale, model.training) == ("atd_light_sr_x4", 4, False)
    assert next(model.parameters()).dtype == torch.float32


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "atd", source / "atd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("tests", "tools", "docs", "benchmarks"):  # what lies beside the package, and must stay out
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
        (source / name / "test_nothing.py").touch()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder with nothing but the installed wheel."""
    site = wheel.parent / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return site


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
        metadata = archive.read(next(name for name in sizes if name.endswith("/METADATA"))).decode()
    package = {name for name in sizes if not name.split("/")[0].endswith(".dist-info")}
    assert all(name.startswith("atd/") for name in package)
    source = wheel.parent / "source"
    sources = {
        path.relative_to(source).as_posix()
        for path in (source / "atd").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert package == sources
    assert {"atd/py.typed", "atd/bundled/LICENSE"} <= package
    bundled = [name for name in package if name.endswith(".safetensors")]
    assert sum(sizes[name] for name in bundled) <= 10_000_000
    for name in bundled:
        assert Path(name).stem in atd.list_models()
        assert name.replace(".safetensors", ".md") in package
    assert f"License-Expression: Apache-2.0 AND {registry.BUNDLED_LICENCE}" in metadata
    dependencies = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert set(dependencies) == {"torch", "safetensors", "huggingface_hub", "einops", "numpy", "pillow", "timm"}


@pytest.mark.slow
def test_the_source_archive_builds_and_holds_the_package_without_tests(wheel):
    source = wheel.parent / "source"
    code = "import setuptools.build_meta as backend; print(backend.build_sdist('..'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, text=True)
    with tarfile.open(wheel.parent / built.stdout.splitlines()[-1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    in_wheel = {path.relative_to(source).as_posix() for path in (source / "atd").rglob("*") if path.suffix != ".pyc"}
    assert {name for name in in_wheel if not (source / name).is_dir()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "tools", "docs", "benchmarks"))]
    assert f"-{atd.__version__}.tar.gz" in built.stdout


@pytest.mark.slow
def test_the_installed_wheel_works_away_from_the_checkout(installed, tmp_path):
    Image.new("RGB", (20, 16), (200, 120, 40)).save(tmp_path / "photo.png")
    environment = {"PYTHONPATH": str(installed), "ATD_HOME": str(tmp_path / "cache")}
    where = python("import atd; print(atd.__file__)", tmp_path, **environment)
    assert Path(where.strip()).is_relative_to(installed)
    for arguments, expected in [
        ("list", "atd_light_sr_x4"),
        ("restore -i photo.png -o out.png --model atd_light_sr_x4 --weights bundled", ""),
    ]:
        command = [sys.executable, "-m", "atd", *arguments.split()]
        run = subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert expected in run.stdout
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (80, 64)
