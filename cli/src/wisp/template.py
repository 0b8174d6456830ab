"""`wisp init`: a function to start from, copied from the folder of its runtime under `templates`."""

import re
from pathlib import Path
from string import Template
from typing import Final

from wisp.errors import UsageError

_TEMPLATES: Final = Path(__file__).parent / "templates"
_NAME: Final = "hello"
_LONGEST: Final = 50


def write(folder: Path, runtime: str) -> list[Path]:
    """Fill the folder; returns the files. The function is called as the folder is.

    Raises:
        UsageError: there is no template for the runtime, or a file is there already (nothing is written then).
    """
    known = sorted(path.name for path in _TEMPLATES.iterdir() if path.is_dir())
    if runtime not in known:
        raise UsageError(f"--runtime {runtime}: there is no template for it; there are {', '.join(known)}")
    source = _TEMPLATES / runtime
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc")
    targets = {file: folder / file.relative_to(source) for file in files}
    if there := [str(target) for target in targets.values() if target.exists()]:
        raise UsageError(f"{there[0]} is there already: choose another folder, or remove it")
    try:
        for file, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            text = Template(file.read_text()).safe_substitute(NAME=name_for(folder))
            target.write_text(text)
            if text.startswith("#!"):
                target.chmod(0o755)
    except OSError as error:
        raise UsageError(f"{error.filename} can't be written: {error.strerror}") from None
    return list(targets.values())


def name_for(folder: Path) -> str:
    """A name that a Function may have, as near as can be to the folder's."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-0123456789")
    return name[:_LONGEST].rstrip("-") or _NAME
