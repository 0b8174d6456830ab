"""Definitions in the binary log that take a table's rows away or bring others, which no change of a row tells.

Invariant: a statement that does is recognised however it is written; one too many is no harm, its gap only says that changes may be
missing. A statement is read as far as its verb needs, so that long ones of no interest cost nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

_TOKEN = re.compile(
    r"""(?:\s+|--(?=\s)[^\n]*|\#[^\n]*|/\*(?!M?!).*?\*/|/\*M?!\d*|\*/)       # between words; what /*! hides from others counts
    |`(?P<quoted>(?:[^`]|``)*)`|"(?P<ansi>(?:[^"]|"")*)"|'(?:[^'\\]|\\.|'')*'
    |(?P<word>[\w$\u0080-\uffff]+)|(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_THINGS: Final = frozenset({"TABLE", "TABLES", "DATABASE", "SCHEMA"})
_ASIDE: Final = frozenset({"ONLINE", "IGNORE"})
"""Words before a thing that change nothing."""
_BESIDE: Final = frozenset({"IF", "EXISTS", "TO", "AS", "WAIT", "NOWAIT", "CASCADE", "RESTRICT"})
"""Words around names that are none."""
_NO_TABLE: Final = frozenset({"COLUMN", "INDEX", "KEY"})
"""What ALTER TABLE ... RENAME may be about besides the table."""
_MOVES: Final = frozenset({"DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "DISCARD", "IMPORT"})
_MOVED: Final = frozenset({"PARTITION", "TABLE", "TABLESPACE"})
_VERB_WORDS: Final = 4
"""CREATE OR REPLACE TABLE has the most."""


class Redefined(NamedTuple):
    """Rows of tables came or went by a definition."""

    tables: tuple[tuple[str, str], ...]
    """Schema and table; no table stands for all of the schema."""
    why: str
    """With room for a table's name."""

    def concerns(self, name: str) -> bool:
        """Whether it is about a table (`schema.table`), in whatever case: servers differ in that."""
        schema, _, table = name.casefold().partition(".")
        return any(one.casefold() == schema and two.casefold() in ("", table) for one, two in self.tables)


class _Token(NamedTuple):
    word: str = ""
    """In capitals; empty for what is quoted or a mark."""
    name: str = ""
    """As a name; empty for a mark."""
    mark: str = ""


def redefined(text: str, schema: str) -> Redefined | None:
    """What a definition does to tables' rows, if anything; `schema` is the session's."""
    tokens, verb = _tokens(text), []
    for token in tokens:
        verb += [token.word] * (token.word not in _ASIDE)
        if token.word in _THINGS or len(verb) == _VERB_WORDS:
            break
    match verb:
        case ["RENAME", "TABLE" | "TABLES"]:
            return _about(_names(tokens, schema), "table {} was renamed, or another took its name")
        case ["DROP", "TABLE" | "TABLES"]:
            return _about(_names(tokens, schema), "table {} was dropped with its rows")
        case ["DROP", "DATABASE" | "SCHEMA"]:
            return _about([(name, "") for _, name in _names(tokens, schema)], "table {} was dropped with its database")
        case ["CREATE", "OR", "REPLACE", "TABLE"]:
            return _about(_first(list(islice(tokens, 3)), schema), "table {} was replaced by another")
        case ["ALTER", "TABLE"]:
            return _altered([token for token in tokens if token.word not in ("IF", "EXISTS")], schema)
    return None


def _about(tables: Sequence[tuple[str, str]], why: str) -> Redefined | None:
    return Redefined(tuple(tables), why) if tables else None


def _tokens(text: str) -> Iterator[_Token]:
    """Words, names and marks; not what stands between them, nor strings."""
    for found in _TOKEN.finditer(text):
        quoted, ansi, word, mark = found.group("quoted", "ansi", "word", "mark")
        if word or mark:
            yield _Token((word or "").upper(), word or "", mark or "")
        elif quoted or ansi:
            yield _Token(name=(quoted or "").replace("``", "`") or ansi.replace('""', '"'))


def _names(tokens: Iterable[_Token], schema: str) -> list[tuple[str, str]]:
    """The names in it, each with the schema before its dot or the session's."""
    found: list[tuple[str, str]] = []
    dotted = False
    for token in tokens:
        if token.mark:
            dotted = token.mark == "."
        elif dotted and found:
            found[-1], dotted = (found[-1][1], token.name), False
        elif token.word not in _BESIDE and not token.word.isdigit():  # WAIT has a number
            found.append((schema, token.name))
    return found


def _first(tokens: Sequence[_Token], schema: str) -> list[tuple[str, str]]:
    return _names(tokens, schema)[:1]


def _altered(tokens: Sequence[_Token], schema: str) -> Redefined | None:
    """What ALTER TABLE does: another name, or rows that come and go with a partition or tablespace."""
    depth = 0
    for at, (token, following) in enumerate(pairwise(tokens)):
        depth += (token.mark == "(") - (token.mark == ")")
        if depth:
            continue
        if token.word == "RENAME" and following.word not in _NO_TABLE:
            others = _first(tokens[at + 1 : at + 6], schema)
            return _about(_first(tokens[:3], schema) + others, "table {} was renamed, or another took its name")
        if token.word in _MOVES and following.word in _MOVED:
            rest = tokens[at + 1 :]
            named = next((place for place, one in enumerate(rest, 1) if one.word == "TABLE"), len(rest))
            others = _first(rest[named : named + 3], schema)
            return _about(
                _first(tokens[:3], schema) + others, "rows of table {} came or went with a partition or tablespace"
            )
    return None
