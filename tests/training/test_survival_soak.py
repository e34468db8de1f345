"""A run that is killed repeatedly ends like an uninterrupted one.

This takes minutes and is run by hand:

    python -m pytest -m soak tests/training/test_survival_soak.py -s
"""

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import pytest

from dmnet_jax.checkpoint import load_variables
from dmnet_jax.checkpoint.folder import list_steps, read_body
from tests.support.tiny_run import (
    RECIPE,
    RUN,
    start_script,
    train_arguments,
    write_videos,
)

pytestmark = pytest.mark.soak

# Two networks, two stages, dropout; 24 steps, each saved, and four evaluations.
SHORT = (
    RECIPE[: RECIPE.index("train=TrainConfig(")]
    + """train=TrainConfig(
            batch_size=2, log_every=1, checkpoint_every_steps=1,
            stages=(
                StageConfig("first", 2, train="single_frame"),
                StageConfig("second", 2, train="memory"),
            ),
        ),
    )
"""
)
KILLS, TERMS = 21, 3


def digest(run: Path) -> tuple[str, str]:
    """Returns the SHA-256 of all leaves of the final state, and of the records."""
    step = max(list_steps(run / "checkpoints"))
    load_variables(run, step)  # verifies the arrays against their digests
    leaves = read_body(run / "checkpoints", step)["leaves"]
    state = hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()
    records = hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()
    return state, records


def start(folder: Path, name: str) -> tuple:
    """Starts a training process and waits for the first line of its output."""
    arguments = train_arguments(folder, name)
    process = start_script(folder / "compiled", "train.py", *arguments, toy=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "starting" in first or "resuming at step" in first, first
    return process, first


def test_kills_at_random_moments(tmp_path):
    folder = tmp_path
    write_videos(folder / "videos", frames=12)
    (folder / "tiny.py").write_text(SHORT)
    for name in ("cold", "whole"):  # the second run uses the compilation cache
        process, _ = start(folder, name)
        started = time.monotonic()
        out, err = process.communicate()
        assert process.returncode == 0, err
        duration = time.monotonic() - started
    expected = digest(folder / "whole" / RUN)
    assert digest(folder / "cold" / RUN) == expected
    print(f"\nan uninterrupted run: {duration:.0f} s, state {expected[0]}")

    rng, killed, run = random.Random(0), {signal.SIGKILL: 0, signal.SIGTERM: 0}, 0
    waits = []
    while killed[signal.SIGKILL] < KILLS or killed[signal.SIGTERM] < TERMS:
        run, finished, story = run + 1, False, []
        while not finished:
            term = killed[signal.SIGTERM] < TERMS and run % 2 == 0
            number = signal.SIGTERM if term else signal.SIGKILL
            process, first = start(folder, f"run{run}")
            enough = len(story) >= 4 or killed[number] >= (TERMS if term else KILLS)
            if not enough:
                time.sleep(rng.uniform(0, duration))
                process.send_signal(number)
            sent = time.monotonic()
            _, err = process.communicate()
            finished = process.returncode == 0
            if not finished:
                code = 143 if term else -signal.SIGKILL
                assert process.returncode == code, err
                killed[number] += 1
                if term:
                    waits.append(time.monotonic() - sent)
                records = folder / f"run{run}" / RUN / "metrics.jsonl"
                step = records.read_text().count("loss") if records.exists() else 0
                story.append(f"{number.name} after the record of step {step}")
        assert digest(folder / f"run{run}" / RUN) == expected, story
        print(f"run {run}: the same after {', '.join(story) or 'nothing'}", flush=True)
    print(f"{killed}; SIGTERM to exit: {', '.join(f'{w:.1f} s' for w in waits)}")
