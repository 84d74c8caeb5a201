"""Print what the package and its tests need, one requirement a line, from pyproject.toml.

With names of optional dependencies: what these bring.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
plain = [*project["dependencies"], *extras["postgresql"], *extras["test"]]
print("\n".join([line for name in sys.argv[1:] for line in extras[name]] or plain))
