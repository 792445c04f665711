"""HunyuanDiT's tensors in a diffusers folder under the names of the original repository, which ComfyUI knows.

Only names and shapes are needed here. The two namings are those of diffusers' HunyuanDiT2DModel and of
hydit/modules/models.py, where queries, keys and values are one tensor and two norms have each other's names.
"""

MARK = "time_extra_emb.pooler.positional_embedding"  # in a folder of diffusers alone

_OUTER = {
    "pos_embed.proj": "x_embedder.proj",
    "time_extra_emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_extra_emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_extra_emb.extra_embedder.linear_1": "extra_embedder.0",
    "time_extra_emb.extra_embedder.linear_2": "extra_embedder.2",
    "time_extra_emb.style_embedder": "style_embedder",
    "text_embedder.linear_1": "mlp_t5.0",
    "text_embedder.linear_2": "mlp_t5.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
    **{f"time_extra_emb.pooler.{x}": f"pooler.{x}" for x in ("q_proj", "k_proj", "v_proj", "c_proj")},
}
_IN_BLOCK = {
    "norm1.norm": "norm1",
    "norm1.linear": "default_modulation.1",
    "norm2": "norm3",
    "norm3": "norm2",
    "attn1.to_q": "attn1.Wqkv",
    "attn1.to_k": "attn1.Wqkv",
    "attn1.to_v": "attn1.Wqkv",
    "attn2.to_q": "attn2.q_proj",
    "attn2.to_k": "attn2.kv_proj",
    "attn2.to_v": "attn2.kv_proj",
    **{f"{a}.norm_{x}": f"{a}.{x}_norm" for a in ("attn1", "attn2") for x in "qk"},
    **{f"{a}.to_out.0": f"{a}.out_proj" for a in ("attn1", "attn2")},
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}


def original(tensors):
    """{diffusers name: meta tensor} -> the same under the original names, fused where the original is one tensor."""
    import torch

    out = {}
    for name, tensor in tensors.items():
        new = _renamed(name)
        out[new] = torch.cat([out[new], tensor]) if new in out else tensor
    return out


def _renamed(name):
    if name == MARK:
        return "pooler.positional_embedding"
    layer, _, leaf = name.rpartition(".")
    if name.startswith("blocks."):
        _, number, layer = layer.split(".", 2)
        return f"blocks.{number}.{_IN_BLOCK.get(layer, layer)}.{leaf}"
    return f"{_OUTER[layer]}.{leaf}" if layer in _OUTER else name
