"""What other nodes change within a network: none of it would reach the engine, so that each is refused by name."""

from .errors import EngineError

# Options of a call that change it.
OPTIONS = ("patches", "patches_replace", "rope_options", "optimized_attention_override", "block_mask")
NETWORK = "diffusion_model"
ELSEWHERE = "the network runs in the engine, which cannot take that: use the stock loader, or leave that node out"


def refuse_options(options):
    """Raises EngineError for what the options of a call ask for inside of the network."""
    for name in OPTIONS:
        if options.get(name):
            given = options[name]
            what = ", ".join(str(k) for k in given) if isinstance(given, dict) else ""
            raise EngineError(f"another node changes the network from within ({name}{': ' + what if what else ''}); {ELSEWHERE}")


def refuse_object_patches(names):
    """Raises EngineError for parts of the network that a patcher is to replace."""
    within = sorted(name for name in names if name == NETWORK or name.startswith(NETWORK + "."))
    if within:
        raise EngineError(f"another node replaces {_some(within)}; {ELSEWHERE}")


def refuse_compiling(wrappers):
    """Raises EngineError where the network is to be compiled. wrappers: of a patcher, {kind: {key: [function]}}."""
    if any("torch.compile" in of_kind for of_kind in wrappers.values()):
        raise EngineError(f"another node compiles the network (torch.compile); {ELSEWHERE}")


class Parts:
    """A network's modules as they were built, by which it is seen what has been put in their place."""

    def __init__(self, network):
        self._built = {name: (id(part), _own_calls(part)) for name, part in network.named_modules()}

    def refuse_changes(self, network):
        """Raises EngineError for other modules, for methods of single modules and for hooks."""
        changed = []
        for name, part in network.named_modules():
            identity, calls = self._built.get(name, (0, frozenset()))
            within = f"{NETWORK}.{name}" if name else NETWORK
            if id(part) != identity:
                changed.append(within)
            changed += [f"{within}.{call}" for call in sorted(_own_calls(part) - calls)]
            if part._forward_hooks or part._forward_pre_hooks:
                changed.append(f"{within} (a hook)")
        if changed:
            raise EngineError(f"another node replaces {_some(changed)}; {ELSEWHERE}")


def _own_calls(part):
    """Names of what can be called and is the module's own, not its class's."""
    return frozenset(name for name, value in part.__dict__.items() if callable(value))


def _some(names, most=3):
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
