"""The table of what each part is worth is what the ablation's report says."""

import json
import re

ROW = re.compile(
    r"^\| ([^|]+) \| ([+-][\d.]+) % \(([+-][\d.]+) to ([+-][\d.]+)\) \| ([\d.]* ?M?) ?\|", re.MULTILINE
)


def test_table(repository) -> None:
    report = json.loads((repository / "docs/figures/ablation.json").read_text("utf-8"))
    expected = {
        r["variant"]: (
            *(f"{value:+.1f}" for value in (r["bd_rate"], min(r["bd_rates"]), max(r["bd_rates"]))),
            f"{r['parameters'] / 1e6:.2f} M" if "parameters" in r else "",
        )
        for r in report["variants"]
        if r["variant"] != "complete"
    }
    rows = ROW.findall((repository / "docs/image.md").read_text("utf-8"))
    assert {name: tuple(x.strip() for x in cells) for name, *cells in rows} == expected
