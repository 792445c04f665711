#!/usr/bin/env python3
"""What is refused, with which exit code, and what the message must name: one table. The program is $ATELIER.
Exit 0: all as it should be; 77: there is no program; else what was not."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATELIER = os.environ.get('ATELIER', str(ROOT / 'build/cpu/src/atelier'))
SMALL = '--model_name mini --device cpu --height 64 --width 64 --num_inference_steps 1 --seed 1'
X = '--prompt x'

# situation, exit code, flags, what the error names; then variables of the environment
TABLE = [
    ('product of degrees and count differ', 2, f'{X} --num_gpus 4 --ulysses_degree 2 --ring_degree 3',
     ['ulysses 2', 'ring 3', '= 6', '4', 'ulysses=2, ring=2|ring=2, ulysses=2|ulysses=4|cfg=2']),
    ('invalid GPU', 2, f'{X} --device cuda:99', ['cuda:99', 'cuda:0|no CUDA|no GPU']),
    ('no GPU', 2, f'{X} --device cuda --num_gpus 99', ['cuda|99']),
    ('fewer heads than ranks', 2, f'{X} --ulysses_degree 20', ['20', 'heads', 'ulysses|ring']),
    ('fewer tokens than ranks', 2, f'{X} --ring_degree 30', ['30', 'tokens', '=']),
    ('fewer tokens than ranks that gather', 2, f'{X} --kv_gather_degree 30', ['kv_gather 30', 'tokens', '=']),
    ('fewer blocks than stages', 2, f'{X} --pipefusion_degree 30', ['30', 'blocks', '=']),
    ('one branch for CFG parallel', 2, f'{X} --use_cfg_parallel --true_cfg_scale 1', ['one branch per step', '=']),
    ('a step cache that is not built', 2, f'{X} --cache_type pab --ulysses_degree 2', ['--cache_type', 'pab', 'first_block_cache, teacache']),
    ('PipeFusion and a step cache', 2, f'{X} --pipefusion_degree 2 --cache_type first_block_cache',
     ['--cache_type', '--pipefusion_degree', 'ulysses']),
    ('stages and a step cache', 2, f'{X} --strategy pipefusion=2,sync --cache_type teacache', ['--cache_type', 'pipefusion_degree 2']),
    ('a UNet and a step cache', 2, f'{X} --model_name dummy:sdxl --cache_type first_block_cache', ['--cache_type', 'sdxl', 'UNet']),
    ('coefficients that nobody has published', 2, f'{X} --model_name dummy:PixArt-Sigma-XL-2-1024-MS --cache_type teacache',
     ['--cache_type', 'pixart', 'first_block_cache']),
    ('a threshold without a step cache', 2, f'{X} --cache_threshold 0.1', ['cache_threshold 0.1', 'cache_type']),
    ('a row with such a step cache', 1, '--prompts_file cached.jsonl', ['cached.jsonl:2', 'first_block_cache, teacache']),
    ('deterministic, a ring', 2, f'{X} --deterministic --ring_degree 2', ['--deterministic', 'ring 2', 'ulysses, kv_gather, cfg or data']),
    ('deterministic, tensor parallelism', 2, f'{X} --deterministic --tensor_parallel_degree 2', ['--deterministic', 'tensor 2', 'kv_gather']),
    ('deterministic, stages', 2, f'{X} --deterministic --pipefusion_degree 2', ['--deterministic', 'pipefusion 2', 'kv_gather']),
    ('deterministic, tiles', 2, f'{X} --deterministic --enable_vae_tiling', ['--deterministic', 'vae_tiling', 'vae_slicing']),
    ('deterministic, tiles of a rank that decodes rows', 2, f'{X} --deterministic --enable_vae_tiling --ulysses_degree 2 --use_parallel_vae',
     ['--deterministic', 'vae_tiling']),
    ('deterministic, a step cache', 2, f'{X} --deterministic --cache_type first_block_cache', ['cache_type first_block_cache', 'deterministic']),
    ('deterministic, a row with a step cache', 1, '--deterministic --prompts_file cacheable.jsonl', ['cacheable.jsonl:2', 'deterministic']),
    ('deterministic, another kernel', 2, f'{X} --deterministic --attention_backend math', ['--deterministic', 'math', 'attention_backend']),
    ('deterministic, a GPU', 2, f'{X} --deterministic --device cuda', ['deterministic.*--device cpu|no CUDA|no GPU']),
    ('a length of prompts where it is fixed', 2, f'{X} --model_name dummy:HunyuanDiT-v1.2-Diffusers --max_sequence_length 8',
     ['--max_sequence_length', '8', '256', 'unset']),
    ('such a length, for two encoders', 2, f'{X} --model_name dummy:sdxl --max_sequence_length 8', ['max_sequence_length 8', '77']),
    ('a prompt for an encoder that is not there', 2, f'{X} --prompt_3 y', ['prompt_3', 'flux', 'prompt_2']),
    ('a share of noise for a sampler without', 2, f'{X} --eta 0.5', ['eta 0.5', 'ddim']),
    ('a rescale of nothing', 2, f'{X} --guidance_rescale 0.5 --true_cfg_scale 1', ['guidance_rescale', 'two branches']),
    ('a weight of no control', 2, f'{X} --conditioning_scale 0.5', ['conditioning_scale', 'flux']),
    ('a second crop for a family without', 2, f'{X} --negative_crops_coords_top_left 8 8', ['negative_crops_coords_top_left', 'flux']),
    ('sizes of photographs for a family without', 2, f'{X} --target_size 64 64', ['target_size', 'flux']),
    ('sizes of photographs for a model without', 2, f'{X} --model_name dummy:HunyuanDiT-v1.2-Diffusers --original_size 64 64',
     ['--original_size', 'HunyuanDiT-v1.2']),
    ('a size of its own for the negative branch', 2, f'{X} --model_name dummy:HunyuanDiT-v1.1-Diffusers --negative_target_size 64 64',
     ['negative_target_size', 'both branches', 'as target_size']),
    ('attention that is not built', 2, f'{X} --attention_backend sage', ['sage', 'sdpa', 'flash']),
    ('unknown attention', 2, f'{X} --attention_backend fa9', ['fa9', 'sdpa', 'cudnn', 'math']),
    ('FlashAttention 3', 2, f'{X} --attention_backend FLASH_3', ['FlashAttention 3', 'flash']),
    ('two number types', 2, f'{X} --config both.yaml', ['use_fp16', 'use_bf16', 'both.yaml']),
    ('number types that disagree', 2, f'{X} --config half.yaml --torch_dtype float32', ['use_fp16', 'float32', 'half.yaml']),
    ('a bad integer in the environment', 2, X, ['DG_XDIT_RING_DEGREE', '"two"', 'integer'], {'DG_XDIT_RING_DEGREE': 'two'}),
    ('a bad switch in the environment', 2, X, ['DG_XDIT_USE_CFG_PARALLEL', '"maybe"', 'true'],
     {'DG_XDIT_USE_CFG_PARALLEL': 'maybe'}),
    ('unknown flag', 2, f'{X} --hieght 64', ['--hieght', '--height']),
    ('a word of another tool', 2, f'{X} --steps 4', ['--steps', '--num_inference_steps']),
    ('unknown word of --optimize', 2, f'{X} --optimize vae_tilling', ['vae_tilling', 'vae_tiling']),
    ('unknown variable', 0, X, ['DG_XDIT_RING_DEGRE ', 'DG_XDIT_RING_DEGREE'], {'DG_XDIT_RING_DEGRE': '2'}),
    ('a sampler of another kind of model', 2, f'{X} --sampler ddim', ['ddim', 'follows a flow', 'flow_euler']),
    ('no prompt', 2, '', ['--prompt', '--prompts_file']),
    ('no such prompt file', 2, '--prompts_file nowhere/absent.jsonl', ['nowhere/absent.jsonl']),
    ('no such configuration', 2, f'{X} --config absent.yaml', ['absent.yaml']),
    ('a bad row', 1, '--prompts_file rows.jsonl', ['rows.jsonl:2', 'height']),
    ('a row with such a sampler', 1, '--prompts_file samplers.jsonl', ['samplers.jsonl:2', 'flow_euler']),
    ('a name that leaves the folder', 1, '--prompts_file names.jsonl', ['names.jsonl:2', r'\.\./x', 'leaves']),
    ('a size that the format cannot hold', 1, '--prompts_file wide.jsonl --output_format webp', ['wide.jsonl:1', '16400', 'webp']),
    ('no such model', 2, f'{X} --model_name org/absent', ['org/absent', 'flux', '--download']),
    ('another family', 2, f'{X} --model_name other', ['OtherPipeline', 'FluxPipeline']),
    ('weights that do not fit', 2, f'{X} --model_name wrong', ['do not fit', 'proj_out.weight']),
    ('a scheduler without a shift', 2, f'{X} --model_name unshifted', [r'scheduler_config\.json', 'shift must be above 0, found 0']),
    ('a scheduler that shifts by one token count', 2, f'{X} --model_name even',
     [r'scheduler_config\.json', 'base_image_seq_len and max_image_seq_len', 'both 256']),
    ('a pickle', 2, f'{X} --model_name pickle', [r'pytorch_model\.bin', 'safetensors', 'never read']),
    ('code from a model repository', 2, f'{X} --trust-remote-code', ['never run']),
    ('pictures larger than memory', 3, f'{X} --height 65536 --width 65536', ['the pictures take', 'MiB|GiB', 'enable_vae_tiling|smaller']),
    ('more ranks than a machine carries', 3, f'{X} --num_gpus 100000', ['100000', 'at most']),
    ('more groups than a machine carries', 3, f'{X} --data_parallel_degree 9999', ['9999', 'at most']),
    ('an output folder that is a file', 2, f'{X} --output_dir plain/x', ['plain/x', '--output_dir']),
    ('a second YAML document', 2, f'{X} --config two.yaml', [r'two\.yaml:3', 'second document']),
    ('a link that leads to itself', 2, f'{X} --config loop.yaml', [r'loop\.yaml', 'symbolic links']),
    ('a folder behind such a link', 2, f'{X} --model_name looped', ['transformer', 'symbolic links']),
    ('parts of two models', 2, f'{X} --model_name mixed', ['AutoencoderTiny', 'vae', 'AutoencoderKL']),
    ('a value of another type, by its place', 2, f'{X} --model_name typed', [r'tokenizer_config\.json', r'bos_token\.content', 'string']),
    ('a hub at an address of another kind', 2, f'{X} --model_name org/absent --download', ['HF_ENDPOINT', 'https://', 'ftp://x'],
     {'HF_ENDPOINT': 'ftp://x'}),
    ('a password in the address of a hub', 2, f'{X} --model_name org/absent --download', [r'"\*\*\*@x"'], {'HF_ENDPOINT': 'ada:secret@x'}),
    ('a password in the name of a model', 2, f'{X} --model_name http://ada:secret@x/y', [r'http://\*\*\*@x/y']),
    ('a token that never ends', 2, f'{X} --model_name org/absent --download', ['/dev/zero', 'no plain file'], {'HF_TOKEN_PATH': '/dev/zero'}),
    ('offline', 2, f'{X} --model_name org/absent --download', ['HF_HUB_OFFLINE'], {'HF_HUB_OFFLINE': '1'}),
    ('rank 0 at an address of another machine', 2, X, [r'192\.0\.2\.77', 'not an address of this machine'],
     {'RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': '192.0.2.77', 'MASTER_PORT': '29500'}),
]


def write_inputs(folder):
    files = {
        'both.yaml': 'use_fp16: true\nuse_bf16: true\n',
        'half.yaml': 'use_fp16: true\n',
        'two.yaml': 'seed: 1\n---\nseed: 2\n',
        'plain': 'x',
        'rows.jsonl': '{"prompt": "good"}\n{"prompt": "x", "height": 100000}\n',
        'samplers.jsonl': '{"prompt": "good"}\n{"prompt": "x", "sampler": "ddim"}\n',
        'cached.jsonl': '{"prompt": "good", "cache_type": "first_block_cache"}\n{"prompt": "x", "cache_type": "pab"}\n',
        'cacheable.jsonl': '{"prompt": "good"}\n{"prompt": "x", "cache_type": "first_block_cache"}\n',
        'names.jsonl': '{"prompt": "good"}\n{"prompt": "x", "output_path": "../x"}\n',
        'wide.jsonl': '{"prompt": "a", "width": 16400, "height": 16}\n{"prompt": "b"}\n',
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    mini = ROOT / 'models/mini'
    for name in ('other', 'wrong', 'pickle', 'unshifted', 'even', 'mixed', 'looped', 'typed'):
        shutil.copytree(mini, folder / name, symlinks=False)
    for name, odd in (('unshifted', {'shift': 0, 'use_dynamic_shifting': False}),
                      ('even', {'base_image_seq_len': 256, 'max_image_seq_len': 256, 'use_dynamic_shifting': True})):
        scheduler = folder / name / 'scheduler/scheduler_config.json'
        scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | odd))
    index = folder / 'other/model_index.json'
    index.write_text(re.sub(r'"_class_name": *"\w+"', '"_class_name": "OtherPipeline"', index.read_text()))
    index = folder / 'mixed/model_index.json'
    index.write_text(index.read_text().replace('"AutoencoderKL"', '"AutoencoderTiny"'))
    (folder / 'loop.yaml').symlink_to('loop.yaml')
    shutil.rmtree(folder / 'looped/transformer')
    (folder / 'looped/transformer').symlink_to('transformer')
    named = folder / 'typed/tokenizer/tokenizer_config.json'
    named.write_text(json.dumps(json.loads(named.read_text()) | {'bos_token': {'content': 5}}))
    weights = folder / 'wrong/transformer/diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes().replace(b'"proj_out.weight"', b'"proj_out.weighs"'))
    weights = folder / 'pickle/transformer/diffusion_pytorch_model.safetensors'
    weights.rename(weights.with_name('pytorch_model.bin'))


def problems(row, folder):
    situation, code, flags, words, *variables = row
    environment = {k: v for k, v in os.environ.items() if not re.match(r'(DG|HF)_|RANK$|WORLD_SIZE$|MASTER_', k)}
    environment |= {'ATELIER_SHARE': str(ROOT), 'OMP_NUM_THREADS': '1', 'HF_HOME': str(folder / 'hf'), **(variables or [{}])[0]}
    output = ['--output_dir', 'out'] if '--output_dir' not in flags else []
    shutil.rmtree(folder / 'out', ignore_errors=True)
    run = subprocess.run([ATELIER, 't2i', *SMALL.split(), *flags.split(), *output], cwd=folder, env=environment,
                         capture_output=True, text=True, errors='replace', timeout=120)
    said = run.stdout + run.stderr
    found = [f'exit {run.returncode}, not {code}'] if run.returncode != code else []
    told = '\n'.join(line for line in said.splitlines() if re.match(r'error|warning| ', line))  # and what they list
    found += [f'nothing about "{word}"' for word in words if not re.search(word, told)]
    pictures = list((folder / 'out').rglob('*.png')) + list((folder / 'out').rglob('*.webp'))
    if code >= 2 and pictures:
        found.append('a picture was drawn')
    if code == 1 and len(pictures) != 1:
        found.append(f'{len(pictures)} pictures of the good rows, not 1')
    return [f'{situation}: {problem}' for problem in found] + ([f'  | {told}'] if found else [])


def main():
    if not os.access(ATELIER, os.X_OK):
        print(f'no program at {ATELIER}: build first')
        return 77
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_inputs(folder)
        for row in TABLE:
            failed += problems(row, folder)
    print('\n'.join(failed) if failed else f'passed: {len(TABLE)} refusals')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
