"""Starts and controls the processes of benchmark workers."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmnet_jax import machine


class Worker:
    """A contestant in a separate process; see the module `worker` for its replies.

    The constructor waits until the contestant is prepared.

    Args:
        kind: a key of `worker.KINDS`.
        case: the case to measure, a dataclass.
        folder: folder for the files that contestants share.
        xla_flags: XLA flags of this process, in addition to those of the environment.

    Attributes:
        report: the worker's report of its preparation.
        gpu_memory: peak GPU memory in bytes, set by `close`; 0 without a GPU.

    Raises:
        RuntimeError: the process ended before it was prepared.
    """

    def __init__(
        self, kind: str, case: Any, folder: Path, *, xla_flags: str = ""
    ) -> None:
        # The file name is unique, because several workers may start at once.
        descriptor, name = tempfile.mkstemp(".json", "case", folder)
        path = Path(name)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(case), file)
        environment = machine.environment()
        if xla_flags:
            flags = f"{environment.get('XLA_FLAGS', '')} {xla_flags}"
            environment["XLA_FLAGS"] = flags.strip()
        self._name = kind
        self.gpu_memory = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dmnet_jax.benchmark.worker", kind, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.report = self._read()

    def turn(self) -> dict[str, Any]:
        """Runs one turn and returns its measurements.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> int:
        """Ends the process and returns its peak memory in bytes.

        Raises:
            RuntimeError: the process had ended before.
        """
        with self._process as process:
            assert process.stdin
            process.stdin.close()
            memory = self._read()
        self.gpu_memory = memory["gpu_memory"]
        return memory["memory"]

    def stop(self) -> None:
        """Kills the process; has no effect after `close`."""
        with self._process as process:
            process.kill()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            with self._process as process:
                code = process.wait()
            reason = (
                "killed by a signal, probably out of memory"
                if code < 0
                else "see its output above"
            )
            raise RuntimeError(f"{self._name} failed ({reason})")
        return json.loads(line)
