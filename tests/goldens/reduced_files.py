#!/usr/bin/env python3
"""Makes src/weights/testdata/reduced/: a linear layer as bitsandbytes and ComfyUI store it in few bits, and, in
values.safetensors, what they compute with. Arguments: bitsandbytes | comfy, the folder of ComfyUI's source.
Made with bitsandbytes 0.50.2, ComfyUI 0.3.75, torch 2.11.0."""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'src/weights/testdata/reduced'
ROWS, COLUMNS = 12, 64


def tensors_of(layer):
    return {'net.a.' + name: value.detach().contiguous() for name, value in layer.state_dict().items()}


def store(name, tensors, metadata=None):
    save_file(tensors, FOLDER / f'{name}.safetensors', metadata)


def bitsandbytes_files():
    import bitsandbytes as bnb
    for kind in ('nf4', 'fp4'):
        for is_nested in (False, True):
            layer = bnb.nn.Linear4bit(COLUMNS, ROWS, quant_type=kind, compress_statistics=is_nested, compute_dtype=torch.bfloat16)
            store(f'bitsandbytes_{kind}' + '_nested' * is_nested, tensors_of(layer.to('cpu')))
    layer = bnb.nn.Linear8bitLt(COLUMNS, ROWS, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(torch.randn(ROWS, COLUMNS).half(), requires_grad=False, has_fp16_weights=False).to('cpu')
    tensors = tensors_of(layer)
    if 'net.a.SCB' not in tensors:  # some releases quantise only at the first call, on a GPU
        weight, scale, _ = bnb.functional.int8_vectorwise_quant(torch.randn(ROWS, COLUMNS).half())
        tensors |= {'net.a.weight': weight, 'net.a.SCB': scale, 'net.a.weight_format': torch.tensor(0, dtype=torch.uint8)}
    store('bitsandbytes_int8', tensors)


def comfy_files(source):
    sys.path.insert(0, source)
    sys.argv = ['main.py', '--cpu']
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.ops
    from comfy.quant_ops import TensorCoreFP8Layout
    values = {}
    for name, kind in (('comfy_e4m3', torch.float8_e4m3fn), ('comfy_e5m2', torch.float8_e5m2)):
        layer = comfy.ops.scaled_fp8_ops(override_dtype=kind).Linear(COLUMNS, ROWS, bias=True, dtype=torch.float32)
        layer.reset_parameters()
        weight = torch.randn(ROWS, COLUMNS)
        layer.scale_weight.data = weight.abs().max() / torch.finfo(kind).max
        layer.set_weight(weight, seed=1)
        layer.bias.data = torch.randn(ROWS).to(kind)
        # the marker as model_base.state_dict_for_saving writes it
        store(name, tensors_of(layer) | {'net.scaled_fp8': torch.tensor([], dtype=kind)})
        values |= {f'{name}.weight': layer.convert_weight(layer.weight), f'{name}.bias': layer.bias.detach().float()}
    weight, how = TensorCoreFP8Layout.quantize(torch.randn(ROWS, COLUMNS))
    tensors = {'net.a.weight': weight, 'net.a.weight_scale': how['scale'], 'net.a.bias': torch.randn(ROWS).bfloat16()}
    layers = {'net.a': {'format': 'float8_e4m3fn'}}
    store('comfy_mixed', tensors, {'_quantization_metadata': json.dumps({'format_version': '1.0', 'layers': layers})})
    # read back with the operations that ComfyUI itself reads such a file with
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Module()
            self.net.a = comfy.ops.mixed_precision_ops(layers, torch.float32).Linear(COLUMNS, ROWS)
    net = Net()
    net.load_state_dict(load_file(FOLDER / 'comfy_mixed.safetensors'))
    values |= {'comfy_mixed.weight': net.net.a.weight.dequantize().detach().float().contiguous(), 'comfy_mixed.bias': net.net.a.bias.detach().float()}
    store('values', values)


def main():
    torch.manual_seed(9)
    FOLDER.mkdir(parents=True, exist_ok=True)
    bitsandbytes_files() if sys.argv[1] == 'bitsandbytes' else comfy_files(sys.argv[2])


if __name__ == '__main__':
    main()
