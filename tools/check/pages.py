"""Code that a page shows is code that CI builds: blocks under a marker are compared with the file they name.

    <!-- whole file: PATH -->   the block is the file, word for word
    <!-- part of: PATH -->      the block's lines are in the file, one after another

Exits 1 and names each block that differs, each marker without a block and each C++ block without a marker.
"""

import pathlib
import re
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARKER = re.compile(r"<!-- (whole file|part of): (\S+) -->\s*$")
FENCE = re.compile(r"^\s*```(\w*)\s*$")


def blocks(text: str):
    """(line number, language, marker match or None, code) of every fenced block; a marker is the line above."""
    lines = text.splitlines()
    start = None
    for i, line in enumerate(lines):
        fence = FENCE.match(line)
        if not fence:
            continue
        if start is None:
            start = i, fence[1], MARKER.search(lines[i - 1]) if i else None
        else:
            yield start[0] + 1, *start[1:], textwrap.dedent("\n".join(lines[start[0] + 1:i]) + "\n")
            start = None


def wrong(marker, code: str) -> str:
    file = ROOT / marker[2]
    if not file.exists():
        return f"{marker[2]} does not exist"
    text = file.read_text()
    if marker[1] == "whole file":
        return "" if text == code else f"differs from {marker[2]}"
    return "" if f"\n{code}" in f"\n{text}" else f"is not in {marker[2]}"


def main() -> int:
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    found, bad = 0, []
    for page in pages:
        text = (ROOT / page).read_text()
        markers = sum(1 for line in text.splitlines() if MARKER.search(line))
        for line, language, marker, code in blocks(text):
            if marker:
                markers -= 1
                found += 1
                if problem := wrong(marker, code):
                    bad.append(f"{page}:{line}: the block {problem}")
            elif language == "cpp":
                bad.append(f"{page}:{line}: C++ that nothing builds: say with a marker which file it is from")
        if markers:
            bad.append(f"{page}: {markers} markers are not right above a block")
    print("\n".join(bad) or f"pages: {found} blocks are as in the files")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
