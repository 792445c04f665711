"""SDXL's tensors in a diffusers folder under the names of the original repository, which ComfyUI knows.

ComfyUI has the table itself; it wants to be told how many layers each level has, which the names say.
"""

MARK = "add_embedding.linear_1.weight"  # in a UNet of diffusers alone


def original(tensors):
    """{diffusers name: anything} -> the same under the original names; what has no other name keeps its own."""
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(levels_of(tensors))
    return {names.get(name, name): value for name, value in tensors.items()}


def levels_of(tensors):
    """Layers of each level, and transformers of each layer, as ComfyUI's table takes them."""
    down, up = _levels(tensors, "down_blocks"), _levels(tensors, "up_blocks")
    return {
        "num_res_blocks": [len(level) for level in down],
        "channel_mult": [1 for _ in down],  # read for its length alone
        "transformer_depth": [count for level in down for count in level],
        "transformer_depth_output": [count for level in reversed(up) for count in reversed(level)],
        "transformer_depth_middle": _count(tensors, "mid_block.attentions.0.transformer_blocks.{}.norm1.weight"),
    }


def _levels(tensors, side):
    levels = []
    while layers := _count(tensors, f"{side}.{len(levels)}.resnets.{{}}.conv1.weight"):
        at = f"{side}.{len(levels)}.attentions"
        levels.append([_count(tensors, f"{at}.{i}.transformer_blocks.{{}}.norm1.weight") for i in range(layers)])
    return levels


def _count(tensors, pattern):
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count
