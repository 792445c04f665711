"""What the nodes are made of: the engine's process, tensors it shares, delegated models."""
