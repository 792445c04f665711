"""Wan's tensors in a diffusers folder under the names of the original repository, which ComfyUI knows.

Only names and shapes are needed here: the weights stay in the engine, which reads both namings itself. The two namings
are those of diffusers' WanTransformer3DModel and of wan/modules/model.py.
"""

MARK = "condition_embedder.time_proj.weight"  # in a folder of diffusers alone

_OUTER = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
_IN_BLOCK = {
    "scale_shift_table": "modulation",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
    **{f"{a}.to_{x}": f"{b}.{x}" for a, b in (("attn1", "self_attn"), ("attn2", "cross_attn")) for x in "qkv"},
    **{f"{a}.norm_{x}": f"{b}.norm_{x}" for a, b in (("attn1", "self_attn"), ("attn2", "cross_attn")) for x in "qk"},
}


def original(tensors):
    """{diffusers name: anything} -> the same under the original names; what has no other name keeps its own."""
    return {_renamed(name): value for name, value in tensors.items()}


def _renamed(name):
    blocks, names, rest = "", _OUTER, name
    if name.split(".")[0] in ("blocks", "vace_blocks"):
        kind, number, rest = name.split(".", 2)
        blocks, names = f"{kind}.{number}.", _IN_BLOCK
    if rest in names:  # a tensor of its own
        return blocks + names[rest]
    layer, _, leaf = rest.rpartition(".")
    return f"{blocks}{names.get(layer, layer)}.{leaf}" if layer else name
