"""Checkpoints after bit flips, partial deletions, full disks and SIGKILL."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dmnet_jax.checkpoint import Checkpoints, load_variables, read_metadata
from dmnet_jax.checkpoint.folder import CheckpointError, seal

ROOT = Path(__file__).parents[2]

# Orbax may still be reading damaged files when a test ends; ignore those errors.
_LATE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(seed=0):
    """Returns arrays of noise that are large enough to be stored as data files.

    The storage has its own checksum for small arrays, but not for data files.
    """
    rng = np.random.default_rng(seed)
    return {
        "variables": {
            "a": jnp.asarray(rng.normal(size=(64, 64)), jnp.float32),
            "b": jnp.asarray(rng.normal(size=3000), jnp.bfloat16),
        },
        "step": seed,
    }


def same(one, other):
    arrays = [[np.asarray(t["variables"][n]) for n in "ab"] for t in (one, other)]
    return all(x.tobytes() == y.tobytes() for x, y in zip(*arrays, strict=True))


def saved(run, *steps, metrics=None):
    """Saves a run with the given steps; step n contains `make_state(n)`."""
    with Checkpoints(run) as checkpoints:
        for i, step in enumerate(steps):
            metric = metrics[i] if metrics else None
            meta = {"step": step}
            checkpoints.save(step, make_state(step), metadata=meta, metric=metric)
    return run / "checkpoints"


def restored(run, step="newest", target=None):
    with Checkpoints(run) as checkpoints:
        return checkpoints.restore(target or make_state(99), step=step)


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@_LATE
@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_no_damaged_file_is_used(tmp_path, harm, caplog):
    """Damages each file in turn; restoring gives true values or the older step."""
    original = tmp_path / "original"
    files = files_of(saved(original, 1, 2) / "2")
    fell_back = 0
    for i, file in enumerate(files):
        run = tmp_path / f"{i}"
        shutil.copytree(original, run)
        harm(run / file.relative_to(original))
        caplog.clear()
        step, state, metadata, _ = restored(run)
        assert metadata == {"step": step}
        assert same(state, make_state(step)) and state["step"] == step, file.name
        if step == 1:
            fell_back += 1
            assert "damaged" in caplog.text and "step 2" in caplog.text
            # The damaged step was moved away, so training can save the step again.
            saved(run, 2)
            assert restored(run).step == 2
            assert (run / "checkpoints" / "damaged" / "2").is_dir()
    assert fell_back >= 3


def test_random_edits_of_metadata_raise_checkpoint_errors_only(tmp_path):
    """The digest is recomputed, as anyone with write access could do."""
    rng = np.random.default_rng(0)
    original = json.loads((saved(tmp_path, 1) / "1/meta/metadata").read_text())["body"]
    path = tmp_path / "checkpoints/1/meta/metadata"
    odd = [None, -1, 2**70, 1.5, "", "x", [], {}, [[]], True, float("nan"), [10**13]]
    rejected = 0
    for _ in range(300):
        body = json.loads(json.dumps(original))
        node, key = body, ""
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = keys[rng.integers(len(keys))]
            if not isinstance(node[key], dict | list) or rng.random() < 0.25:
                break
            node = node[key]
        if not node:
            continue
        if rng.random() < 0.3:
            del node[key]
        else:
            node[key] = odd[rng.integers(len(odd))]
        path.write_text(json.dumps(seal(body)))
        for read in (read_metadata, load_variables):
            try:
                assert isinstance(read(tmp_path), dict | tuple)
            except CheckpointError as error:
                rejected += 1
                assert str(tmp_path) in str(error) and "\n" not in str(error)
    assert rejected > 200


@_LATE
def test_flipped_bits_anywhere_are_detected(tmp_path):
    """Half of the bits are in data files, for which the storage has no checksum."""
    folder = saved(tmp_path, 1, 2)
    files = [f for f in files_of(folder / "2") if f.stat().st_size]
    data = [f for f in files if f.stat().st_size > 2000 and f.parent.name == "d"]
    assert data
    rng, fell_back = np.random.default_rng(0), 0
    for i in range(60):
        choices = data if i % 2 else files
        file = choices[rng.integers(len(choices))]
        original = file.read_bytes()
        damaged = bytearray(original)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        variables, metadata = load_variables(tmp_path, "newest")
        fell_back += metadata["step"] == 1
        assert same({"variables": variables}, make_state(metadata["step"]))
        file.write_bytes(original)
    assert fell_back >= 25
    assert load_variables(tmp_path, "newest")[1] == {"step": 2}


@pytest.mark.parametrize(
    "old, new", [('"metric": 0.1', '"metric": 0.9'), ('"note": 7', '"note": 8')]
)
def test_edited_metadata_is_detected(tmp_path, old, new):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), metadata={"note": 1}, metric=0.5)
        checkpoints.save(2, make_state(2), metadata={"note": 7}, metric=0.1)
    file = tmp_path / "checkpoints" / "2" / "meta" / "metadata"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    for which in ("newest", "best"):
        assert read_metadata(tmp_path, which) == {"note": 1}
        assert load_variables(tmp_path, which)[1] == {"note": 1}


@_LATE
def test_a_corrupt_write_is_an_error_and_is_not_published(tmp_path, monkeypatch):
    """A step is read back before it is published and older steps are deleted."""
    folder, write = saved(tmp_path, 1), ocp.Checkpointer.save

    def lossy(self, directory, *arguments, **keywords):
        write(self, directory, *arguments, **keywords)
        for file in files_of(Path(directory)):
            if file.parent.name == "d":
                truncate(file)

    monkeypatch.setattr(ocp.Checkpointer, "save", lossy)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, make_state(2), metadata={})
    with pytest.raises(CheckpointError, match="2 was not saved .*1 is intact"):
        checkpoints.close()
    assert os.listdir(folder) == ["1"]


@_LATE
@pytest.mark.parametrize("lost", ["state", "meta", "state/d", "*"])
def test_partially_deleted_steps_are_skipped(tmp_path, lost, caplog):
    folder = saved(tmp_path, 1, 2, metrics=[0.1, 0.9])
    for path in (folder / "2").glob(lost):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert load_variables(tmp_path, "best")[1] == {"step": 1}
    assert "step 2 is damaged and not used" in caplog.text
    assert restored(tmp_path).step == 1
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]


@_LATE
def test_steps_are_moved_before_they_are_deleted(tmp_path, monkeypatch):
    """A kill during a deletion must not leave a partial step in place."""
    deleted, rmtree = [], shutil.rmtree

    def watched(path, **options):
        deleted.append(Path(path))
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    folder = saved(tmp_path, 1, 2, 3, 4)
    assert sorted(os.listdir(folder)) == ["3", "4"]
    assert folder / "trash" in deleted
    assert not {folder / str(step) for step in range(5)} & {*deleted}


def test_opening_sets_unreadable_steps_aside(tmp_path):
    """Otherwise, an old step would stay forever, and a newer one would block saving."""
    folder = saved(tmp_path, 1, 2)
    (folder / "1" / "meta" / "metadata").write_bytes(b"{")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2]
    assert sorted(os.listdir(folder)) == ["2", "damaged"]
    assert os.listdir(folder / "damaged") == ["1"]


def test_no_intact_step_is_left(tmp_path):
    folder = saved(tmp_path, 1, 2)
    for step in ("1", "2"):
        shutil.rmtree(folder / step / "state")
    with pytest.raises(CheckpointError, match="no intact checkpoint .*step 2.*step 1"):
        restored(tmp_path)
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        restored(tmp_path, 1)
    assert (folder / "1").is_dir() and (folder / "2").is_dir()


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    folder = saved(tmp_path, 1)
    (folder / "incoming" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (folder / "trash" / "0" / "state").mkdir(parents=True)
    (folder / "07").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert sorted(os.listdir(folder)) == ["07", "1"]


def test_full_disk_is_an_error_and_the_last_step_stays_intact(tmp_path, caplog):
    """A file-size limit makes the real writes fail, as a full disk does."""
    folder = saved(tmp_path, 1)
    big = {"w": jnp.asarray(np.random.default_rng(0).normal(size=100_000))}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        checkpoints = Checkpoints(tmp_path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        checkpoints.save(2, big, metadata={})
        with pytest.raises(CheckpointError, match="2 was not saved .*1 is intact"):
            checkpoints.wait()
        assert os.listdir(folder) == ["1"]
        assert "SignalingThread" not in caplog.text  # Orbax's hundreds of lines
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert checkpoints.restore(make_state()).step == 1
        checkpoints.save(2, big, metadata={})
        checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert restored(tmp_path, target=big).step == 2


def test_no_space_left_is_reported(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    checkpoints.save(2, make_state(), metadata={})
    with pytest.raises(CheckpointError, match="No space left .*no step is saved"):
        checkpoints.close()


def test_free_space_is_checked_before_writing(tmp_path, monkeypatch):
    folder = saved(tmp_path, 1)
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(ocp.Checkpointer, "save", lambda *_, **__: pytest.fail("began"))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, make_state(), metadata={})
    with pytest.raises(CheckpointError, match="No space left .*1 is intact"):
        checkpoints.close()
    assert os.listdir(folder) == ["1"]


WRITER = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
import numpy as np
from dmnet_jax.checkpoint import Checkpoints
with Checkpoints(sys.argv[1]) as checkpoints:
    try:
        first = checkpoints.restore({"w": np.zeros((40, 5000), np.float32)}).step + 1
    except ValueError:
        first = 0
    print("ready", flush=True)
    for step in range(first, first + 100_000):
        w = np.full((40, 5000), step, np.float32)
        checkpoints.save(step, {"w": w}, metadata={"s": step}, metric=-step)
"""


def test_killed_while_saving(tmp_path, caplog):
    """After SIGKILL, every listed step is complete, and no finished step is lost."""
    folder, floor = tmp_path / "checkpoints", 0
    for pause in (0.35, 0.52, 0.44):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while len(list(folder.glob("[0-9]*[0-9]"))) < 2 and process.poll() is None:
            time.sleep(0.01)  # until two steps are saved, however slow the machine
        time.sleep(pause)
        before = max((int(p.name) for p in folder.glob("[0-9]*[0-9]")), default=0)
        process.kill()
        process.communicate()
        caplog.set_level(logging.WARNING)
        with Checkpoints(tmp_path) as checkpoints:
            target = {"w": np.zeros((40, 5000), np.float32)}
            steps = checkpoints.steps()
            assert len(steps) >= 2
            for step in steps:
                state = checkpoints.restore(target, step=step).state
                assert (state["w"] == step).all()
            newest = checkpoints.restore(target)
        assert newest.step == newest.metadata["s"] >= max(before, floor)
        floor = newest.step
        assert not list(folder.glob("incoming")) and not (folder / "trash").exists()
    assert "damaged" not in caplog.text
