"""Records of validations as lines of JSON in the log folder of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning


def append_records(trainer: lightning.Trainer, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Prints records and adds a line for each to a file; the first device alone does, but all must call this.

    Args:
        trainer: Of the run.
        name: Of the file in the log folder, ``.jsonl``.
        records: What JSON can hold.
    """
    # Asking for log_dir makes the devices talk to each other, so all of them must.
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    if not trainer.is_global_zero or not records:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "a", encoding="utf-8") as file:
        for record in records:
            line = json.dumps(record)
            print(line, flush=True)
            file.write(line + "\n")
