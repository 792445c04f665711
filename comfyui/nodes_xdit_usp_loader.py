"""XDit+USP nodes: how a Wan model is spread over GPUs, and the loader that spreads it.

The names, sockets and defaults are those of the published node set; what computes is Atelier's engine, in processes of
its own.
"""

from .atelier import loading, wrapper
from .atelier.host import gpu_count
from .atelier.settings import ATTENTION, DTYPES, MOST_GPUS, NO_ATTENTION, XDitUSPConfig, refuse_gpus

CATEGORY = "WanVideoWrapper/XDitUSP"


class XDitUSPConfigNode:
    """Settings as a value for the loaders."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("XDITUSPCONFIG",)
    RETURN_NAMES = ("xdit_usp_config",)
    FUNCTION = "create_config"
    DESCRIPTION = "How many GPUs draw one picture or video together, and how they share the work."

    @classmethod
    def INPUT_TYPES(cls):
        degree = lambda tip: ("INT", {"default": 1, "min": 1, "max": 4, "tooltip": tip})
        switch = lambda on, tip: ("BOOLEAN", {"default": on, "tooltip": tip})
        return {
            "required": {
                "num_gpus": ("INT", {"default": 2, "min": 1, "max": MOST_GPUS, "tooltip": "GPUs that draw together"}),
                "gpu_memory_fraction": ("FLOAT", {"default": 0.9, "min": 0.1, "max": 1.0, "step": 0.05,
                                                  "tooltip": "what the engine may take of each GPU; more fails by name"}),
                "pipeline_parallel_size": degree("stages of the model's blocks"),
                "tensor_parallel_size": degree("ranks that share heads and features"),
                "data_parallel_size": degree("2: the halves of a batch, such as both branches of guidance, run side by side"),
                "use_fp16": switch(True, "the loader's base_precision wins over this default"),
                "use_bf16": switch(False, "compute in bfloat16"),
                "enable_activation_checkpointing": switch(True, "blocks' MLPs by chunks of tokens: less memory, the same values"),
                "enable_gradient_checkpointing": switch(False, "no effect: nothing is trained"),
                "max_batch_size": ("INT", {"default": 1, "min": 1, "max": 8, "tooltip": "pictures that one evaluation takes"}),
                "max_sequence_length": ("INT", {"default": 2048, "min": 512, "max": 8192, "step": 512, "tooltip": "computed; no effect"}),
                "overlap_p2p_comm": switch(True, "messages between ranks run beside the work"),
                "use_flash_attention": switch(True, "flash attention where the GPU has it"),
                "use_sdpa": switch(True, "the best kernel for the GPU"),
            },
            "optional": {
                "device": (["auto", "cuda", "cpu"], {"default": "auto", "tooltip": "cpu: ranks are processes, for tests"}),
                "atelier_program": ("STRING", {"default": "", "tooltip": "path of the engine; empty: ATELIER, then PATH"}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, num_gpus):
        # None: another node gives the number, which create_config then looks at.
        return num_gpus is None or refuse_gpus(num_gpus, gpu_count()) or True

    def create_config(self, device="auto", atelier_program="", **settings):
        config = XDitUSPConfig(**settings, device=device, program=atelier_program)
        config.notes = config.check()
        return (config,)


class XDitUSPWanVideoModelLoader:
    """A Wan file as a model for the wrapper's sampler, and as one for ComfyUI's own samplers."""

    CATEGORY = CATEGORY
    RETURN_TYPES = ("WANVIDEOMODEL", "MODEL")
    RETURN_NAMES = ("model", "stock_model")
    FUNCTION = "load_model"
    DESCRIPTION = (
        "Loads a Wan model into Atelier's engine, spread over several GPUs. The first output is for WanVideoWrapper's "
        "sampler, the second for KSampler and every other stock node."
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (loading.files("diffusion_models"), {"tooltip": "from models/diffusion_models"}),
                "base_precision": (list(DTYPES), {"default": "bf16"}),
                "xdit_usp_config": ("XDITUSPCONFIG",),
            },
            "optional": {
                "attention_mode": ([*ATTENTION, *NO_ATTENTION], {"default": "sdpa"}),
                "lora": ("WANVIDLORA", {"default": None}),
                "vace_model": ("VACEPATH", {"default": None}),
            },
        }

    def load_model(self, model, base_precision, xdit_usp_config, attention_mode="sdpa", lora=None, vace_model=None):
        wrapper.refuse_vace_part(vace_model)
        path = loading.path_of("diffusion_models", model)
        stock = loading.load(path, xdit_usp_config, base_precision, attention_mode)
        stock = wrapper.with_loras(stock, lora)
        return (wrapper.XDitUSPWanVideoModel.of(stock, base_precision), stock)


NODE_CLASS_MAPPINGS = {
    "XDitUSPConfigNode": XDitUSPConfigNode,
    "XDitUSPWanVideoModelLoader": XDitUSPWanVideoModelLoader,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "XDitUSPConfigNode": "XDit+USP Config",
    "XDitUSPWanVideoModelLoader": "XDit+USP WanVideo Model Loader",
}
