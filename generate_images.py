#!/usr/bin/env python3
"""The SDXL script of this name: `atelier sdxl` in the mode that the name stands for, under that name for ps and pgrep."""
import os
import sys

MODES = {'generate_images_multi_gpu.py': 'multi', 'generate_images_dataparallel.py': 'dataparallel', 'generate_images.py': 'single'}


def main():
    name = os.path.basename(__file__)
    program = os.environ.get('ATELIER') or os.path.join(os.path.dirname(os.path.realpath(__file__)), 'atelier')
    os.environ['ATELIER_TITLE'] = name  # for the starter, which is a script itself
    try:
        os.execv(program, [name, 'sdxl', '--mode', MODES[name]] + sys.argv[1:])
    except OSError as error:
        sys.exit(f'error: cannot run {program}: {error.strerror}')


if __name__ == '__main__':
    main()
