"""A measuring process: started, asked, ended."""

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
    """One contestant in a separate process; see `worker` for its replies.

    Args:
        kind: a key of `worker.KINDS`.
        case: a dataclass; what is measured.
        folder: where contestants leave files for each other.
        xla_flags: of this process, beside those of the environment.

    Attributes:
        report: its report of the preparation.
        gpu_memory: peak bytes on the GPU, known once it is closed; 0 without one.
    """

    def __init__(
        self, kind: str, case: Any, folder: Path, *, xla_flags: str = ""
    ) -> None:
        # A separate file: several workers may start at once.
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
        """Lets it measure once.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> int:
        """Ends the process; its peak memory in bytes."""
        with self._process as process:
            assert process.stdin
            process.stdin.close()
            memory = self._read()
        self.gpu_memory = memory["gpu_memory"]
        return memory["memory"]

    def stop(self) -> None:
        """Ends the process whatever it is doing."""
        with self._process as process:
            process.kill()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            with self._process as process:
                code = process.wait()
            reason = (
                "the system ended it, likely for memory" if code < 0 else "see above"
            )
            raise RuntimeError(f"{self._name} failed ({reason})")
        return json.loads(line)
