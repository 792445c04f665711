#!/usr/bin/env python3
"""Self-test of the nodes: python test_xdit_usp.py, with ComfyUI's Python; --gpus N asks for that many.

Six items: imports, GPUs, a configuration, the model wrapper, what the nodes depend on, ComfyUI. Each is a line that
says passed, skipped or FAILED and why. Exit 0: nothing failed.
"""

import argparse
import importlib
import importlib.util
import pathlib
import subprocess
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent


class Skipped(Exception):
    """What cannot be looked at here."""


def package():
    """This folder as a package, whatever it is called."""
    name = "atelier_nodes_under_test"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def part(name):
    package()
    return importlib.import_module(f"atelier_nodes_under_test.{name}")


def imports(_):
    nodes = package()
    for name in ("XDitUSPConfigNode", "XDitUSPWanVideoModelLoader"):
        if name not in nodes.NODE_CLASS_MAPPINGS or name not in nodes.NODE_DISPLAY_NAME_MAPPINGS:
            raise AssertionError(f"{name} is not registered")
    return f"{len(nodes.NODE_CLASS_MAPPINGS)} nodes"


def gpus(options):
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise Skipped("no GPU is visible; the config node's device cpu draws with processes")
    if options.gpus > count:
        raise AssertionError(f"asked {options.gpus}, have {count}")
    return f"asked {options.gpus}, have {count}"


def configuration(_):
    settings = part("atelier.settings")
    config = settings.XDitUSPConfig(num_gpus=4, pipeline_parallel_size=2, tensor_parallel_size=2)
    flags = config.arguments("bf16", "sdpa")
    if "--pipefusion_degree" not in flags:
        raise AssertionError(f"the stages are not among {flags}")
    try:
        settings.XDitUSPConfig(num_gpus=99).check()
    except part("atelier.errors").EngineError as error:
        if "asked 99" not in str(error):
            raise AssertionError(f"99 GPUs: {error}") from error
        return "4 GPUs as 2 x 2; 99 are refused"
    raise AssertionError("99 GPUs were not refused")


def model_wrapper(_):
    wrapper = part("atelier.wrapper")
    value = wrapper.XDitUSPWanVideoModel.of(None, "bf16")
    if isinstance(value, wrapper.Absent):
        try:
            value.model
        except part("atelier.errors").EngineError as error:
            return f"explains itself: {str(error)[:60]}..."
        raise AssertionError("the stand-in answers nothing")
    return "made for the wrapper's sampler"


def dependencies(_):
    path, problem = part("atelier.program").find()
    if problem:
        raise AssertionError(problem)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=120)
    if said.returncode:
        raise AssertionError(f"{path} does not run: {(said.stderr or said.stdout).strip()[-200:]}")
    return f"{said.stdout.strip()} at {path}"


def comfyui(_):
    as_installed = pathlib.Path(__file__).absolute()  # by a link, perhaps
    for folder in [*as_installed.parents, *HERE.parents, *map(pathlib.Path, sys.path)]:
        if (folder / "comfy" / "model_patcher.py").is_file():
            break
    else:
        raise Skipped("this folder lies in no ComfyUI; link it into custom_nodes (install_xdit_usp.sh)")
    sys.path.insert(0, str(folder))
    import comfy.options

    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    comfy.options.enable_args_parsing()
    try:
        importlib.import_module("comfy.model_patcher")
        part("atelier.delegate").patcher_class()
    finally:
        sys.argv = arguments
    return f"in {folder}"


ITEMS = [
    ("import functionality", imports),
    ("GPU availability", gpus),
    ("configuration creation", configuration),
    ("model wrapper functionality", model_wrapper),
    ("dependency availability", dependencies),
    ("ComfyUI integration", comfyui),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that there should be")
    parser.add_argument("--verbose", action="store_true", help="tracebacks")
    options = parser.parse_args()
    failed = 0
    for name, item in ITEMS:
        try:
            print(f"passed   {name}: {item(options)}")
        except Skipped as reason:
            print(f"skipped  {name}: {reason}")
        except Exception as error:  # each item is told of
            failed += 1
            print(f"FAILED   {name}: {error}")
            if options.verbose:
                traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
