"""Print what the package and its tests need, one requirement a line, from pyproject.toml."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *extras["esl"], *extras["postgresql"], *extras["test"]]))
