"""What ironic-python-agent imports, as whole folders of Debian's Python, and the standard library."""
import importlib
import importlib.metadata
import os
import pkgutil
import sys

import ironic_python_agent
import ironic_python_agent.cmd.agent
import ironic_python_agent.hardware_managers.cna
import ironic_python_agent.hardware_managers.mlnx

PACKAGES = "/usr/lib/python3/dist-packages"
# What is used if it happens to be there.
LEFT_OUT = ("numpy", "setuptools")

for found in pkgutil.iter_modules([os.path.join(ironic_python_agent.__path__[0], "extensions")]):
    importlib.import_module("ironic_python_agent.extensions." + found.name)
folders = {os.path.dirname(os.__file__)}
imported = set()
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if file.startswith(PACKAGES + "/"):
        top = file[len(PACKAGES) + 1 :].split("/")[0]
        if top not in LEFT_OUT:
            folders.add(os.path.join(PACKAGES, top))
            imported.add(name.split(".")[0])
# Versions and plugins are looked up in what a distribution says of itself.
for name, distributions in importlib.metadata.packages_distributions().items():
    if name in imported:
        folders.update(str(importlib.metadata.distribution(found)._path) for found in distributions)
print("\n".join(sorted(folder for folder in folders if folder.startswith("/usr/lib/"))))
