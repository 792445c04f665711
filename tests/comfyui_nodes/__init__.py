"""Nodes for tests of the package comfyui/: conditionings that need no text encoder, ComfyUI's own networks for the
engine's small models, and a comparison of latents."""

import json
import os

import torch


def read_config(folder, part):
    with open(os.path.join(folder, part, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def number(default):
    """A whole number as a node's input."""
    return ("INT", {"default": default, "min": 0, "max": 1 << 30})


class TestConditioning:
    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": number(0), "tokens": number(16), "width": number(128), "pooled": number(64)}}

    def make(self, seed, tokens, width, pooled):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, width, generator=generator)
        extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        return ([[text, extra]],)


class TestHunyuanConditioning:
    """As CLIPTextEncode makes it with HunyuanDiT's two encoders: each text with its mask."""

    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        names = {"seed": 0, "tokens": 77, "width": 1024, "t5_tokens": 256, "t5_width": 2048}
        return {"required": {name: number(default) for name, default in names.items()}}

    def make(self, seed, tokens, width, t5_tokens, t5_width):
        generator = torch.Generator().manual_seed(seed)
        mask = lambda length, counted: (torch.arange(length) < counted).long().unsqueeze(0)
        extra = {
            "attention_mask": mask(tokens, tokens - 50),
            "conditioning_mt5xl": torch.randn(1, t5_tokens, t5_width, generator=generator),
            "attention_mask_mt5xl": mask(t5_tokens, t5_tokens - 200),
            "width": 640,
            "height": 512,
        }
        return ([[torch.randn(1, tokens, width, generator=generator), extra]],)


class ClipVision:
    """What a CLIP vision encoder says of pictures."""

    def __init__(self, tokens):
        generator = torch.Generator().manual_seed(12)
        self.penultimate_hidden_states = torch.randn(1, tokens, 1280, generator=generator)
        self.image_embeds = torch.randn(1, 1280, generator=generator)


class TestGivenFrames:
    """Conditionings with what nodes of image to video, VACE, SDXL's sizes and pictures in place of words add to them.

    Of Wan: one picture ("image"), the same seen by an encoder ("seen"), first and last frame ("frames"), of which the
    encoder saw the first ("first").
    """

    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "shape": ("STRING", {"default": ""}),
                "what": (["image", "seen", "frames", "first", "control", "sizes", "picture"],),
            }
        }

    def add(self, conditioning, shape, what):
        b, channels, *frames, height, width = (int(n) for n in shape.split(","))
        generator = torch.Generator().manual_seed(11)
        draw = lambda c: torch.randn(b, c, *frames, height, width, generator=generator)
        if what == "sizes":
            extra = {"width": 640, "height": 512, "crop_w": 8, "crop_h": 16, "target_width": 1024}
        elif what == "picture":
            given = {"clip_vision_output": ClipVision(1), "strength": 0.7, "noise_augmentation": 0.1}
            extra = {"unclip_conditioning": [given]}
        elif what != "control":
            mask = torch.ones(1, 1, *frames, height, width)
            mask[:, :, :1] = 0
            if what in ("frames", "first"):
                mask[:, :, -1:] = 0
            extra = {"concat_latent_image": draw(channels), "concat_mask": mask}
            if what != "image":
                extra["clip_vision_output"] = ClipVision(514 if what == "frames" else 257)
        else:
            mask = (draw(64) > 0).float()
            extra = {"vace_frames": [draw(32)], "vace_mask": [mask], "vace_strength": [0.8]}
        return ([[text, {**options, **extra}] for text, options in conditioning],)


class TestStockFlux:
    """ComfyUI's own FLUX network with the weights and sizes of a diffusers folder, in this process."""

    CATEGORY = "test"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {"default": ""})}}

    def load(self, folder):
        import comfy.latent_formats
        import comfy.model_detection
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models
        from safetensors.torch import load_file

        facts, vae = read_config(folder, "transformer"), read_config(folder, "vae")
        tensors = load_file(os.path.join(folder, "transformer", "diffusion_pytorch_model.safetensors"))
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        tensors = comfy.model_detection.convert_diffusers_mmdit(tensors, "")
        config = comfy.model_detection.model_config_from_unet(tensors, "")
        heads, size = facts["num_attention_heads"], facts["attention_head_dim"]
        channels = facts["in_channels"] // 4
        config.unet_config.update(
            num_heads=heads, hidden_size=heads * size, axes_dim=facts["axes_dims_rope"], in_channels=channels, out_channels=channels
        )
        latent = comfy.latent_formats.SD3()
        latent.latent_channels = channels
        latent.scale_factor, latent.shift_factor = vae["scaling_factor"], vae.get("shift_factor") or 0.0
        latent.latent_rgb_factors = None
        config.latent_format = latent
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(tensors, "", device=torch.device("cpu"))
        model.load_model_weights(tensors, "")
        device = comfy.model_management.get_torch_device()
        return (comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu")),)


class TestStockSized:
    """ComfyUI's own network of one of its supported_models, with the weights of a file and other sizes than those that it
    recognises it by."""

    CATEGORY = "test"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        text = lambda default: ("STRING", {"default": default})
        return {"required": {"file": text(""), "model": text("SDXL"), "sizes": text("{}")}}

    def load(self, file, model, sizes):
        import comfy.model_detection
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models
        import folder_paths
        from safetensors.torch import load_file

        path = next(filter(None, (folder_paths.get_full_path(folder, file) for folder in ("diffusion_models", "checkpoints"))))
        tensors = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in load_file(path).items()}
        config = getattr(comfy.supported_models, model)(comfy.model_detection.detect_unet_config(tensors, ""))
        config.unet_config.update(json.loads(sizes))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(tensors, "", device=torch.device("cpu"))
        missing, unexpected = model.diffusion_model.load_state_dict(tensors, strict=False)
        assert not missing and all(name.startswith(("v_pred", "edm_")) for name in unexpected), (missing, unexpected)
        device = comfy.model_management.get_torch_device()
        return (comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu")),)


class TestStockWan:
    """ComfyUI's own Wan network with the weights of a file in the original naming and the sizes of a diffusers folder: UNETLoader
    knows no heads of other than 128 channels and no texts of other than 4096."""

    CATEGORY = "test"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {"default": ""}), "folder": ("STRING", {"default": ""})}}

    def load(self, file, folder):
        import comfy.model_detection
        import comfy.model_management
        import comfy.model_patcher
        import folder_paths
        from safetensors.torch import load_file

        facts, vae = read_config(folder, "transformer"), read_config(folder, "vae")
        path = folder_paths.get_full_path_or_raise("diffusion_models", file)
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        config = comfy.model_detection.model_config_from_unet(tensors, "")
        config.unet_config.update(num_heads=facts["num_attention_heads"], text_dim=facts["text_dim"])
        for name in ("latents_mean", "latents_std"):
            setattr(config.latent_format, name, torch.tensor(vae[name]).view(1, -1, 1, 1, 1))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(tensors, "", device=torch.device("cpu"))
        missing, unexpected = model.diffusion_model.load_state_dict(tensors, strict=False)
        assert not missing and not unexpected, (missing, unexpected)
        device = comfy.model_management.get_torch_device()
        return (comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu")),)


class TestStockText:
    """What ComfyUI's own umT5, with the sizes of a diffusers folder, makes of a text: 512 states, zeros behind it. CLIPLoader knows
    one size of it alone."""

    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""}), "folder": ("STRING", {"default": ""})}}

    def encode(self, text, folder):
        import comfy.ops
        import comfy.text_encoders.t5
        import sentencepiece
        from safetensors.torch import load_file

        facts = {**read_config(folder, "text_encoder"), "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True}
        encoder = comfy.text_encoders.t5.T5(facts, torch.float32, torch.device("cpu"), comfy.ops.disable_weight_init)
        tensors = load_file(os.path.join(folder, "text_encoder", "model.safetensors"))
        missing, _ = encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
        assert not missing, missing
        pieces = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "tokenizer", "spiece.model"))
        ids = [*pieces.encode(text), facts["eos_token_id"]]
        mask = torch.zeros(1, 512)
        mask[:, : len(ids)] = 1
        with torch.no_grad():
            states = encoder(torch.tensor([ids + [facts["pad_token_id"]] * (512 - len(ids))]), mask)[0]
        return ([[states.float() * mask.unsqueeze(-1), {}]],)


class TestCompareFrames:
    """Frames against what ComfyUI's own Wan autoencoder, with the sizes of a diffusers folder, makes of the latents."""

    CATEGORY = "test"
    RETURN_TYPES = ()
    FUNCTION = "compare"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        text = ("STRING", {"default": ""})
        return {"required": {"samples": ("LATENT",), "frames": ("IMAGE",), "file": text, "folder": text}}

    def compare(self, samples, frames, file, folder):
        import comfy.ldm.wan.vae
        import folder_paths
        from safetensors.torch import load_file

        facts = read_config(folder, "vae")
        vae = comfy.ldm.wan.vae.WanVAE(
            facts["base_dim"], facts["z_dim"], facts["dim_mult"], facts["num_res_blocks"], facts["attn_scales"], facts["temperal_downsample"]
        )
        tensors = load_file(folder_paths.get_full_path_or_raise("vae", file))
        vae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        with torch.no_grad():
            stock = vae.decode(samples["samples"].float()).div(2).add(0.5).clamp(0, 1)
        stock = stock.movedim(1, 2).flatten(0, 1).movedim(1, -1)
        assert stock.shape == frames.shape, (stock.shape, frames.shape)
        facts = {"difference": float((stock - frames).abs().max()), "spread": float(stock.std()), "frames": len(stock)}
        return {"ui": {name: [value] for name, value in facts.items()}}


class TestCompare:
    CATEGORY = "test"
    RETURN_TYPES = ()
    FUNCTION = "compare"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("LATENT",), "b": ("LATENT",), "label": ("STRING", {"default": ""})}}

    def compare(self, a, b, label):
        x, y = a["samples"].float(), b["samples"].float()
        return {"ui": {"difference": [float((x - y).abs().max())], "largest": [float(x.abs().max())], "label": [label]}}


class TestLatent:
    """Zeros of any shape; or numbers whose first frames are given."""

    CATEGORY = "test"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        known = ("INT", {"default": 0, "min": 0, "max": 64})
        return {"required": {"shape": ("STRING", {"default": "1,8,16,16"}), "known": known}}

    def make(self, shape, known):
        sizes = [int(n) for n in shape.split(",")]
        if not known:
            return ({"samples": torch.zeros(sizes)},)
        mask = torch.ones(1, 1, *sizes[2:])
        mask[:, :, :known] = 0
        return ({"samples": torch.randn(sizes, generator=torch.Generator().manual_seed(13)), "noise_mask": mask},)


class TestPatch:
    """A patch within the network, as attention nodes set them."""

    CATEGORY = "test"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_patch(lambda x, *_: x, "attn1_patch")
        return (model,)


NODE_CLASS_MAPPINGS = {
    kind.__name__: kind
    for kind in (
        TestConditioning,
        TestHunyuanConditioning,
        TestGivenFrames,
        TestStockFlux,
        TestStockSized,
        TestStockWan,
        TestStockText,
        TestCompare,
        TestCompareFrames,
        TestLatent,
        TestPatch,
    )
}
