#!/usr/bin/env python3
"""Times of attention by cuDNN and by FlashAttention-3 (package fa3-fwd) on one GPU: attention.py RESULT.json

bfloat16, normal numbers, in microseconds: medians of 10 replays of a graph of 10 calls, behind 3 replays; error: root mean square against float32 over that of
the values, of a slice of the queries. What nn/sdpa.cpp chooses between comes from these rows.
"""
import glob
import importlib.util
import json
import os
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# batch, queries, keys, heads, width: FLUX.1 on 1, 2 and 4 ranks, 2048 px, SDXL's two levels, SD3's pair, Wan 1.3B and 14B at 480p
CASES = [(1, 4608, 4608, 24, 128), (1, 4608, 4608, 12, 128), (1, 4608, 4608, 6, 128), (1, 2304, 4608, 24, 128),
         (1, 2304, 2304, 24, 128), (1, 8448, 8448, 24, 128), (1, 16896, 16896, 24, 128), (1, 16896, 16896, 12, 128),
         (1, 16896, 16896, 6, 128), (2, 4096, 4096, 10, 64), (2, 1024, 1024, 20, 64), (2, 4429, 4429, 24, 64),
         (2, 4096, 4096, 16, 72), (2, 4096, 4096, 16, 88), (1, 16384, 16384, 16, 88), (1, 32760, 32760, 12, 128),
         (1, 32760, 32760, 40, 128), (1, 32760, 32760, 20, 128), (1, 32760, 512, 12, 128)]


def library():
    found = importlib.util.find_spec('torch').submodule_search_locations[0]
    return os.environ.get('ATELIER_FA3') or next(iter(glob.glob(found + '/../fa3_fwd/_C.abi3.so')), None)


def cudnn(q, k, v):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def hopper(q, k, v):
    return torch.ops.fa3_fwd.fwd(q, k, v, num_splits=1)[0]


def time_of(kernel, tensors):
    """Of one call inside of a CUDA graph, where neither Python nor a launch is counted."""
    calls, times = 10, []
    kernel(*tensors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            kernel(*tensors)
    for _ in range(13):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times[3:])


def error_of(kernel, q, k, v):
    some = q[:1, :128]
    exact = torch.nn.functional.scaled_dot_product_attention(*(t.float().transpose(1, 2) for t in (some, k[:1], v[:1]))).transpose(1, 2)
    return ((kernel(some, k[:1], v[:1]).float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()


def main():
    path = library()
    if path:
        torch.ops.load_library(path)
    rows = []
    for batch, queries, keys, heads, width in CASES:
        torch.manual_seed(1)
        q, k, v = (torch.randn(batch, n, heads, width, device='cuda', dtype=torch.bfloat16) for n in (queries, keys, keys))
        row = {'batch': batch, 'queries': queries, 'keys': keys, 'heads': heads, 'width': width}
        for name, kernel in (('cudnn', cudnn), ('flash3', hopper))[:2 if path else 1]:
            row[name + '_us'] = round(time_of(kernel, (q, k, v)), 1)
            row[name + '_error'] = float(f'{error_of(kernel, q, k, v):.2e}')
        rows.append(row)
        print(row, flush=True)
    result = {'what': __doc__.split('\n\n')[1].replace('\n', ' '), 'command': 'tools/bench/attention.py', 'device': torch.cuda.get_device_name(),
              'torch': torch.__version__, 'cudnn': torch.backends.cudnn.version(), 'rows': rows}
    with open(sys.argv[1], 'w') as f:
        json.dump(result, f, indent=1)
        f.write('\n')


if __name__ == '__main__':
    main()
