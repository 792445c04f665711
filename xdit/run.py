"""`python -m xdit.run ...`: hands its arguments to `atelier run` as they stand. The program is $ATELIER or the checkout's ./atelier."""
import os
import pathlib
import sys


def command(arguments):
    program = os.environ.get('ATELIER') or str(pathlib.Path(__file__).resolve().parent.parent / 'atelier')
    return [program, 'run', *arguments]


def main():
    words = command(sys.argv[1:])
    try:
        os.execv(words[0], words)
    except OSError as error:
        sys.exit(f'error: cannot run {words[0]}: {error.strerror}')


if __name__ == '__main__':
    main()
