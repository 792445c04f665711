"""The one exception of this package: a sentence for whoever looks at the graph."""


class EngineError(RuntimeError):
    """What was asked, what was found, what to do."""

    def __init__(self, message, kind="usage"):
        super().__init__(message)
        self.kind = kind  # usage, checkpoint, capacity, peer, item, interrupted, other
