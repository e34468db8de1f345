"""python -m dmnet_jax.weights: convert weights, and verify that they are exact."""

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from data_pipelines.command_line import fail, parse_flags, program

if TYPE_CHECKING:
    from dmnet_jax.weights.checks import Difference

_COLUMNS = f"{'largest diff':>14}{'over largest':>14}{'relative rms':>14}"


@dataclasses.dataclass(frozen=True)
class CheckAuthors:
    """Import weights of the authors' code, compare with its outputs.

    Draws random weights by the recipe in DIR/index.json, imports them, and compares
    every map with that of the authors' code in DIR/MODEL.npz.
    """

    folder: Annotated[Path, arg(metavar="DIR"), Positional]

    def run(self) -> int:
        from dmnet_jax.weights import checks

        worst = 0.0
        print(f"{'model':<20}{'map':<10}{_COLUMNS}")
        for name in checks.read_index(self.folder):
            for row in checks.check_authors(self.folder, name):
                worst = max(worst, row.rms)
                print(f"{row.model:<20}{row.name:<10}{_numbers(row)}")
        return _verdict(
            worst <= checks.TOLERANCE, "relative rms", worst, checks.TOLERANCE
        )


@dataclasses.dataclass(frozen=True)
class CheckImagenet:
    """Classify photos with the shipped encoder.

    Compares features and classes of the photos in DIR/photos with those recorded there.
    """

    folder: Annotated[Path, arg(metavar="DIR"), Positional]

    def run(self) -> int:
        from dmnet_jax.weights import checks

        guesses, differences = checks.check_imagenet(self.folder)
        print(f"{'photo':<14}{'class':<36}{'probability':>12}{'expected':>10}")
        for row in guesses:
            note = "" if row.agrees else f"  WRONG, expected {row.expected_label}"
            print(
                f"{row.photo:<14}{row.label[:34]:<36}{row.probability:>12.4f}"
                f"{row.expected:>10.4f}{note}"
            )
        print(f"\n{'photo':<14}{'features':<16}{_COLUMNS}")
        for row in differences:
            print(f"{row.model:<14}{row.name:<16}{_numbers(row)}")
        worst = max(row.relative for row in differences)
        exact = worst <= checks.TOLERANCE and all(row.agrees for row in guesses)
        return _verdict(exact, "difference over largest", worst, checks.TOLERANCE)


@dataclasses.dataclass(frozen=True)
class Convert:
    """Write foreign weights as safetensors.

    Converts the authors' checkpoint (whole network), or Keras' or torchvision's
    MobileNetV2 (encoder). Writes OUT and OUT.sha256.

    Attributes:
        source: .npz, .pth, .pt, ...
        out: File to write.
        local: Local memory of the authors' checkpoint. Default: by its names.
        global_memory: It has a global memory. Default: if it has a projection.
        no_global_memory: It has none.
        origin: Noted in the file.
        license: Noted in the file.
    """

    source: Annotated[Path, arg(metavar="IN"), Positional]
    out: Annotated[Path, arg(metavar="OUT.safetensors"), Positional]
    local: Literal["none", "clstm", "blstm", "ela"] | None = None
    global_memory: FlagCreatePairsOff[bool] = False
    no_global_memory: FlagCreatePairsOff[bool] = False
    origin: str = ""
    license: str = ""

    def run(self) -> int:
        from dmnet_jax.weights import authors, files, imagenet

        arrays = files.read_weights(self.source)
        if authors.is_authors(arrays):
            memory = self.global_memory or (False if self.no_global_memory else None)
            model = authors.guess_model(arrays, local=self.local, global_memory=memory)
            variables = authors.from_authors(arrays, model=model)
            notes = {
                "encoder": "torch",
                "local": model.local,
                "global_memory": str(model.global_memory).lower(),
                "share_key_value": str(model.share_key_value).lower(),
                "num_classes": str(model.num_classes),
            }
        else:
            backbone, framework = imagenet.read_backbone(self.source)
            variables = {name: {"backbone": part} for name, part in backbone.items()}
            notes = {"encoder": framework}
        with self.source.open("rb") as file:
            notes["source_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        notes |= {"origin": self.origin, "licence": self.license}
        digest = files.write_safetensors(self.out, variables, notes)
        print(f"{self.out}: {notes}\nsha256 {digest}")
        return 0


@dataclasses.dataclass(frozen=True)
class Ship:
    """Write the network of a run in float16, with its config, as one file.

    Writes the newest checkpoint of RUN in the form of the shipped `rendered` weights.

    Attributes:
        run_dir: Run directory.
        out: File to write.
        card: Noted in the file.
    """

    run_dir: Annotated[Path, arg(metavar="RUN"), Positional]
    out: Annotated[Path, arg(metavar="OUT.safetensors"), Positional]
    card: str = ""

    def run(self) -> int:
        from dmnet_jax.checkpoint import load_variables
        from dmnet_jax.weights.rendered import write_rendered

        variables, about = load_variables(self.run_dir)
        digest = write_rendered(self.out, variables, about, self.card)
        print(f"{self.out}: {self.out.stat().st_size / 1e6:.1f} MB\nsha256 {digest}")
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 if exact, 1 if not, 2 for a user's mistake."""
    command: Any = parse_flags(
        argv,
        CheckAuthors | CheckImagenet | Convert | Ship,
        prog=program("python -m dmnet_jax.weights"),
        description="Convert and check weights.",
    )
    try:
        return command.run()
    except (ValueError, OSError) as error:
        return fail(error)


def _numbers(row: "Difference") -> str:
    return f"{row.absolute:>14.2e}{row.relative:>14.2e}{row.rms:>14.2e}"


def _verdict(exact: bool, measure: str, worst: float, tolerance: float) -> int:
    word = "exact" if exact else "NOT exact"
    print(f"\n{word}: worst {measure} {worst:.2e}, allowed {tolerance:.0e}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
