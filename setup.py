"""What pyproject.toml cannot say: the recipes' place in the package, the description.

The recipes are files of configs/ in a checkout and dmnet_jax/_recipes in a wheel, where
a package called `configs` would collide with others.
"""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")

setup(
    packages=[
        *find_packages(include=["dmnet_jax*", "data_pipelines*"]),
        "dmnet_jax._recipes",
    ],
    package_dir={"dmnet_jax._recipes": "configs"},
    # The pictures are files of the repository, which a page of an index does not have.
    long_description="".join(
        line for line in README.splitlines(True) if not line.startswith("![")
    ),
    long_description_content_type="text/markdown",
)
