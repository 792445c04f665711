"""Blanks comments and literals of C++ text, keeping every line break, so that checkers see only what they ask for."""
import re

_TOKEN = re.compile(
    r'''(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)
      | (?P<raw>R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<number>\b\d(?:'?[0-9a-zA-Z.])*)
      | (?P<char>'(?:\\.|[^'\\\n])+')''', re.S | re.X)


def _blank(text):
    return re.sub(r'[^\n]', ' ', text)


def without(text, comments=True, literals=False):
    """The text with comments and/or the insides of string and character literals turned into spaces."""
    def replace(match):
        kind = match.lastgroup if match.lastgroup != 'mark' else 'raw'
        if kind == 'comment':
            return _blank(match.group()) if comments else match.group()
        if kind == 'number' or not literals:
            return match.group()
        if kind == 'raw':
            return '"' + _blank(match.group()[1:-1]) + '"'
        return match.group()[0] + _blank(match.group()[1:-1]) + match.group()[-1]
    return _TOKEN.sub(replace, text)


def line_of(text, offset):
    return text.count('\n', 0, offset) + 1


def match_brace(code, start):
    """Where the brace closes that opens at start; the end of the code, if it does not."""
    depth = 0
    for brace in re.compile(r'[{}]').finditer(code, start):
        depth += 1 if brace.group() == '{' else -1
        if depth == 0:
            return brace.start()
    return len(code)
