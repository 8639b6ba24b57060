"""Tells griffe what is public: ``griffe check namedtasks --extensions .ci/public_names.py``.

The public modules only import their names, some of them in an ``if TYPE_CHECKING``. griffe takes
such names for private, and would miss every change.
"""

from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Marks the names of the package that a public module has."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Mark the names of a package that griffe has loaded."""
        for module in (pkg, *pkg.modules.values()):
            if not module.name.startswith("_"):
                module.exports = [
                    name
                    for name, member in module.members.items()
                    if not name.startswith("_") and is_ours(member, pkg)
                ]


def is_ours(member: griffe.Object | griffe.Alias, pkg: griffe.Module) -> bool:
    """Return whether *member* comes from *pkg*."""
    path = member.target_path if isinstance(member, griffe.Alias) else member.path
    return path.startswith(f"{pkg.path}.")
