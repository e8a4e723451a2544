"""A small reader of Windows batch files that finds what breaks them: encoding, line ends, blocks, lost paths."""

from __future__ import annotations

import re

VARIABLE = re.compile(r"%(\w+)(?::[^%]*)?%")
SET = re.compile(r"\bset\s+(?:/p\s+)?\"?(\w+)=", re.IGNORECASE)


def complaints(data: bytes) -> list[str]:
    """Everything wrong with a batch file, in words; empty if it is fine."""
    found = []
    if any(byte > 126 or (byte < 32 and byte not in b"\r\n") for byte in data):
        found.append("holds a byte that is not printable ASCII")
    if data.count(b"\n") != data.count(b"\r\n") or data.count(b"\r") != data.count(b"\r\n"):
        found.append("has a line end that is not CRLF")
    lines = data.decode("ascii", errors="replace").replace("\r\n", "\n").split("\n")
    if lines[0].lower() != "@echo off":
        found.append("does not begin with @echo off")
    if not any(line.lower().startswith("setlocal") for line in lines[:5]):
        found.append("changes its caller's variables: no setlocal")
    return found + block_complaints(lines) + label_complaints(lines) + path_complaints(lines)


def block_complaints(lines: list[str]) -> list[str]:
    """cmd reads a parenthesised block whole, variables included, so one set inside it is read with its old value."""
    found, depth, set_inside = [], 0, set()
    for number, line in enumerate(lines, 1):
        if is_comment(line):
            continue
        bare = re.sub(r'"[^"]*"', lambda text: text[0] if "%" in text[0] else '""', line)
        if depth:
            late = {name.upper() for name in VARIABLE.findall(line)} & set_inside
            found += [f"line {number}: a block reads {name}, which it sets itself" for name in sorted(late)]
            set_inside |= {name.upper() for name in SET.findall(line)}
        opens = bool(re.search(r"\(\s*$", bare))
        closes = bool(re.match(r"\s*\)", bare))
        depth += opens - closes
        if depth <= 0:
            depth, set_inside = 0, set()
        elif opens:
            set_inside |= {name.upper() for name in SET.findall(line)}
    return found


def label_complaints(lines: list[str]) -> list[str]:
    """Every goto and call :label has its label."""
    labels = {line[1:].split()[0].lower() for line in lines if re.match(r":\w", line)}
    code = [line for line in lines if not is_comment(line)]
    wanted = {name.lower() for line in code for name in re.findall(r"\b(?:goto :?|call :)(\w+)", line)}
    return [f"label {name} is missing" for name in sorted(wanted - labels - {"eof"})]


def path_complaints(lines: list[str]) -> list[str]:
    """A path in a variable is quoted wherever it is used: folders have blanks, ampersands and brackets."""
    found = []
    for number, line in enumerate(lines, 1):
        if is_comment(line):
            continue
        outside = re.sub(r'"[^"]*"', "", line)
        for name in re.findall(r"%~dp0|%CD%|%\w*(?:FOLDER|ROOT|PATH|TABLE|TOOLS|PART)%", outside, re.IGNORECASE):
            found.append(f"line {number}: {name} is not quoted")
    return found


def is_comment(line: str) -> bool:
    return line.lower().startswith(("rem ", "::"))
