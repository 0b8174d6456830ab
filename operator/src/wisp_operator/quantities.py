"""Quantities as Kubernetes writes them: Knative's webhook rewrites what isn't canonical, and that would look like drift."""

from typing import Final

from wisp_operator.api import Object

_MIB_PER_GIB: Final = 1024


def mebibytes(text: str) -> int:
    """A whole number of Mi or Gi in MiB."""
    return int(text[:-2]) * (_MIB_PER_GIB if text.endswith("Gi") else 1)


def quantity(text: str) -> str:
    """A whole number of Mi or Gi in Kubernetes' canonical form: 1024Mi is 1Gi."""
    size = mebibytes(text)
    return f"{size // _MIB_PER_GIB}Gi" if size % _MIB_PER_GIB == 0 else f"{size}Mi"


def canonical_resources(resources: Object) -> Object:
    """Requests and limits with CPU and memory in canonical form."""
    return {
        kind: {name: _canonical(name, str(amount)) for name, amount in amounts.items()}
        for kind, amounts in resources.items()
    }


def _canonical(name: str, amount: str) -> str:
    if name == "cpu":
        return canonical_cpu(millicpu(amount))
    return quantity(amount) if amount.endswith(("Mi", "Gi")) else amount


def millicpu(text: str) -> int:
    """Thousandths of a CPU."""
    return int(text[:-1]) if text.endswith("m") else max(1, round(float(text) * 1000))


def canonical_cpu(thousandths: int) -> str:
    """The same in canonical form."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"
