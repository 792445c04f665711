"""From what a user sets on the nodes to the engine's command line."""

import logging
from dataclasses import dataclass, field

from .errors import EngineError

log = logging.getLogger("atelier")

MOST_GPUS = 8
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# The attention that a wrapper's user asks for -> the engine's kernel. Approximate ones are not among them.
ATTENTION = {"sdpa": "sdpa", "flash_attn_2": "flash", "flash_attn_3": "flash"}
NO_ATTENTION = {
    "sageattn": "rounds queries and keys to 8 bits",
    "flex_attention": "is a compiler's kernel of torch",
    "radial_sage_attention": "leaves out distant tokens and rounds",
}


def refuse_gpus(count, found=-1):
    """The reason why so many GPUs cannot be; "" where they can. found: GPUs of this machine, -1: not known."""
    have = f", have {found}" if found >= 0 else ""
    if count > MOST_GPUS:
        return (
            f"asked {count} GPUs{have}: these nodes spread one picture or video over at most {MOST_GPUS} GPUs of one machine, "
            "which is what a host has; for more, run atelier itself under torchrun or srun"
        )
    if count < 1:
        return f"asked {count} GPUs{have}: at least one draws"
    return ""


@dataclass
class XDitUSPConfig:
    """How a model is spread; the value of the socket XDITUSPCONFIG."""

    num_gpus: int = 2
    gpu_memory_fraction: float = 0.9
    pipeline_parallel_size: int = 1
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    use_fp16: bool = True
    use_bf16: bool = False
    enable_activation_checkpointing: bool = True
    enable_gradient_checkpointing: bool = False
    max_batch_size: int = 1
    max_sequence_length: int = 2048
    overlap_p2p_comm: bool = True
    use_flash_attention: bool = True
    use_sdpa: bool = True
    device: str = "auto"
    program: str = ""
    notes: list = field(default_factory=list, compare=False)

    def check(self):
        """Raises EngineError for what cannot be, and returns sentences about what has no effect here."""
        problem = refuse_gpus(self.num_gpus)
        if problem:
            raise EngineError(problem)
        if self.data_parallel_size > 2:
            raise EngineError(
                f"data_parallel_size is {self.data_parallel_size}: inside a sampler the two halves of a batch, such as "
                "the two branches of guidance, can run side by side; choose 1 or 2"
            )
        degrees = self.pipeline_parallel_size * self.tensor_parallel_size * self.data_parallel_size
        if degrees > 1 and degrees != self.num_gpus and self.num_gpus % degrees:
            raise EngineError(
                f"pipeline {self.pipeline_parallel_size} x tensor {self.tensor_parallel_size} x data "
                f"{self.data_parallel_size} = {degrees} does not divide num_gpus {self.num_gpus}"
            )
        if self.use_fp16 and self.use_bf16:
            raise EngineError("use_fp16 and use_bf16 are both on: one type computes, turn one of them off")
        said = []
        if self.max_sequence_length != 2048:
            said.append("max_sequence_length is computed from the picture or video; the value has no effect")
        if self.enable_gradient_checkpointing:
            said.append("enable_gradient_checkpointing has no effect: nothing is trained")
        if self.pipeline_parallel_size > 1:
            said.append("pipeline stages run whole steps here, as the sampler outside owns the loop over them")
        return said

    def dtype(self, base_precision):
        """One type of the three settings. The shipped default of this node (fp16) gives way to the loader's value."""
        wanted = DTYPES[base_precision] if base_precision else None
        own = "float16" if self.use_fp16 else "bfloat16" if self.use_bf16 else None
        if wanted is None or own is None or own == wanted:
            return wanted or own or "bfloat16"
        if self.use_fp16:
            log.info("[atelier] base_precision %s of the loader wins over use_fp16, which is on by default", base_precision)
            return wanted
        raise EngineError(f"use_bf16 of the config and base_precision {base_precision} of the loader disagree: keep one of them")

    def attention(self, mode):
        """The engine's kernel for an attention_mode."""
        if mode in NO_ATTENTION:
            raise EngineError(
                f"attention_mode {mode} {NO_ATTENTION[mode]}; the engine's kernels are exact: choose one of {', '.join(ATTENTION)}"
            )
        if mode and mode not in ATTENTION:
            raise EngineError(f"attention_mode {mode} is unknown; there are {', '.join([*ATTENTION, *NO_ATTENTION])}")
        if mode:
            return ATTENTION[mode]
        if self.use_flash_attention and not self.use_sdpa:
            return "flash"
        return "sdpa" if self.use_sdpa else "math"

    def arguments(self, base_precision=None, attention_mode=None):
        """Flags of the engine. Raises EngineError."""
        for sentence in self.check():
            log.info("[atelier] %s", sentence)
        flags = ["--num_gpus", str(self.num_gpus), "--device", self.device]
        flags += ["--attention_backend", self.attention(attention_mode)]
        if self.device != "cpu":
            flags += ["--torch_dtype", self.dtype(base_precision), "--gpu_memory_fraction", f"{self.gpu_memory_fraction:g}"]
        elif base_precision in ("fp32", None):
            flags += ["--torch_dtype", "float32"]
        else:
            flags += ["--torch_dtype", DTYPES[base_precision]]
        flags += ["--enable_activation_checkpointing"] if self.enable_activation_checkpointing else []
        flags += [] if self.overlap_p2p_comm else ["--no_overlap_p2p_comm"]
        pipeline, tensor, halves = self.pipeline_parallel_size, self.tensor_parallel_size, self.data_parallel_size
        if pipeline * tensor * halves > 1:
            flags += ["--pipefusion_degree", str(pipeline), "--tensor_parallel_degree", str(tensor)]
            flags += ["--use_cfg_parallel"] if halves == 2 else []
            flags += ["--ulysses_degree", str(self.num_gpus // (pipeline * tensor * halves))]
        return flags
