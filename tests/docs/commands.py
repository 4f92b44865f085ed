"""Finds the commands that the documentation tells its readers to run."""

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "console", "bash", "sh")
ASSIGNMENT = r"(?:[A-Z_]+=\S+ +)*"
STARTS = re.compile(rf"{ASSIGNMENT}(?:latentpress|python|make|pip|cat|dask)\b|[A-Z_]+=\S+$")
VERBS = "encode|decode|info|verify|eval|demo|view|train"
INLINE = re.compile(
    rf"`((?:latentpress (?:{VERBS})|python -m latentpress[\w.]+|python scripts/\w+\.py) [^`]+)`"
)
# A name and options alone, such as `latentpress encode --effort N`, are spoken of and not to be run.
NAMES_A_FILE = re.compile(r" (?:--data |--out )?(?:[\w-]+\.(?!py\b)\w+|FOLDER|TARGET)")


class Command(NamedTuple):
    """A command.

    Attributes:
        page: Path of the page from the root of the repository.
        text: On one line, without its comment.
    """

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands_of(page: str, text: str) -> list[Command]:
    r"""Commands of the blocks of a page, in order; then those between backticks that name a file.

    Raises:
        ValueError: A block is half commands and half something else.

    Example:
        >>> page = "```\nlatentpress info a.lpz  # here\nmake \\\n  demo\n```\n`latentpress info b.lpz`"
        >>> [command.text for command in commands_of("x.md", page)]
        ['latentpress info a.lpz', 'make demo', 'latentpress info b.lpz']
    """
    found = []
    for indent, language, block in FENCE.findall(text):
        if language not in SHELL:
            continue
        lines = [line.removeprefix(indent) for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
        lines = [re.sub(r"\s+#\s.*$", "", line).strip() for line in lines]
        lines = [line for line in lines if line]
        commands = [line for line in lines if STARTS.match(line)]
        if commands and len(commands) < len(lines):
            raise ValueError(f"{page}: no command: {next(line for line in lines if not STARTS.match(line))}")
        found += [Command(page, line) for line in commands]
    for inline in INLINE.findall(FENCE.sub("", text)):
        command = " ".join(inline.split())
        if NAMES_A_FILE.search(command.removeprefix("python -m ")):
            found.append(Command(page, command))
    return list(dict.fromkeys(found))


def all_commands(root: Path) -> dict[str, list[Command]]:
    """Every command of README, SECURITY, CONTRIBUTING and docs/, by page."""
    pages = [root / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
    pages += sorted((root / "docs").glob("*.md"))
    names = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in pages}
    found = {name: commands_of(name, text) for name, text in names.items()}
    return {name: commands for name, commands in found.items() if commands}
