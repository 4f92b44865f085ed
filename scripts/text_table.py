"""Plain tables for stdout: aligned for a reader, and the same whether or not it is a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Aligns columns.

    Args:
        head: Column titles.
        rows: Cells, as many in each row as there are titles; an empty row becomes an empty line.
        left: Columns that are aligned to the left; all others hold numbers.

    Returns:
        Lines without an end of line after the last.

    Example:
        >>> print(format_table(["codec", "bytes"], [["image", "983"], ["jpeg", "1024"]]))
        codec  bytes
        -----  -----
        image    983
        jpeg    1024
    """
    full = [row for row in rows if row]
    widths = [max(len(row[k]) for row in (head, *full)) for k in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    ruler = ["-" * width for width in widths]
    return "\n".join(line(row) if row else "" for row in (head, ruler, *rows))
