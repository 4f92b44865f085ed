"""Maps the top-level folders of the repository to packages of the library.

The folder ``codecs/`` becomes ``latentpress.codecs``, ``models/`` becomes ``latentpress.models`` and so on,
each with the packages below it. Nothing has to be listed when a package is added; tests/test_package.py fails
when a folder of Python files has no ``__init__.py`` and so would stay behind. Everything else about the
distribution is in pyproject.toml.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
TOP_FOLDERS = ("assets", "codecs", "configs", "models", "scripts", "train")

packages = ["latentpress"]
package_dir = {"latentpress": "latentpress"}
for folder in TOP_FOLDERS:
    name = f"latentpress.{folder}"
    package_dir[name] = folder
    packages += [name, *(f"{name}.{child}" for child in find_packages(str(ROOT / folder)))]

setup(packages=packages, package_dir=package_dir)
