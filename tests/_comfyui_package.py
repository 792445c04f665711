"""The package as people meet it before they draw: without an engine, through the installer, in the registry of ComfyUI's nodes.

comfyui.py runs these. What the registry asks of pyproject.toml is its documentation's page registry/specifications.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

from _comfyui import ROOT

PACKAGE = ROOT / "comfyui"
TORCHES = ("torch", "numpy", "transformers", "diffusers", "xfuser")


def registry_has_what_it_asks_for():
    facts = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    project, comfy = facts["project"], facts["tool"]["comfy"]
    name = project["name"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9._-]{0,99}", name) and "comfyui" not in name.lower(), name
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"]), project["version"]
    assert project["description"] and project["license"] == {"text": "Apache-2.0"}, "a table, not a string"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (PACKAGE / project["readme"]).is_file()
    assert re.fullmatch(r">=\d+\.\d+", project["requires-python"])
    assert "Operating System :: POSIX :: Linux" in project["classifiers"]
    listed = [line for line in (PACKAGE / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert listed == project["dependencies"], "both lists say what is installed"
    assert not [one for one in listed if re.match(r"[\w-]+", one)[0] in TORCHES], "no torch of other nodes is changed"
    assert re.fullmatch(r"[a-z0-9-]+", comfy["PublisherId"]) and comfy["DisplayName"]
    assert comfy["Icon"] == "" or comfy["Icon"].startswith("https://")
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert (PACKAGE / comfy["web"]).is_dir()
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        found = re.search(r"(?<![\w.])(eval|exec)\(|pip\s+install|-m[\"', ]+pip", text)
        assert not found, f"{file.name}: the registry forbids {found[0]}"


def explains_an_absent_engine():
    from nodes_here.atelier import errors, program

    try:
        program.require("/nowhere/atelier")
        raise AssertionError("a program was found")
    except errors.EngineError as error:
        assert "not found" in str(error) and "nowhere/atelier" in str(error), error
    text = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import comfyui; print(len(comfyui.NODE_CLASS_MAPPINGS))"],
        env={"PATH": "/usr/bin:/bin", "ATELIER": "/nowhere/atelier"}, capture_output=True, text=True, check=True,
    )
    assert int(text.stdout) >= 2 and "not found" in text.stderr, (text.stdout, text.stderr)


def installer_looks():
    script = ROOT / "comfyui/install_xdit_usp.sh"
    run = subprocess.run(["bash", str(script), "--check-only", "--comfyui", "/nowhere"], capture_output=True, text=True)
    assert run.returncode == 1 and "main.py" in run.stdout and "atelier" in run.stdout, run.stdout
    test = subprocess.run([sys.executable, str(ROOT / "comfyui/test_xdit_usp.py")], capture_output=True, text=True)
    assert test.stdout.count("\n") == 6 and "passed   configuration creation" in test.stdout, test.stdout


def installed_by_a_link_it_finds_its_comfyui():
    """Into a ComfyUI and into a portable build, twice; the self-test is started from where the nodes then are."""
    stubs = {
        "main.py": "",
        "comfy/__init__.py": "",
        "comfy/utils.py": "",
        "comfy/options.py": "def enable_args_parsing():\n    pass\n",
        "comfy/model_patcher.py": "class ModelPatcher:\n    pass\n",
        "comfy/patcher_extension.py": "class CallbacksMP:\n    pass\n",
    }
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder, "ComfyUI")
        for name, text in stubs.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text)
        embedded = pathlib.Path(folder, "python_embeded/python")
        embedded.parent.mkdir()
        embedded.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        embedded.chmod(0o755)
        script = ["bash", str(PACKAGE / "install_xdit_usp.sh")]
        for named in (["--comfyui", str(home), "--python", sys.executable], ["--portable", folder]):
            looked = subprocess.run([*script, *named, "--check-only"], capture_output=True, text=True)
            assert ("MISSING  the nodes are not in" in looked.stdout) == (named[0] == "--comfyui"), looked.stdout
            for _ in range(2):
                placed = subprocess.run([*script, *named], capture_output=True, text=True)
                assert "ok       the nodes are in" in placed.stdout, placed.stdout
        linked = home / "custom_nodes/atelier-xdit-usp"
        assert linked.resolve() == PACKAGE
        test = subprocess.run([sys.executable, str(linked / "test_xdit_usp.py")], capture_output=True, text=True)
        assert f"passed   ComfyUI integration: in {home}" in test.stdout, test.stdout


def a_copy_is_told_where_its_engine_is_not():
    """Beside a link lies the build that the nodes find; a copy of them does not lie beside it."""
    with tempfile.TemporaryDirectory() as folder:
        home, source = pathlib.Path(folder, "ComfyUI"), pathlib.Path(folder, "source")
        (home / "comfy").mkdir(parents=True)
        (home / "main.py").touch()
        built = source / "build/cpu/src/atelier"
        built.parent.mkdir(parents=True)
        built.write_text("#!/bin/sh\necho atelier 0\n")
        built.chmod(0o755)
        shutil.copytree(PACKAGE, source / "comfyui", ignore=shutil.ignore_patterns("__pycache__"))
        script = ["bash", str(source / "comfyui/install_xdit_usp.sh"), "--comfyui", str(home), "--python", sys.executable]
        looks = "import sys; sys.path.insert(0, sys.argv[1]); from atelier import program; print(program.find()[1])"
        environment = {"PATH": "/usr/bin:/bin"}
        for more, is_found in (([], True), (["--copy"], False), (["--check-only"], False), ([], True)):
            placed = subprocess.run([*script, *more], env=environment, capture_output=True, text=True).stdout
            assert (f"at {built}" in placed or f"at {source}/comfyui/../build" in placed) == is_found, placed
            assert is_found or "MISSING  the engine" in placed and "ATELIER" in placed, placed
            linked = home / "custom_nodes/atelier-xdit-usp"
            said = subprocess.run([sys.executable, "-c", looks, str(linked)], env=environment, capture_output=True, text=True)
            assert (said.stdout.strip() == "") == is_found, (more, said)


def nodes_that_lie_in_comfyui_stay():
    """Also where --copy is asked for, by a relative path or through a link."""
    with tempfile.TemporaryDirectory() as folder:
        home, elsewhere = pathlib.Path(folder, "ComfyUI"), pathlib.Path(folder, "elsewhere")
        (home / "comfy").mkdir(parents=True)
        (home / "main.py").touch()
        elsewhere.mkdir()
        (home / "custom_nodes").symlink_to(elsewhere)
        shutil.copytree(PACKAGE, elsewhere / "atelier-xdit-usp", ignore=shutil.ignore_patterns("__pycache__"))
        for named in (".", str(home)):
            command = ["bash", str(elsewhere / "atelier-xdit-usp/install_xdit_usp.sh"), "--comfyui", named, "--copy", "--python", sys.executable]
            placed = subprocess.run(command, cwd=home, capture_output=True, text=True).stdout
            assert "ok       the nodes are in" in placed and (elsewhere / "atelier-xdit-usp/__init__.py").is_file(), placed
            assert [one.name for one in elsewhere.iterdir()] == ["atelier-xdit-usp"], list(elsewhere.iterdir())


def what_is_no_gguf_is_refused():
    from nodes_here.atelier import errors, gguf

    head = b"GGUF" + (3).to_bytes(4, "little")
    number = lambda n: n.to_bytes(8, "little")
    for data, words in (
        (b"PK" + bytes(30), "does not begin with GGUF"),
        (b"GGUF" + bytes(30), "version 0"),
        (head + number(1) + number(0) + number(3) + b"abc", "ends too early"),
        (head + number(1 << 40) + number(0), "entries"),
    ):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(data)
            file.flush()
            try:
                gguf.read_shapes(file.name)
                raise AssertionError(f"{data[:8]} was read")
            except errors.EngineError as error:
                assert words in str(error) and file.name in str(error), error


CASES = [a_copy_is_told_where_its_engine_is_not, nodes_that_lie_in_comfyui_stay, what_is_no_gguf_is_refused, installed_by_a_link_it_finds_its_comfyui, explains_an_absent_engine, installer_looks, registry_has_what_it_asks_for]
