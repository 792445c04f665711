"""The engine as a process: started when it is needed, called over a socket, started again when it has died."""

import contextlib
import itertools
import json
import logging
import os
import select
import socket
import subprocess
import threading
import time
import weakref

from . import experts, host
from .arena import Arena, size_of
from .errors import EngineError

POLL_S = 0.05  # between two looks at ComfyUI's cancel button
PATIENCE_S = 0.5  # for a cancelled call; an evaluation that is under way ends by itself
START_S = 120  # until the program says what it serves
END_S = 0.5  # for a program whose socket was closed to leave by itself; killed, it takes its workers with it
MESSAGE_BYTES = 128 << 10
LAST = ("done", "cancelled", "failed")  # of a call

log = logging.getLogger("atelier")


def _forward(pipe, name):
    """The engine's words, line by line, into ComfyUI's log."""
    for line in pipe:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            level = logging.ERROR if "error" in text.lower() else logging.INFO
            log.log(level, "[atelier %s] %s", name, text.encode("ascii", "backslashreplace").decode())
    pipe.close()


def _end(process, connection):
    connection.close()
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Engine:
    """One served model. Every method may start the process; only one thread calls at a time, as in ComfyUI."""

    def __init__(self, program, arguments, name):
        self.program, self.arguments, self.name = program, list(arguments), name
        self.hello = None
        self.alone = None  # of a model with two experts: folders with one of them (experts.Alone)
        self.holds = False  # memory for weights, as far as is known
        self._needs_room = False  # it did not fit beside others
        self._expert = None  # the only one of this process; None: all are in it
        self._adapters = {}  # of each expert's last call
        self._ids = itertools.count(1)
        self._arena = Arena()
        self._process = self._socket = self._finalizer = None
        self._lock = threading.Lock()

    # Life

    def is_running(self):
        return self._process is not None and self._process.poll() is None

    def start(self):
        """Checks files and layout, loads no weights. Raises EngineError."""
        if self.is_running():
            return self.hello
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [self.program, "tensor_server", "--fd", str(theirs.fileno()), *self._flags()]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._said = []
        threading.Thread(target=_forward, args=(self._tee(), self.name), daemon=True).start()
        self._finalizer = weakref.finalize(self, _end, self._process, ours)
        hello = self._message(time.monotonic() + START_S)
        if hello is None:
            self._fail_start()
        self.hello = self.hello or hello  # of the whole model, also where one expert is served later
        log.info(
            "[atelier %s] %s, %s on %s ranks of %s: %s",
            self.name,
            self.hello["model"],
            self.hello["family"],
            self.hello["ranks"],
            self.hello["device"],
            self.hello["layout"],
        )
        return self.hello

    def _flags(self):
        if self._expert is None:
            return self.arguments
        flags = list(self.arguments)
        flags[flags.index("--model_name") + 1] = self.alone.path(self._expert)
        return flags

    def _tee(self):
        """The process's output, of which the last lines are kept for messages."""
        pipe, said = self._process.stdout, self._said

        class Kept:
            def __iter__(self):
                for line in pipe:
                    said.append(line.decode("utf-8", "replace").rstrip())
                    del said[:-20]
                    yield line

            def close(self):
                pipe.close()

        return Kept()

    def _fail_start(self):
        self.close()
        time.sleep(0.1)  # for the last lines
        errors = [line.split("error: ", 1)[1] for line in self._said if "error: " in line]
        raise EngineError(errors[-1] if errors else "the engine ended at once; its log says: " + "; ".join(self._said))

    def close(self):
        if self._finalizer:
            self._finalizer()
        self._process = self._socket = self._finalizer = None
        self.holds = False

    # Calls

    def load(self, expert=0):
        """Starts the workers, who read the weights."""
        self._ask({"do": "load", "expert": expert})

    def release(self):
        """Gives the memory back; the next call loads again."""
        if self.is_running():
            self._ask({"do": "release"}, is_cancellable=False)
        self.holds = False

    def predict(self, latents, timesteps, inputs, channels, adapters=(), expert=0):
        """One evaluation of the denoiser: latents [B, C, ...], timesteps [B], inputs {name: [B, ...]} -> [B, channels, ...].

        adapters: of this expert; those of the other one stay what its own calls said, so that no weight is read again.
        """
        tensors = {"latents": latents, "timesteps": timesteps.float(), **inputs}
        self._adapters[expert] = list(adapters)
        extra = {"adapters": self._adapters, "expert": expert}
        shape = [latents.shape[0], channels, *latents.shape[2:]]
        return self._call("predict", tensors, shape, list(inputs), extra)

    def decode(self, latents, shape):
        """Latents as the autoencoder has them -> [B, 3, (frames,) H, W] in [0, 1]; shape: of the result."""
        return self._call("decode", {"latents": latents}, shape, [], {})

    def _call(self, action, tensors, shape, inputs, extra):
        with self._lock:
            size = size_of(shape)
            references, result = self._arena.put(tensors, size)
            message = {
                "do": action,
                "inputs": {name: references[name] for name in inputs},
                **{name: references[name] for name in ("latents", "timesteps") if name in references},
                "result": result,
                "result_bytes": size,
                **extra,
            }
            answer = self._ask(message, descriptor=self._arena.fd)
            return self._arena.take(answer["shape"], result)

    def draw(self, rows, on_step=None):
        """Whole pictures of rows as those of a prompt file -> [(name, bytes)] in their order."""
        files = {}

        def on_event(message, descriptors):
            if message["is"] == "step" and on_step:
                on_step(message["step"], message["steps"])
            elif message["is"] == "note":
                log.info("[atelier %s] %s", self.name, message["note"])
            elif message["is"] == "artifact":
                with open(descriptors[0], "rb", closefd=False) as file:
                    file.seek(0)
                    files[message["index"], message["name"]] = file.read()

        self._ask({"do": "draw", "requests": rows}, on_event=on_event)
        return [(name, data) for (_, name), data in sorted(files.items())]

    def _ask(self, message, descriptor=-1, on_event=None, is_cancellable=True):
        """Sends and waits for the answer; where memory did not suffice, once more for all that others can give back."""
        while True:
            try:
                return self._tell(self._settled(message), descriptor, on_event, is_cancellable)
            except EngineError as error:
                if error.kind != "capacity" or not self._find_room():
                    raise
                log.info("[atelier %s] %s; once more with the memory that others have given back", self.name, error)

    def _settled(self, message):
        """The message for the process that takes it, which serves one expert where there is no room for both."""
        if message["do"] == "release":
            return message
        expert = message.get("expert", 0)
        if self._expert is not None and self._expert != expert:
            self.close()
            self._expert = expert
        if self._needs_room and not self.holds:
            release_others(self)
            host.make_room()
        message = dict(message)
        if "adapters" in message:
            of_all = [(e, a) for e, some in sorted(message["adapters"].items()) for a in some]
            of_all = [(e, a) for e, a in of_all if e == expert or self._expert is None and _is_there(a)]
            has_both = self.alone is not None and self._expert is None
            message["adapters"] = [f"{a}@{experts.FOLDERS[e]}" if has_both else a for e, a in of_all]
        if self._expert is not None:
            message["expert"] = 0
        return message

    def _find_room(self):
        """False where nobody has anything to give."""
        self._needs_room = True
        others, stock = release_others(self), host.make_room()
        if others or stock:
            return True
        if self.alone is None or self._expert is not None:
            return False
        log.info("[atelier %s] there is no room for both experts: one at a time is loaded from now on", self.name)
        self.close()
        self._expert = 0
        return True

    def _tell(self, message, descriptor, on_event, is_cancellable):
        """Tries once more where the process had died unnoticed."""
        for is_last in (False, True):
            self.start()
            self.holds = self.holds or message["do"] != "release"
            identity = next(self._ids)
            answer = self._exchange(dict(message, id=identity), descriptor, on_event, is_cancellable)
            if answer:
                return answer
            code = self._process.poll() if self._process else None
            self.close()
            log.error("[atelier %s] the engine has ended (%s)%s", self.name, code, "" if is_last else "; starting it again")
        raise EngineError("the engine ended twice during one call; its last lines are in the log", "peer")

    def _exchange(self, message, descriptor, on_event, is_cancellable):
        """The answer; None where the process has ended. What on_event(message, descriptors) raises cancels the call."""
        self._send(message, descriptor)
        deadline = raised = None
        while True:
            got = self._receive(POLL_S)
            if got == "gone":
                if raised:
                    raise raised
                return None
            if got:
                answer, descriptors = got
                is_ours = answer.get("id") == message["id"]  # else of a call that nobody waits for any more
                try:
                    if is_ours and answer["is"] not in LAST and on_event and not raised:
                        on_event(answer, descriptors)
                except BaseException as error:  # such as ComfyUI's progress bar, when cancel was pressed
                    raised = error
                finally:
                    for one in descriptors:
                        os.close(one)
                if is_ours and answer["is"] in LAST:
                    return self._outcome(answer, raised)
            if is_cancellable and deadline is None and (raised or host.is_interrupted()):
                self._send({"do": "cancel", "id": message["id"]})
                deadline = time.monotonic() + PATIENCE_S
            if deadline and time.monotonic() > deadline:
                # What is left of the call still reads and writes this memory.
                self._arena.close()
                if raised:
                    raise raised
                host.raise_if_interrupted()
                deadline = None

    @staticmethod
    def _outcome(answer, raised):
        """Of the last message of a call: itself, or what there is to raise."""
        if raised:
            raise raised
        if answer["is"] == "done":
            return answer
        if answer["is"] == "cancelled" or answer["kind"] == "interrupted":
            host.raise_if_interrupted()
        if answer["is"] == "cancelled":
            raise EngineError("the engine gave the call up", "interrupted")
        raise EngineError(answer["reason"], answer["kind"])

    def _message(self, until):
        while time.monotonic() < until:
            got = self._receive(POLL_S)
            if got == "gone":
                return None
            if got:
                return got[0]
            if self._process.poll() is not None:
                return None
        return None

    def _send(self, message, descriptor=-1):
        """What an engine that has ended does not take is noticed where its answer is read."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))] if descriptor >= 0 else []
        with contextlib.suppress(ConnectionError):
            self._socket.sendmsg([json.dumps(message).encode()], rights)

    def _receive(self, seconds):
        """A (message, descriptors), None where nothing came, "gone" where the other end is."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 4)
        except ConnectionError:
            return "gone"
        return (json.loads(data), descriptors) if data else "gone"


def _is_there(adapter):
    """Whether a call's "PATH:strength" is still a file: who made it may be gone."""
    return os.path.exists(adapter.rpartition(":")[0])


_served = weakref.WeakValueDictionary()


def serve(program, arguments, name):
    """The engine of these arguments: loaders that ask for the same share one and its ranks."""
    key = (program, *arguments)
    engine = _served.get(key)
    if engine is None:
        engine = _served[key] = Engine(program, arguments, name)
    return engine


def release_others(engine):
    """Two models on the same devices: the one that is to run has their memory. How many have given theirs back."""
    count = 0
    for other in list(_served.values()):
        if other is not engine and other.is_running() and other.holds:
            other.release()
            count += 1
    return count
