"""The router: event log -> function, with filter, order, retry and dead letters.

Invariants of the whole part:
- An event leaves the undone set only after the function's success answer or an acknowledged dead letter.
- Within a key, no attempt of an event starts before every earlier event of that key is out.
- One replica serves a route. Its claim is the cursor's revision: whoever writes it next has taken over.

How the modules stand on each other: `main` runs `replica`, which watches `bucket`s, shares routes (`ownership`) and
makes a `delivery` for each of its own (`batched` where it has batches, `windowed` where these pass a state on); that reads
the log (`intake`, a bus together with others through a `feed`), keeps the order (`schedule`), remembers (`cursor`), posts
(`request`, `client`), judges the answer (`verdict`), stores what comes of it (`results`, `outbox`) and reports (`status`,
`metrics`). `janitor` purges.
"""
