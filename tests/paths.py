#!/usr/bin/env python3
"""No tracked binary file says where it was made: no path of a machine's folders stands in it.
Exit 0: none does; 77: there is no git here; else the files."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# At least two folders below one that people and build machines work in.
PLACE = re.compile(rb'/(?:home|root|work|mnt|media|Users|tmp|var|srv|data|workspace|content|kaggle)/[\w.-]{2,}/[\w./-]{2,}')


def places(data):
    """Those that a binary file names; text is read by people, and may speak of places."""
    return [match.decode() for match in PLACE.findall(data)] if b'\0' in data else []


def main():
    try:
        listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        print('this is no clone')
        return 77
    assert places(b'\0\x12/home/somebody/models/a') and not places(b'\0ab/c/dd')
    files = [ROOT / name for name in listed.decode().split('\0') if name]
    failed = [f'{file.relative_to(ROOT)}: {place}' for file in files if file.is_file() for place in places(file.read_bytes())]
    print('\n'.join(failed) if failed else f'passed: {len(files)} files name no place of a machine')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
