"""Tells the event log's server which accounts there are: the platform's, and one for each namespace with readers.

The server keeps them on its disk, so this is needed once for each; asking first makes it free to do it every time.
"""

import json

import nats.errors
from nats.aio.client import Client, RawCredentials
from wisp_api import jetstream

from wisp_operator.nats_auth import (
    ACCOUNT,
    SYSTEM,
    accounts_user,
    letters_seed,
    make_closed_account,
    make_credentials,
    make_letters_account,
    make_namespace_account,
    make_platform_account,
    make_removal,
    namespace_seed,
    public_key,
)

_REQUEST_SECONDS = 5.0


class Accounts:
    """A connection to the server's own account. Its methods raise `nats.errors.Error` or `OSError` while the server is away or refuses."""

    def __init__(self, client: Client, seeds: dict[str, str]) -> None:
        """`connect` makes one."""
        self._client = client
        self._seeds = seeds

    async def ensure_platform(self) -> None:
        """Make the account that has the log and that of dead letters, where the server doesn't know them, or bring them up to date."""
        await self._ensure(letters_seed(self._seeds), make_letters_account(self._seeds))
        await self._ensure(self._seeds[ACCOUNT], make_platform_account(self._seeds))

    async def ensure(self, namespace: str) -> str:
        """Make a namespace's account likewise; the seed that signs the credentials of its readers."""
        seed = namespace_seed(self._seeds, namespace)
        await self._ensure(seed, make_namespace_account(self._seeds, namespace))
        return seed

    async def remove(self, namespace: str) -> None:
        """Forget a namespace's account: its credentials, wherever they are, are worth nothing from now on."""
        key = public_key(namespace_seed(self._seeds, namespace))
        if await self._known(key):
            # The server takes an account back only with another token than the last one that it had.
            await self._order("UPDATE", make_closed_account(self._seeds, namespace))
            await self._order("DELETE", make_removal(self._seeds, key))

    async def _ensure(self, seed: str, token: str) -> None:
        if await self._known(public_key(seed)) != token:
            await self._order("UPDATE", token)

    async def _known(self, key: str) -> str:
        """The token that the server has of an account, empty where it has none."""
        answer = await self._client.request(f"$SYS.REQ.ACCOUNT.{key}.CLAIMS.LOOKUP", b"", timeout=_REQUEST_SECONDS)
        return answer.data.decode()

    async def _order(self, what: str, token: str) -> None:
        answer = await self._client.request(f"$SYS.REQ.CLAIMS.{what}", token.encode(), timeout=_REQUEST_SECONDS)
        if error := json.loads(answer.data).get("error"):
            raise nats.errors.Error(
                f"the server refuses to {what.lower()} an account: {error.get('description', error)}"
            )


async def connect(seeds: dict[str, str]) -> Accounts:
    """Connect to the server that `wisp_api.jetstream` names, as a user of its system account, however long it takes."""
    user = accounts_user()
    credentials = RawCredentials(make_credentials(seeds[SYSTEM], user))
    client = await jetstream.connect(
        "wisp-operator accounts", user_credentials=credentials, inbox_prefix=user.inbox.encode()
    )
    return Accounts(client, seeds)
