"""Every check, each in an environment of its own: `nox` runs all of them, `nox -s lint` one.

The sessions `tests(torch-...)` run the whole suite on every torch that is supported, one after the other; an
environment takes 5.5 GB and is deleted afterwards unless `nox -r` asks to keep it. What comes after `--` goes to pytest
(`nox -s "tests(torch-2.7.0)" -- -m "not slow"`) or to pyright. Sessions use the Python that nox runs with.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "docs", "wheel", "tests"]
nox.options.default_venv_backend = "venv"

# The oldest release that is supported, some between, and the newest: torch and the torchvision that belongs to it.
RELEASES = {"2.7.0": "0.22.0", "2.9.1": "0.24.1", "2.11.0": "0.26.0", "2.14.1": "0.29.1", "2.15.0": "0.29.2"}
NEWEST = list(RELEASES)[-1]

# Triton's interpreter, in which the kernels are tested, runs with NumPy 2.4 from the triton of torch 2.12 on.
OLDER_NUMPY = {"2.7.0": "numpy<2.4", "2.9.1": "numpy<2.4", "2.11.0": "numpy<2.4"}

# A machine may have a global pip constraint, which would keep pip from the newest release.
WITHOUT_PIP_CONFIGURATION = {"PIP_CONFIG_FILE": os.devnull}

EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]


def requirements(extra: str, *packages: str) -> list[str]:
    """Those lines of an extra in pyproject.toml that name one of `packages`; without packages, all of them."""
    return [line for line in EXTRAS[extra] if not packages or line.startswith(packages)]


@nox.session
@nox.parametrize("torch", [nox.param(version, id=f"torch-{version}") for version in RELEASES])
def tests(session: nox.Session, torch: str) -> None:
    """The whole suite on one release of torch."""
    pins = [f"torch=={torch}", f"torchvision=={RELEASES[torch]}"]
    pins += [OLDER_NUMPY[torch]] if torch in OLDER_NUMPY else []
    try:
        session.install(*pins, "-e", ".[test]", env=WITHOUT_PIP_CONFIGURATION if torch == NEWEST else {})
        session.run("python", "-c", "import sys, torch; print('Python', sys.version, 'torch', torch.__version__)")
        # Idle threads must not spin: tests start processes of their own.
        session.run("python", "-m", "pytest", "-q", *session.posargs, env={"OMP_WAIT_POLICY": "passive"})
    finally:
        if not session.virtualenv.reuse_existing:
            shutil.rmtree(session.virtualenv.location, ignore_errors=True)


# What the kernels are compiled for: cards for servers of two generations, and consumer cards.
CAPABILITIES = ("80", "89", "90")


@nox.session
@nox.parametrize("torch", [nox.param(version, id=f"torch-{version}") for version in ("2.7.0", "2.11.0", NEWEST)])
def kernels(session: nox.Session, torch: str) -> None:
    """Every Triton kernel compiled for cards that need not be there, by the triton of several releases of torch."""
    pins = [f"torch=={torch}", f"torchvision=={RELEASES[torch]}"]
    session.install(*pins, "-e", ".", env=WITHOUT_PIP_CONFIGURATION if torch == NEWEST else {})
    for capability in CAPABILITIES:
        for dtype in ("bfloat16", "float16", "float32"):
            options = ("--capability", capability, "--dtype", dtype)
            session.run("python", "-m", "benchmarks.compiled_kernels", *options, "--check")


@nox.session(venv_backend="none")
def kernels_once(session: nox.Session) -> None:
    """Each kind of layer compiled for one card and in one dtype, by the Python after `--`, which has torch and triton.

    CI does this instead of all for all, by the releases that it tests with.
    """
    for index, capability in enumerate(CAPABILITIES):
        options = ["--capability", capability, "--share", f"{index}/{len(CAPABILITIES)}", "--one-dtype"]
        session.run(*session.posargs, "-m", "benchmarks.compiled_kernels", *options, "--check", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, and the directions of imports (`tool.importlinter` in pyproject.toml)."""
    session.install(*requirements("dev", "ruff", "import-linter"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Pyright; `nox -s types -- --pythonpath .venv/bin/python` checks against an installation that is there."""
    session.install(*requirements("dev", "pyright"))
    options = session.posargs
    if not options:
        session.install("-e", ".[test]")
        options = ["--pythonpath", str(Path(session.bin) / "python")]
    session.run("pyright", *options)


def see_packages_of(session: nox.Session, environment: str) -> None:
    """Let the session's Python import what an environment of the same Python has."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    given = session.run(f"{environment}/bin/python", "-c", where, external=True, silent=True)
    own = session.run("python", "-c", where, silent=True)
    Path(str(own).strip(), "given.pth").write_text(str(given), encoding="utf-8")


@nox.session
def export(session: nox.Session) -> None:
    """Exported files in their runtimes; `nox -s export -- .venv` adds these to the packages of an environment."""
    if session.posargs:
        see_packages_of(session, session.posargs[0])
        session.install(*requirements("onnx"), *requirements("openvino"))
    else:
        session.install("-e", ".[test,onnx,openvino]")
    session.run("python", "-c", "import onnx, onnxruntime, onnxscript, openvino")
    # In one process: the files of a family serve several tests.
    session.run("python", "-m", "pytest", "-q", "-n", "0", "tests/export", env={"OMP_WAIT_POLICY": "passive"})


@nox.session
def ray(session: nox.Session) -> None:
    """The example on a local Ray, a worker of which is killed; `nox -s ray -- .venv` adds Ray to an environment."""
    if session.posargs:
        see_packages_of(session, session.posargs[0])
        session.install(*requirements("ray"))
    else:
        session.install("-e", ".[test,ray]")
    session.run("python", "-c", "import ray.data")
    tests = "tests/examples/test_ray_restore.py"
    session.run("python", "-m", "pytest", "-q", "-n", "0", tests, env={"OMP_WAIT_POLICY": "passive"})


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, where a warning is an error; `site/index.html` shows it."""
    session.install(*requirements("docs"))
    session.run("python", "-m", "mkdocs", "build", "--strict")


@nox.session
def wheel(session: nox.Session) -> None:
    """Source archive, the wheel built from it, and their metadata; tests/test_packaging.py looks into them."""
    session.install("build", "twine")
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder))
    session.run("twine", "check", "--strict", *map(str, sorted(folder.iterdir())))
