"""Command lines: overrides, recipes, and one-line errors."""

import dataclasses
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmnet_jax.cli.arguments import parse_command, parse_config
from dmnet_jax.config import (
    Config,
    ModelConfig,
    OptimConfig,
    from_json,
    load_config,
    to_json,
)
from dmnet_jax.config.serialization import ConfigError

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of a program.

    Attributes:
        steps: Number of steps.
        resume: Resume the run.
    """

    steps: int | None = None
    resume: bool = False


def parse(*arguments, **keywords):
    return parse_config(arguments, prog="train.py", **keywords)


def recipe(folder, body):
    file = folder / "recipe.py"
    file.write_text(body)
    return str(file)


GOOD = """
from dmnet_jax.config import Config, ModelConfig
def get_config():
    return Config(name="mine", model=ModelConfig(local_size=9))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--optim.lr", "3e-4", "--model.local-size", "6"],
        ["--optim.lr=3e-4", "--model.local_size=6"],
        ["--model.local_size", "6", "--optim.lr", "0.0003"],
    ],
)
def test_forms_of_an_override(arguments):
    config = parse(*arguments)
    assert config == Config(optim=OptimConfig(lr=3e-4), model=ModelConfig(local_size=6))


def test_tuples_flags_and_none():
    config = parse(
        *"--data.size 256 320 --data.train a b --optim.drop-epochs --model.no-"
        "global-memory --model.min-confidence -0.1 --optim.clip-norm None".split()
    )
    assert config.data.size == (256, 320)
    assert config.data.train == ("a", "b")
    assert config.optim.drop_epochs == ()
    assert config.model.global_memory is False
    assert config.model.min_confidence == -0.1
    assert config.optim.clip_norm is None


@pytest.mark.parametrize("size", ["256x320", "256 320"])
def test_both_spellings_of_a_size(size):
    words = size.split()
    assert parse("--data.size", *words, "--data.fold", "1").data.size == (256, 320)
    synthetic = parse("--data.synthetic.size", *words).data.synthetic
    assert synthetic.size == (256, 320)
    assert parse("--data.size=256x320").data.size == (256, 320)


def test_no_flags_give_the_default():
    assert parse() == Config()
    mine = Config(name="mine")
    assert parse(default=mine) == mine


def test_recipe_then_overrides(tmp_path):
    path = recipe(tmp_path, GOOD)
    assert parse("--config", path).model.local_size == 9
    config = parse("--model.num-reads", "2", f"--config={path}")
    assert (config.name, config.model.local_size, config.model.num_reads) == (
        "mine",
        9,
        2,
    )
    assert parse("--config", path, "--model.local-size", "3").model.local_size == 3


def test_saved_json_is_a_recipe(tmp_path):
    config = Config(name="saved", optim=OptimConfig(lr=0.5))
    file = tmp_path / "config.json"
    file.write_text(to_json(config))
    assert load_config(file) == config
    assert parse("--config", str(file)) == config


def test_flags_of_a_program():
    arguments = ["--steps", "3", "--resume", "--optim.lr", "1"]
    config, flags = parse_command(arguments, Flags(), prog="train.py")
    assert flags == Flags(3, True)
    assert config.optim.lr == 1.0


def test_print_config(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--print-config", "--model.local-size", "6")
    assert stop.value.code == 0
    assert from_json(capsys.readouterr().out).model.local_size == 6


def test_help_names_fields_and_recipe_values(tmp_path, capsys):
    path = recipe(tmp_path, GOOD)
    with pytest.raises(SystemExit) as stop:
        parse_command(["--config", path, "--help"], Flags(), prog="train.py")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("--model.local-size", "(tau)", "(default: 9)", "--steps", "--config"):
        assert part in text


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ("--model.local-sise 6", ["--model.local-sise", "did you mean", "local-size"]),
        ("--resum", ["--resum", "did you mean --resume"]),
        ("--zzz", ["--zzz"]),
        ("stray", ["stray"]),
        ("--model.local-size 6.5", ["--model.local-size", "'6.5'"]),
        ("--steps x", ["--steps", "'x'"]),
        ("--model.local x", ["'x'", "--model.local", "'ela'"]),
        ("--data.size 32", ["--data.size: 32: use HEIGHTxWIDTH, such as 512x640"]),
        ("--data.size 32x", ["--data.size: 32x: use HEIGHTxWIDTH"]),
        ("--data.size 33 32", ["data.size is (33, 32)", "multiples of 32"]),
        ("--optim.lr nan", ["optim.lr is nan"]),
        ("--config", ["--config"]),
        ("--config no.py", ["no.py: no such config file"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_are_one_line_and_status_2(
    arguments, parts, encoding, capsys, monkeypatch
):
    # The parser formats its messages differently if the terminal is not UTF-8.
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    with pytest.raises(SystemExit) as stop:
        parse_command(arguments.split(), Flags(), prog="train.py")
    assert stop.value.code == 2
    output.flush()
    assert output.buffer.getvalue() == b""
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.isascii() and "----" not in error
    for part in parts:
        assert part in error


@pytest.mark.parametrize(
    "body, message",
    [
        ("x = 1", r"has no get_config\(\)"),
        ("get_config = 3", r"has no get_config\(\)"),
        ("x = (", "cannot be run: line 1: "),
        ("import no_such_module_xyz", "cannot be run: line 1: ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0", "failed: line 2: ZeroDivisionError"),
        ("def get_config():\n    raise SystemExit(3)", "failed: line 2: SystemExit: 3"),
        ("def get_config():\n    return {}", "returned dict, not a Config"),
    ],
)
def test_the_error_for_an_invalid_recipe_names_file_and_line(tmp_path, body, message):
    path = recipe(tmp_path, body)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", ["{", '{"nmae": 1}', "\udcff"])
def test_the_error_for_an_invalid_json_recipe_names_the_file(tmp_path, body):
    file = tmp_path / "config.json"
    file.write_bytes(body.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="config.json: "):
        load_config(file)


def test_a_recipe_with_an_invalid_value_is_an_error(tmp_path, capsys):
    path = recipe(tmp_path, GOOD.replace("local_size=9", "num_reads='4'"))
    with pytest.raises(SystemExit) as stop:
        parse("--config", path)
    assert stop.value.code == 2
    assert "error: model.num_reads is '4'" in capsys.readouterr().err


def test_help_is_fast_and_does_not_import_jax():
    code = (
        "import sys\n"
        "from dmnet_jax.cli.arguments import parse_config\n"
        "try: parse_config(['--help'], prog='train.py')\n"
        "finally: print('jax' in sys.modules, file=sys.stderr)\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    elapsed = time.monotonic() - start
    assert done.returncode == 0
    assert "--optim.lr" in done.stdout
    assert done.stderr.strip() == "False"
    # 0.3 s on an idle core; the bound only has to detect an import of JAX.
    assert elapsed < 10


def test_commands_do_not_import_jax_for_help():
    """Without JAX, --help and command-line errors take one second instead of four."""
    commands = [
        *("dmnet_jax.cli.train", "dmnet_jax.cli.evaluate", "dmnet_jax.tables.__main__"),
        *(f"dmnet_jax.{c}.__main__" for c in ("export", "live", "predict", "report")),
        *("dmnet_jax.experiments.__main__", "dmnet_jax.weights.__main__"),
        *("dmnet_jax.benchmark.__main__", "dmnet_jax.complexity", "dmnet_jax.doctor"),
        *("data_pipelines.prepare.__main__", "data_pipelines.verify"),
        *("data_pipelines.benchmark", "data_pipelines.synthetic.__main__"),
    ]
    code = (
        f"import sys, {', '.join(commands)}\n"
        "print({'jax', 'flax', 'orbax', 'tensorflow_datasets'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
