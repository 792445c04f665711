"""Whole pictures that are cancelled while their steps are told, which comfyui.py runs.

The program is a stand-in that speaks the engine's protocol: a step every 5 ms, so that one is always there to be read before the
client looks at ComfyUI's cancel button, and a file after each picture.
"""

import contextlib
import gc
import os
import pathlib
import sys
import tempfile
import threading
import time
import types

STEP_S = 0.005
WHOLE_S = 8  # what the call below takes at least that is cancelled
SOON_S = WHOLE_S / 2
STAND_IN = r'''#!{python}
import json, os, select, socket, sys, time

flags = sys.argv[2:]
line = socket.socket(fileno=int(flags[flags.index("--fd") + 1]))
waiting = []

def take():
    data = line.recv(1 << 17)
    return json.loads(data) if data else sys.exit(0)

def say(descriptors=(), **message):
    socket.send_fds(line, [json.dumps(message).encode()], list(descriptors))

def store(identity, index):
    file = os.memfd_create("picture")
    os.write(file, b"picture %d" % index)
    say([file], **{{"is": "artifact"}}, id=identity, index=index, name=f"{{index:06}}.png", bytes=9)
    os.close(file)

def is_cancelled(identity):
    if not select.select([line], [], [], {step})[0]:
        return False
    waiting.append(take())
    if waiting[-1] != {{"do": "cancel", "id": identity}}:
        return False
    waiting.pop()
    return True

def draw(identity, rows):
    for index in range(sum(row.get("num_images_per_prompt", 1) for row in rows)):
        for step in range(rows[0]["num_inference_steps"]):
            if is_cancelled(identity):
                time.sleep(float(os.environ["DEAF_S"]))
                store(identity, index)
                return say(**{{"is": "cancelled"}}, id=identity)
            say(**{{"is": "step"}}, id=identity, step=step + 1, steps=rows[0]["num_inference_steps"])
        store(identity, index)
    say(**{{"is": "done"}}, id=identity)

say(**{{"is": "hello"}}, model="x", family="flux", ranks=1, device="cpu", layout="1", folder="")
while True:
    message = waiting.pop(0) if waiting else take()
    if message["do"] == "draw":
        draw(message["id"], message["requests"])
    elif message["do"] != "cancel":
        say(**{{"is": "done"}}, id=message["id"])
'''


class Interrupted(Exception):
    """As ComfyUI raises it."""


@contextlib.contextmanager
def pressed_after(seconds):
    """ComfyUI's cancel button, which is pressed then. -> what its progress bar does at every step."""
    flag = threading.Event()

    def throw():
        if flag.is_set():
            flag.clear()
            raise Interrupted

    stub = types.SimpleNamespace(processing_interrupted=flag.is_set, throw_exception_if_processing_interrupted=throw)
    sys.modules["comfy.model_management"] = stub
    timer = threading.Timer(seconds, flag.set)
    timer.start()
    try:
        yield lambda *_: throw()
    finally:
        timer.cancel()
        del sys.modules["comfy.model_management"]


@contextlib.contextmanager
def stand_in(engine, deaf=0.0):
    """An engine that answers a cancel so many seconds late."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "engine")
        program.write_text(STAND_IN.format(python=sys.executable, step=STEP_S))
        program.chmod(0o755)
        os.environ["DEAF_S"] = str(deaf)
        one = engine.Engine(str(program), [], "stand-in")
        try:
            one.load()
            yield one
        finally:
            one.close()
            del os.environ["DEAF_S"]


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def cases():
    from nodes_here.atelier import engine

    long = [{"num_inference_steps": int(WHOLE_S / STEP_S / 4), "num_images_per_prompt": 2}] * 2
    short = [{"num_inference_steps": 1}]

    def interrupt(one, on_step):
        """Seconds from the button to ComfyUI's exception, and until one more picture was there."""
        began = time.monotonic()
        try:
            one.draw(long, on_step)
            raise AssertionError("the cancel was not heard")
        except Interrupted:
            pass
        heard = time.monotonic() - began
        assert one.draw(short) == [("000000.png", b"picture 0")], "pictures of the cancelled call are among the next one's"
        return heard, time.monotonic() - began - heard

    def a_cancel_between_quick_steps_reaches_the_engine():
        """All rows and pictures of the call end, and the next prompt need not wait for them."""
        with stand_in(engine) as one, pressed_after(0.1) as on_step:
            process = one._process
            heard, after = interrupt(one, on_step)
            assert heard < SOON_S and after < SOON_S, (heard, after)
            assert one._process is process, "the engine was started again"

    def what_comes_after_a_cancel_is_closed():
        """An engine that finishes a step first sends files to who waits no longer."""
        with stand_in(engine, deaf=engine.PATIENCE_S + 0.3) as one, pressed_after(0.1) as on_step:
            before = descriptors()
            heard, after = interrupt(one, on_step)
            assert heard < SOON_S and after < SOON_S, (heard, after)
            assert descriptors() == before, f"{descriptors() - before} descriptors are left open"

    def whatever_ends_the_reading_ends_the_work():
        """Another node's progress hook may fail; it is told when the engine has stopped."""

        def fails(step, _):
            if step == 3:
                raise ValueError("a hook")

        with stand_in(engine) as one:
            before = descriptors()
            began = time.monotonic()
            try:
                one.draw(long, fails)
                raise AssertionError("nothing was told")
            except ValueError:
                pass
            one.draw(short)
            assert time.monotonic() - began < SOON_S and descriptors() == before

    return [a_cancel_between_quick_steps_reaches_the_engine, what_comes_after_a_cancel_is_closed, whatever_ends_the_reading_ends_the_work]
