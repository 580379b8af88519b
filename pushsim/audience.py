"""exportTo: to whom an object is shown (reference §4.2)."""

from __future__ import annotations

#: What exportTo may say besides the names of namespaces.
PUBLIC, PRIVATE, NOBODY = "*", ".", "~"


def audience(own: frozenset[str], default: frozenset[str], namespace: str, *, default_list: bool) -> frozenset[str]:
    """Namespaces an object is shown to: `{"*"}` for all, empty for nobody.

    own, default: exportTo of the object and of the mesh; default_list: the default may name namespaces (1.30.3+).
    """
    if not own:
        if not default_list:
            if PRIVATE in default:
                return frozenset({namespace})
            return frozenset({PUBLIC}) if PUBLIC in default else frozenset()
        own = default
    if PUBLIC in own:
        return frozenset({PUBLIC})
    if NOBODY in own:
        return frozenset()
    return frozenset(namespace if value == PRIVATE else value for value in own)
