"""A script of Windows as a shell's: cmd's (.bat, .cmd) and PowerShell's (.ps1). Nothing is run."""

from __future__ import annotations

import re

ENDINGS = (".bat", ".cmd", ".ps1")
AS_A_SHELL = (
    (re.compile(r"[`^][ \t]*\r?\n"), " "),  # a line that goes on
    (re.compile(r"(?im)^\s*(@?rem\b|::).*$"), ""),  # remarks
    (re.compile(r"\\"), "/"),  # parts of paths
    (re.compile(r"(?im)^\s*@?set\s+\"?(\w+)=([^\"\r\n]*)\"?\s*$"), r'\1="\2"'),
    (re.compile(r"(?im)^\s*\$(?:env:)?(\w+)\s*=\s*"), r"\1="),
    (re.compile(r"(?i)\$env:(\w+)"), r"${\1}"),
    (re.compile(r"%(\w+)%"), r"${\1}"),
)


def script(text: str) -> str:
    """The text with a shell's words for what Windows' say."""
    for pattern, ours in AS_A_SHELL:
        text = pattern.sub(ours, text)
    return text
