"""A Python function's packages: how the spec names them, and what became of them."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from wisp_api.kube import Time, rules

MAX_REQUIREMENTS: Final = 100
_VERSION: Final = " *(===|==|~=|!=|<=|>=|<|>) *[-.*+!_A-Za-z0-9]+ *"
PATTERN: Final = (
    r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])? *(\[[-._A-Za-z0-9, ]*\])? *"
    rf"({_VERSION}(,{_VERSION})*)?(; *[ A-Za-z0-9_.,()<>=!~'\"+*-]*)?$"
)
"""Narrower than PEP 508: nothing that a requirements file could take for an option, a URL, a path or a variable."""
ELSEWHERE: Final = "^[-./]|--|@|://"
"""What other packages than the index's look like, and options."""
_IN_CEL: Final = str.maketrans({"\\": "\\\\", "'": "\\'"})

Requirement = Annotated[
    str,
    Meta(min_length=1, max_length=256),
    rules(
        (
            f"!self.matches('{ELSEWHERE}')",
            "a requirement names a package of the package index, without options, URLs and paths; bring other packages as a layer",
        ),
        (
            f"self.matches('{PATTERN.translate(_IN_CEL)}')",
            "write a package as pip does: Pillow==11.0.0, or requests[socks]>=2.31,<3, or tomli; python_version < '3.11'",
        ),
    ),
]


class BuiltRequirements(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The layer that was built of the requirements."""

    key: str
    """Hash of what it was built for: the requirements, the runtime, the architecture and the package index."""
    sha256: str
    """The layer's SHA-256."""
    unpacked_bytes: Annotated[int, Meta(ge=0)]
    """Bytes that it holds."""
    packages: Annotated[list[str], Meta(max_length=1000)] = []
    """What was installed, as name==version; cut where it is very long."""
    time: Time
    """When it was built."""
