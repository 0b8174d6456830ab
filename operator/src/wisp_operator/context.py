"""What the reconcile functions share: connections, queues and the few things that one process remembers."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from wisp_api.quota import FunctionQuotaSpec

from wisp_operator.accounts import Accounts
from wisp_operator.api import Api
from wisp_operator.callers import CallerKeys
from wisp_operator.code_store import CodeStore
from wisp_operator.config import OperatorConfig
from wisp_operator.env import EnvObjects
from wisp_operator.log import EventLog
from wisp_operator.proof import Proofs
from wisp_operator.sources import ReaderKey


@dataclass
class Context:
    """One operator process. Everything remembered here may be forgotten: a new process finds it out anew."""

    api: Api
    config: OperatorConfig
    seeds: dict[str, str]
    """Of the log's server: sign its accounts and users."""
    cluster: str
    """The cluster's uid."""
    proofs: Proofs
    callers: CallerKeys
    """Whose tokens functions take."""
    log: EventLog | None = None
    """None until the first connection."""
    accounts: Accounts | None = None
    """There when `log` is."""
    code_store: CodeStore | None = None
    """None where the installation has none."""
    namespaces: set[str] = field(default_factory=set)
    """Those in which Subscriptions, or Functions with `async`, were seen."""
    bindings_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Namespaces share bindings; one at a time reads and writes them."""
    quotas: dict[str, FunctionQuotaSpec] = field(default_factory=dict)
    """Of namespaces that have one of their own."""
    env: EnvObjects = field(default_factory=EnvObjects)
    """ConfigMaps that Functions take variables from."""
    quota_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """One Function of a namespace at a time is granted more than it has."""
    log_away_since: dict[str, float] = field(default_factory=dict)
    """Since when this process has missed a namespace's part of the event log."""
    draining_since: dict[tuple[str, ReaderKey], float] = field(default_factory=dict)
    """When this process first saw a reader drain."""
    secret_written: dict[tuple[str, ReaderKey], float] = field(default_factory=dict)
    """When a reader's Secret was last written; it can't be read."""
    figures_written: dict[str, float] = field(default_factory=dict)
    """When a Subscription's figures were last written, by uid."""
    destinations_told: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    """What the Events of Functions last said of destinations that take nothing, and when: by namespace and their routes' uids."""

    def quota(self, namespace: str) -> FunctionQuotaSpec:
        """What limits the Functions of a namespace."""
        return self.quotas.get(namespace, self.config.quota)
