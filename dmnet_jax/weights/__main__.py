"""python -m dmnet_jax.weights: convert weights, and verify that they are exact."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.environment import program
from data_pipelines.io.names import escape_what_streams_cannot_hold, shown

if TYPE_CHECKING:
    from dmnet_jax.weights.checks import Difference

_COLUMNS = f"{'largest diff':>14}{'over largest':>14}{'relative rms':>14}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 if exact, 1 if not, 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    escape_what_streams_cannot_hold()
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("python -m dmnet_jax.weights"), description="Convert and check weights."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check-authors",
        help="import weights of the authors' code, compare with its outputs",
        description="Draws random weights by the recipe in DIR/index.json, imports "
        "them, and compares every map with that of the authors' code in DIR/MODEL.npz.",
    )
    check.add_argument("folder", type=Path, metavar="DIR")
    check.set_defaults(command=_check_authors)

    check = commands.add_parser(
        "check-imagenet",
        help="classify photos with the shipped encoder",
        description="Compares features and classes of the photos in DIR/photos with "
        "those recorded there.",
    )
    check.add_argument("folder", type=Path, metavar="DIR")
    check.set_defaults(command=_check_imagenet)

    convert = commands.add_parser(
        "convert",
        help="write foreign weights as safetensors",
        description="Converts the authors' checkpoint (whole network), or Keras' or "
        "torchvision's MobileNetV2 (encoder). Writes OUT and OUT.sha256.",
    )
    convert.add_argument("source", type=Path, metavar="IN", help=".npz, .pth, .pt, ...")
    convert.add_argument("out", type=Path, metavar="OUT.safetensors")
    convert.add_argument(
        "--local",
        choices=("none", "clstm", "blstm", "ela"),
        help="local memory of the authors' checkpoint (default: by its names)",
    )
    convert.add_argument(
        "--global-memory",
        action=argparse.BooleanOptionalAction,
        help="whether it has a global memory (default: if it has a projection)",
    )
    convert.add_argument("--origin", default="", help="noted in the file")
    convert.add_argument("--license", default="", help="noted in the file")
    convert.set_defaults(command=_convert)

    ship = commands.add_parser(
        "ship",
        help="write the network of a run in float16, with its config, as one file",
        description="Writes the newest checkpoint of RUN in the form of the shipped "
        "`rendered` weights.",
    )
    ship.add_argument("run", type=Path, metavar="RUN")
    ship.add_argument("out", type=Path, metavar="OUT.safetensors")
    ship.add_argument("--card", default="", help="noted in the file")
    ship.set_defaults(command=_ship)
    return parser


def _ship(options: argparse.Namespace) -> int:
    from dmnet_jax.checkpoint import load_variables
    from dmnet_jax.weights.rendered import write_rendered

    variables, about = load_variables(options.run)
    digest = write_rendered(options.out, variables, about, options.card)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB\nsha256 {digest}")
    return 0


def _check_authors(options: argparse.Namespace) -> int:
    from dmnet_jax.weights import checks

    worst = 0.0
    print(f"{'model':<20}{'map':<10}{_COLUMNS}")
    for name in checks.read_index(options.folder):
        for row in checks.check_authors(options.folder, name):
            worst = max(worst, row.rms)
            print(f"{row.model:<20}{row.name:<10}{_numbers(row)}")
    return _verdict(worst <= checks.TOLERANCE, "relative rms", worst, checks.TOLERANCE)


def _check_imagenet(options: argparse.Namespace) -> int:
    from dmnet_jax.weights import checks

    guesses, differences = checks.check_imagenet(options.folder)
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


def _convert(options: argparse.Namespace) -> int:
    from dmnet_jax.weights import authors, files, imagenet

    arrays = files.read_weights(options.source)
    if authors.is_authors(arrays):
        model = authors.guess_model(
            arrays, local=options.local, global_memory=options.global_memory
        )
        variables = authors.from_authors(arrays, model=model)
        notes = {
            "encoder": "torch",
            "local": model.local,
            "global_memory": str(model.global_memory).lower(),
            "share_key_value": str(model.share_key_value).lower(),
            "num_classes": str(model.num_classes),
        }
    else:
        backbone, framework = imagenet.read_backbone(options.source)
        variables = {name: {"backbone": part} for name, part in backbone.items()}
        notes = {"encoder": framework}
    with options.source.open("rb") as file:
        notes["source_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    notes |= {"origin": options.origin, "licence": options.license}
    digest = files.write_safetensors(options.out, variables, notes)
    print(f"{options.out}: {notes}\nsha256 {digest}")
    return 0


def _numbers(row: "Difference") -> str:
    return f"{row.absolute:>14.2e}{row.relative:>14.2e}{row.rms:>14.2e}"


def _verdict(exact: bool, measure: str, worst: float, tolerance: float) -> int:
    word = "exact" if exact else "NOT exact"
    print(f"\n{word}: worst {measure} {worst:.2e}, allowed {tolerance:.0e}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
