"""The package as people meet it before they draw: without an engine, through the installer, in the registry of ComfyUI's nodes.

comfyui.py runs these. What the registry asks of pyproject.toml is its documentation's page registry/specifications.
"""

import re
import subprocess
import sys
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


CASES = [explains_an_absent_engine, installer_looks, registry_has_what_it_asks_for]
