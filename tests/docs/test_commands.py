"""Every command of the documentation is run, with small weights and small files in a folder of its own.

Training commands make two steps. The few that cannot run in a test are listed with the reason, and their
arguments are parsed.
"""

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from latentpress.scripts import cli

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"


def loaded(path: str) -> ModuleType:
    """A module of the tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


commands = loaded("docs/commands.py")
PAGES = commands.all_commands(ROOT)

# Commands that are not run, by how they begin, and why. Arguments of those of this library are parsed.
NOT_RUN = {
    "make ": "installs packages, or runs these very tests; that the target exists is tested",
    "pip install": "installs packages; that the extra exists is tested",
    "dask ": "starts servers; tests/scripts/test_batch.py runs a cluster",
    "latentpress encode photos --out packed --scheduler": "needs the servers above",
    "python -m latentpress.scripts.benchmark": "needs CompressAI; tests/scripts/test_benchmark.py",
    "python -m latentpress.scripts.compressai_copy": "needs CompressAI; test_compressai_copy.py",
    "python -m latentpress.scripts.check_channel_order --copy": "needs what that makes",
    "python -m latentpress.scripts.check_batch": "judges speed; tests/scripts/test_batch.py",
    "python -m latentpress.scripts.check_large_picture": "hours; tests/scripts/test_check_large_picture.py",
    "python -m latentpress.scripts.check_kills": "takes long; tests/scripts/test_check_kills.py",
    "python -m latentpress.scripts.check_large_field": "judges memory; test_check_large_field.py",
    "python -m latentpress.scripts.fuzz": "needs atheris; tests/scripts/test_fuzz.py runs it where it is",
    "python -m latentpress.scripts.documentation_figures": "rewrites the README; tests/docs/test_site.py",
    "python -m latentpress.scripts.shape_acceptance": "takes an hour; test_shape_acceptance.py",
    "python -m latentpress.scripts.field_scores": "needs what the next makes; test_field_scores.py",
    "python -m latentpress.scripts.field_small_scales": "needs flows; test_field_small_scales.py",
    "python -m latentpress.train.fit_side_information --weights assets/weights/image-max": "needs weights of "
    "both codecs with the same transforms; test_fit_side_information.py",
    "python -m latentpress.scripts.spread_evaluation": "needs GPUs; tests/scripts/test_spread_evaluation.py",
    "python -m latentpress.scripts.make_turbulence": "simulates; tests/train/data/test_turbulence.py",
}

# What readers put their own names for.
PLACEHOLDERS = {
    "PHOTOS": "photos",
    "KODAK": "kodak",
    "FOLDER": "photos",
    "DIR": "out",
    "FILE": "runs/image/checkpoints/last.ckpt",
    "TARGET": "container",
    "STREAMS": "streams",
    **{f"FIELD{ratio}.ckpt": f"runs/field-{ratio}/checkpoints/last.ckpt" for ratio in (8, 64, 512)},
    "CRITIC.ckpt": "runs/field-critic/checkpoints/last.ckpt",
    # The page says "likewise" of the other two.
    **{f"REAL{ratio}.ckpt": "runs/field-8-realistic/checkpoints/last.ckpt" for ratio in (8, 64, 512)},
    **{f"RUN{stage}": f"runs/index-{stage}" for stage in (1, 2, 3, 4)},
}

# Changes that make a command quick or independent of the machine: what it contains, and what to append, where
# the last of several equal options counts.
SMALLER = {
    "--device cuda": "--device cpu",
    "--jobs 4": "--jobs 1",
    "latentpress eval --codec image": "--qualities 20,80 --limit 1",
    "latentpress eval --codec assets": "--qualities 20,80 --limit 1",
    "latentpress eval --codec field": "--ratios 20",
    "latentpress demo": "--qualities 40",
    "latentpress view": "--no-browser --port 0",
    "latentpress encode model.glb": "--bytes 2000 --effort 0",
    "--effort 5": "--effort 1",
    "scripts.check_exactness": "--weights image --jobs 1",
    "scripts.check_channel_order": "--pictures 1 --bar -1 --qualities 50",
    "scripts.ablation ": "--steps 2 --size tiny --device cpu --repeats 1 --batch-size 2 --crop-size 64",
    "scripts.low_rate_comparison": "--rates 0.2 --limit 1 --sheets kodim05",
    "scripts.shape_comparison": "--bytes 2000 --effort 0",
    "scripts.coloured_shape_comparison": "--bytes 2000",
    "scripts.shape_ratios": "--bytes 1000",
    "train.control_shape": "--bytes 2000",
    "train.fit_field_gain": "--small",
    "train.fit_tables": "--limit 2 --qualities 50 --prior-weight 1",
    "train.fit_side_information": "--steps 2 --channels 8",
    "train.export_index": "--most 2",
    "train.index_residual": "--codes 8 --most 2",
    "train.index_texture": "--most 2",
    "train.index_lattice": "--most 2",
    "scripts.index_lattice": "--rates 0.2 --limit 1",
}

# What Lightning and jsonargparse say about themselves, and what is a matter of taste in a test.
pytestmark = [pytest.mark.filterwarnings(line) for line in loaded("train/conftest.py").LIGHTNING_WARNINGS]
pytestmark += [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning"),
]


def training_flags(config: str, asked: list[str]) -> list[str]:
    """What makes an experiment small: the flags with which the tests of training run it."""
    family, stage = Path(config).parts[1], Path(config).stem
    place = Path(option_of(asked, "--trainer.default_root_dir") or f"runs/{stage}")
    if family == "image":
        small = loaded("train/test_cli.py").flags(Path(config), Path("photos"), place, max_steps=2)
    elif family == "index":
        small = loaded("train/test_index_stages.py").arguments(stage, Path("photos"), place, None)
    elif family == "field":
        small = loaded("train/test_field_training.py").flags(stage, place)
        if stage.endswith("realistic"):
            small += ["--model.init_args.discriminator_channels=2", "--model.init_args.crop_size=32"]
            small.append("--trainer.max_steps=4")
    else:
        shapes = loaded("train/test_shape_stages.py")
        shapes.collection(Path("runs/shape/meshes.npz"))
        small = shapes.arguments(stage, Path("runs/shape"))
        if stage == "bridge":
            small.append("--model.init_args.generated=2")
    return [flag for flag in small if flag != "fit" and not flag.startswith("--config") and flag[:2] == "--"]


def option_of(words: list[str], name: str) -> str | None:
    for number, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name:
            return words[number + 1]
    return None


def prepared(text: str, variables: dict[str, str]) -> list[str]:
    """The words of a command with placeholders filled in, made small."""
    for name, value in variables.items():
        text = text.replace(f"${name}", value)
    for name, value in PLACEHOLDERS.items():
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", value, text)
    if "train.control_shape" in text:
        for stage, option in (("generator", "--autoencoder"), ("prior", "--prior")):
            text = text.replace(f"{option} CKPT", f"{option} runs/shape/{stage}/checkpoints/last.ckpt")
    words = shlex.split(text)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    for part, extra in SMALLER.items():
        if part in text:
            words += shlex.split(extra)
    if words[:3] == ["latentpress", "train", "fit"]:
        config = option_of(words, "--config")
        if config == "configs/image/image-max.yaml":
            write_matching_weights(config, option_of(words, "--model.init_args.init_from"))
        words += training_flags(config, words)
    return words


def write_matching_weights(config: str, path: str) -> None:
    """Weights of the default codec with the widths that the small experiment has, to start from."""
    from latentpress.models.image.network import build_image_network
    from latentpress.train.export import export_image

    content = yaml.safe_load(Path(config).read_text())["model"]["init_args"]["network"]["init_args"]
    flags = loaded("train/test_cli.py").shrunk(content, "")
    small = {flag.rpartition(".")[2].partition("=")[0]: int(flag.partition("=")[2]) for flag in flags}
    names = (
        "channels",
        "deep_channels",
        "latent_channels",
        "depth",
        "deep_depth",
        "hyper_channels",
        "hyper_width",
    )
    sizes = {name: small.get(name, content.get(name)) for name in names}
    sizes |= {"context_channels": 8, "context_depth": 1}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    made = export_image(sizes, build_image_network(**sizes).state_dict())
    Path(path).write_bytes(made.to_bytes())


def run(words: list[str], monkeypatch) -> int:
    """Runs a command in this process, where nothing has to be loaded again."""
    if words[0] == "latentpress":
        if words[1] == "view":
            from latentpress.scripts.view.server import ViewServer

            def closed(self: ViewServer) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(ViewServer, "wait", closed)
        return cli.main(words[1:])
    module, arguments = words[2], words[3:]
    code = importlib.import_module(module).main(arguments)
    return code or 0


class _ParsedError(Exception):
    """Arguments were understood."""


def parse_only(words: list[str], monkeypatch) -> None:
    """Runs a command of this library up to where its arguments are understood."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments: object, **options: object) -> None:
        parse(self, *arguments, **options)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(_ParsedError):
        run(words, monkeypatch)


def test_there_are_commands():
    assert {"README.md", "docs/files.md", "docs/image.md", "docs/training.md", "docs/shape.md"} <= set(PAGES)
    texts = [command.text for found in PAGES.values() for command in found]
    assert len(texts) > 40
    assert "latentpress decode photo.lpz -o restored.png" in texts
    for start in NOT_RUN:
        assert NOT_RUN[start]


@pytest.mark.parametrize("page", PAGES)
def test_commands(page, workshop, settings_of_the_process, monkeypatch, capsys):
    variables: dict[str, str] = {}
    for command in PAGES[page]:
        if found := re.fullmatch(r"([A-Z_]+)=(\S+)", command.text):
            variables[found[1]] = found[2]
            continue
        reason = next((why for start, why in NOT_RUN.items() if command.text.startswith(start)), None)
        with monkeypatch.context() as patches:
            if reason is not None:
                if command.text.startswith(("latentpress", "python")):
                    parse_only(prepared(command.text, variables), patches)
                continue
            forget_outputs(command.text)
            if "|" in command.text:
                code = run_in_shell(command.text)
            else:
                code = run(prepared(command.text, variables), patches)
        assert code == 0, f"{command}\n{capsys.readouterr().err}"


def forget_outputs(text: str) -> None:
    """Readers try one command or another; here all come one after the other."""
    for name in ("photo.lpz", "model.lpz", "flow.lpz"):
        if text.startswith("latentpress encode") or "> photo.lpz" in text:
            Path(name).unlink(missing_ok=True)
    if found := re.search(r"decode \S+ (?:--repair )?-o (\S+)", text):
        Path(found[1]).unlink(missing_ok=True)


def run_in_shell(text: str) -> int:
    program = f"{shlex.quote(sys.executable)} -m latentpress.scripts.cli"
    text = text.replace("latentpress ", f"{program} ").replace("--bpp", "--codec tiny.safetensors --bpp")
    Path("tiny.safetensors").write_bytes((GOLDEN / "image_tiny.safetensors").read_bytes())
    done = subprocess.run(text, shell=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return done.returncode


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, found in PAGES.items():
        for command in found:
            if command.text.startswith("make "):
                assert set(command.text.split()[1:]) <= targets, page


def test_extras_exist():
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^([a-z]+) = \[", text.partition("[project.scripts]")[0], re.MULTILINE))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    asked = {
        extra
        for path in pages
        for group in re.findall(r"pip install '(?:latentpress|\.)\[([a-z,]+)\]'", path.read_text("utf-8"))
        for extra in group.split(",")
    }
    assert {"demo", "view", "onnx"} <= asked <= extras
