"""S3 reader: keeps notification rules on buckets and proves that its key may read them (docs/decisions/0004).

It carries no events but those of a listing (`s3_listing`): the server calls the ingest. Invariants: a bucket is reported ready only when its rules were read
back a moment after they were written (two readers that write one bucket's document at the same time overwrite each
other); a rule is removed when its wish is gone, also one that went while this reader was away.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions
from wisp_api.source import BucketRule, ItemStatus, ReaderStatus, S3Config, S3Server

from wisp_events.sources.reader import Reader, Trouble, Wish, run_until_one_ends, unexpected
from wisp_events.sources.s3_client import Refused, S3Client, origin
from wisp_events.sources.s3_listing import Listings
from wisp_events.sources.s3_rules import Rule, change, id_prefix, wanted_rules

CHECK_SECONDS: Final = 30.0
"""Between looks for drift; the proof is renewed as often."""
RETRY_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 1.0
"""Between writing a document and reading it back."""
SWEPT_BUCKETS: Final = 1000
_NO_TOPIC: Final = "NoSuchKey"
"""What Ceph's gateway says of a topic that it does not have."""


async def run(reader: Reader, js: JetStreamContext) -> None:
    """Fulfil wish after wish, until cancelled."""
    keeping = _Keeping(reader, js)
    await run_until_one_ends(keeping.run(), keeping.listings.run())


class _Keeping:
    """Keeps the rules, and reports on them and on the listings."""

    def __init__(self, reader: Reader, js: JetStreamContext) -> None:
        self._reader = reader
        self._status: ReaderStatus | None = None
        """What became of the last wish, without the listings."""
        self.listings = Listings(js, self._report)

    async def run(self) -> None:
        """Fulfil wish after wish, until cancelled."""
        wish: Wish | None = None
        known: set[str] = set()
        looks = Looks()
        swept = False
        while True:
            wish = await self._reader.changed(None) or wish
            if wish is None:
                continue
            try:
                status = await asyncio.to_thread(reconcile, wish, known, looks, sweep=not swept)
                swept = True
            except Trouble as trouble:
                status = wish.report(trouble)
            except Exception as error:  # noqa: BLE001 - as in `Reader.fulfil`
                status = wish.report(unexpected(error, wish))
            self._status = status
            self.listings.follow(wish, status)
            await self._report()
            healthy = status.ready and all(item.ready for item in status.items.values())
            await self._reader.changed(wish, CHECK_SECONDS if healthy else RETRY_SECONDS)

    async def _report(self) -> None:
        """Tell of both; what a listing has to say is no trouble of the bucket that is followed."""
        if self._status is None:
            return
        items = {
            bucket: msgspec.structs.replace(item, message=self.listings.message(bucket)) if item.ready else item
            for bucket, item in self._status.items.items()
        }
        await self._reader.report(msgspec.structs.replace(self._status, items=items))


class Looks:
    """When each bucket's rules were seen last, by this process: rules that are gone at the next look took their events with them."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._seen: dict[str, tuple[set[Rule], str]] = {}
        self.unseen_since: dict[str, str] = {}
        """By bucket, where somebody took rules away."""

    def stand(self, bucket: str, rules: set[Rule], at: str) -> None:
        """The bucket had these rules at that time, or has them now."""
        self._seen[bucket] = rules, at

    def lack(self, bucket: str, rules: set[Rule]) -> None:
        """The bucket had to be given these rules: where it had them before, somebody took them away."""
        before, seen = self._seen.get(bucket, (set(), ""))
        if before == rules:
            self.unseen_since[bucket] = seen

    def only(self, buckets: Collection[str]) -> None:
        """No others are followed any more."""
        for gone in self._seen.keys() - set(buckets):
            del self._seen[gone]
            self.unseen_since.pop(gone, None)


def reconcile(wish: Wish, known: set[str], looks: Looks, *, sweep: bool) -> ReaderStatus:
    """Bring all buckets in line with the wish; blocks. `known` remembers the buckets that had rules of ours.

    `sweep` looks through every bucket that the key sees, for rules whose wish went while no reader was there.

    Raises:
        Trouble: the server can't be used at all.
    """
    config = wish.config.s3 or S3Config(servers=[])
    client = S3Client.of(wish)
    server = find_server(client.endpoint, config.servers)
    rules: dict[str, list[BucketRule]] = defaultdict(list)
    for rule in [] if wish.config.draining else config.rules:
        rules[rule.bucket].append(rule)
    prefix = id_prefix(wish.config.namespace, wish.config.connection)
    if sweep or wish.config.draining:
        known |= _visible(client) | {rule.bucket for rule in config.rules}
    wanted = {
        bucket: wanted_rules(prefix, rules.get(bucket, []), server.notification_arns) for bucket in known | rules.keys()
    }
    looks.only(rules)
    troubles = _apply(client, server, prefix, wanted, looks)
    named = {rule.bucket for rule in config.rules}
    left = {
        bucket
        for bucket in (known - rules.keys()) & named & troubles.keys()
        if troubles[bucket].reason != conditions.BUCKET_NOT_FOUND
    }
    known.clear()
    known.update(rules.keys(), left)
    items = {
        bucket: _item(client, bucket, troubles.get(bucket), looks.unseen_since.get(bucket, "")) for bucket in rules
    }
    if wish.config.draining and left:
        raise troubles[min(left)]
    return msgspec.structs.replace(wish.report(None, items), server=server.name, drained=wish.config.draining)


def find_server(endpoint: str, servers: list[S3Server]) -> S3Server:
    """The server that a connection belongs to.

    Raises:
        Trouble: none of this installation's.
    """
    mine = origin(endpoint)
    for server in servers:
        if origin(server.endpoint) == mine:
            return server
    known = ", ".join(server.endpoint for server in servers) or "none"
    raise Trouble(
        conditions.UNKNOWN_SERVER,
        f"{mine} is no S3 server of this installation ({known}); use one of these as endpoint, "
        "or have it added to the chart's s3.servers",
    )


def _visible(client: S3Client) -> set[str]:
    """The buckets that the key sees; a key that may not list them sees none."""
    try:
        return set(client.list_buckets()[:SWEPT_BUCKETS])
    except Refused:
        return set()


def _apply(
    client: S3Client, server: S3Server, prefix: str, buckets: dict[str, set[Rule]], looks: Looks
) -> dict[str, Trouble]:
    """Write the rules where they differ and read them back; returns what went wrong, by bucket."""
    troubles: dict[str, Trouble] = {}
    written = []
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for bucket, wanted in buckets.items():
        try:
            if _write(client, server, prefix, bucket, wanted):
                written.append(bucket)
                looks.lack(bucket, wanted)
        except Trouble as trouble:
            if trouble.reason in (conditions.SERVER_UNREACHABLE, conditions.AUTHENTICATION_FAILED):
                raise
            troubles[bucket] = trouble
    if written:
        time.sleep(SETTLE_SECONDS)  # in a thread of its own
    for bucket in written:
        try:
            document = client.get_notification(bucket)
        except Refused as refused:
            troubles[bucket] = _explain(refused, bucket, "s3:GetBucketNotification")
            continue
        if change(document, buckets[bucket], prefix, server.notification_arns) is not None:
            troubles[bucket] = Trouble(
                conditions.NOTIFICATION_REFUSED,
                "the rules were not there a moment after they were written: somebody else changes them, or the server "
                "alters them; trying again",
            )
    for bucket in buckets.keys() - troubles.keys():
        looks.stand(bucket, buckets[bucket], at)
    return troubles


def _write(client: S3Client, server: S3Server, prefix: str, bucket: str, wanted: set[Rule]) -> bool:
    """Make the bucket's document hold our rules; returns whether it had to be written.

    Raises:
        Trouble: the server refused, or can't be reached.
    """
    action = "s3:GetBucketNotification"
    try:
        document = client.get_notification(bucket)
        needed = change(document, wanted, prefix, server.notification_arns)
        if needed is None:
            return False
        action = "s3:PutBucketNotification"
        if needed.document is not None:
            client.put_notification(bucket, needed.document)
        for gone in needed.gone:
            client.delete_notification(bucket, gone)
    except ValueError as error:
        raise Trouble(conditions.NOTIFICATION_REFUSED, str(error)) from None
    except Refused as refused:
        raise _explain(refused, bucket, action) from None
    return True


def _explain(refused: Refused, bucket: str, action: str) -> Trouble:
    """What a refusal about a bucket means, and the cure."""
    if refused.code == "NoSuchBucket" or (refused.status == 404 and refused.code != _NO_TOPIC):  # noqa: PLR2004 - HTTP's not found
        return Trouble(conditions.BUCKET_NOT_FOUND, f"there is no bucket {bucket}; create it, or correct the name")
    if refused.status == 403:  # noqa: PLR2004 - HTTP's forbidden
        return Trouble(
            conditions.PERMISSION_DENIED,
            f"the key may not do {action} on bucket {bucket} ({refused}); its policy must allow s3:ListBucket, "
            f"s3:GetBucketNotification and s3:PutBucketNotification on arn:aws:s3:::{bucket}",
        )
    return Trouble(
        conditions.NOTIFICATION_REFUSED,
        f"the server refuses the rules of bucket {bucket}: {refused}; does it have all of source.bucket.events, and do "
        "its notification targets or topics and the notificationArns in the chart's s3.servers agree?",
    )


def _item(client: S3Client, bucket: str, trouble: Trouble | None, unseen_since: str) -> ItemStatus:
    """A bucket's state, with a proof where the key may read it."""
    proof = ""
    try:
        client.head_bucket(bucket)
        proof = client.proof(bucket)
    except Refused as refused:
        trouble = trouble or _explain(refused, bucket, "s3:ListBucket")
    if trouble:
        return ItemStatus(ready=False, reason=trouble.reason, message=trouble.message, proof=proof)
    return ItemStatus(ready=True, proof=proof, unseen_since=unseen_since)
