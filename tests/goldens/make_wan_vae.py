#!/usr/bin/env python3
"""Records Wan's autoencoders: small ones of random weights, their encodings and decodings of several lengths, chunk by chunk and tiled.

    python tests/goldens/make_wan_vae.py CASE [FOLDER]      # without CASE: lists them
"""
import pathlib
import sys

import torch
from parts import HERE, randomise
from recorder import Recorded

MODULES = ("encoder.mid_block", "decoder.mid_block", "decoder.up_blocks.0", "decoder.up_blocks.1")


def record_chunks(vae, r, prefix):
    """Hooks that note the outputs of some modules, the k-th call of one as name@k. Returns what takes them off."""
    handles = []
    for name, module in vae.named_modules():
        if name not in MODULES:
            continue
        calls = []

        def note(_, __, output, name=name, calls=calls):
            r.add(f"{prefix}{name}" + (f"@{len(calls)}" if calls else ""), output)
            calls.append(1)

        handles.append(module.register_forward_hook(note))
    return lambda: [h.remove() for h in handles]


def wan_vaes(folder, o):
    from diffusers import AutoencoderKLWan

    r = Recorded()
    tiling = {}
    for number, (name, c) in enumerate(o.items()):
        spatial = 2 ** (len(c["config"]["dim_mult"]) - 1) * c["config"].get("patch_size", 1)
        z = c["config"]["z_dim"]
        g = torch.Generator().manual_seed(7 + number)
        mean, std = torch.randn(z, generator=g), torch.rand(z, generator=g) + 0.5
        colours = 3 * c["config"].get("patch_size", 1) ** 2
        vae = randomise(AutoencoderKLWan(
            **{"latents_mean": mean.tolist(), "latents_std": std.tolist(), "in_channels": colours, "out_channels": colours,
               "scale_factor_spatial": spatial, **c["config"]}), 11 + number)
        with torch.no_grad():  # about one
            for n, p in vae.named_parameters():
                if n.endswith("gamma"):
                    p.copy_((1 + 0.2 * torch.randn(p.shape, generator=g)).bfloat16())
        vae.save_pretrained(folder / "model" / name)
        vae = AutoencoderKLWan.from_pretrained(folder / "model" / name, torch_dtype=torch.float32)
        most = max(c["frames"])
        video = torch.rand((c.get("batch", 1), 3, most, c["size"][0] * spatial, c["size"][1] * spatial), generator=g) * 2 - 1
        r.add(f"{name}.input", video)
        for frames in c["frames"]:
            stop = record_chunks(vae, r, f"{name}.f{frames}.chunk.") if frames == c.get("chunks") else (lambda: None)
            posterior = vae.encode(video[:, :, :frames]).latent_dist
            decoded = vae.decode(posterior.mode()).sample
            stop()
            r.add(f"{name}.f{frames}.moments", posterior.parameters)
            r.add(f"{name}.f{frames}.mean", posterior.mode())
            r.add(f"{name}.f{frames}.decoded", decoded)
        latents = torch.randn((2, z, c.get("latents", 2), *c["size"]), generator=g)
        r.add(f"{name}.random.latents", latents)
        r.add(f"{name}.random.decoded", vae.decode(latents).sample)
        if "tiling" in c:
            t = tiling[name] = c["tiling"]
            x = video[:, :, :t["frames"]]
            latents = vae.encode(x).latent_dist.mode()
            vae.enable_tiling(t["min"], t["min"], t["stride"], t["stride"])
            r.add(f"{name}.tiled.mean", vae.encode(x).latent_dist.mode())
            r.add(f"{name}.tiled.decoded", vae.decode(latents).sample)
    r.write(folder, {"pipeline": None, "frames": sorted({f for c in o.values() for f in c["frames"]}), "tiling": tiling})


CASES = {
    # 2.1 with two halvings and one of time, odd rows; 2.2 with time halved first, and another width of its decoder; committed
    "wan_vae_small": (wan_vaes, dict(
        one=dict(config=dict(base_dim=3, z_dim=3, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, False]),
                 size=[3, 4], frames=[1, 9], chunks=9, tiling={"min": 8, "stride": 4, "frames": 5}),
        two=dict(config=dict(base_dim=2, decoder_base_dim=3, z_dim=2, dim_mult=[1, 2, 2], num_res_blocks=1, is_residual=True,
                             patch_size=2, temperal_downsample=[True, True]),
                 size=[3, 2], frames=[5], chunks=5, tiling={"min": 16, "stride": 8, "frames": 5}))),
    "wan_vae_more": (wan_vaes, dict(
        still=dict(config=dict(base_dim=6, z_dim=5, dim_mult=[2, 1], num_res_blocks=3, temperal_downsample=[False]),
                   size=[7, 5], frames=[1, 3, 5], chunks=5, tiling={"min": 8, "stride": 6, "frames": 3}),
        one_level=dict(config=dict(base_dim=5, z_dim=2, dim_mult=[2], num_res_blocks=1, temperal_downsample=[]),
                       size=[4, 9], frames=[1, 2, 9], chunks=9),
        deep=dict(config=dict(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]),
                  size=[5, 7], batch=2, frames=[1, 5, 13, 17], chunks=17, latents=3, tiling={"min": 24, "stride": 16, "frames": 13}),
        published=dict(config=dict(base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2),
                       size=[4, 6], frames=[9], tiling={"min": 24, "stride": 20, "frames": 9}),
        residual=dict(config=dict(base_dim=8, decoder_base_dim=12, z_dim=6, dim_mult=[1, 2, 4, 4], num_res_blocks=2, is_residual=True,
                                  patch_size=2, temperal_downsample=[False, True, True]),
                      size=[3, 5], batch=2, frames=[1, 5, 9, 17], chunks=9, latents=3, tiling={"min": 32, "stride": 16, "frames": 9}),
        residual_whole=dict(config=dict(base_dim=4, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, is_residual=True,
                                        temperal_downsample=[True, False]),
                            size=[5, 3], frames=[1, 13], chunks=13, tiling={"min": 12, "stride": 8, "frames": 13}),
        wide=dict(config=dict(base_dim=16, z_dim=8, dim_mult=[1, 2], num_res_blocks=1, patch_size=4, temperal_downsample=[True]),
                  size=[3, 4], frames=[5], chunks=5))),
}

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("cases: " + ", ".join(CASES))
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    make, options = CASES[sys.argv[1]]
    make(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else HERE / sys.argv[1]), options)
