"""Event patterns: the documented examples, the edges between JSON types, and where mistakes are reported."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api import document, pattern
from wisp_api.cloudevent import Event
from wisp_api.pattern_index import Index
from wisp_api.steps import CONDITIONS, TooComplex

DETAIL = {
    "c-count": 5,
    "d-count": 3,
    "x-limit": 301.8,
    "source-ip": "10.0.0.33",
    "v6": "2001:db8::1",
    "instance-id": "i-000000aaaaaa00000",
    "state": "running",
    "nothing": None,
    "empty": "",
    "none": [],
    "yes": True,
    "one": 1,
    "total": 120.50,
    "digits": "120",
    "path": "in/lib/photo.JPG",
    "tags": ["a", "b", ["c"]],
    "rows": [{"id": 1, "kind": "x"}, {"id": 2, "kind": "y"}],
    "below": {"deep": 1},
}


def event(data: Any = None) -> Event:
    """An event with attributes, an extension and the given data."""
    return Event(
        id="1",
        source="urn:wisp:ec2",
        type="state-change",
        subject="in/photo.jpg",
        time="2017-10-02T16:24:49Z",
        extensions={"region": "us-east-1", "tries": 3, "urgent": True},
        data=None if data is None else msgspec.Raw(msgspec.json.encode(data)),
    )


def on(field: str, *conditions: Any) -> bool:
    """Whether a list of conditions matches a field of DETAIL."""
    return pattern.compile({"data": {field: list(conditions)}})(event(DETAIL))


@pytest.mark.parametrize(
    ("field", "condition", "wanted"),
    [
        ("state", "running", True),
        ("state", "Running", False),
        ("state", {"prefix": "run"}, True),
        ("state", {"prefix": "un"}, False),
        ("state", {"prefix": {"equals-ignore-case": "RUN"}}, True),
        ("state", {"suffix": "ing"}, True),
        ("path", {"suffix": {"equals-ignore-case": ".jpg"}}, True),
        ("path", {"suffix": ".jpg"}, False),
        ("state", {"equals-ignore-case": "RUNNING"}, True),
        ("path", {"wildcard": "in/*/photo.*"}, True),
        ("path", {"wildcard": "*"}, True),
        ("path", {"wildcard": "in/*x*"}, False),
        ("path", {"wildcard": "in/lib/photo.JPG"}, True),
        ("path", {"wildcard": "in/lib/photo.JPG*photo.JPG"}, False),
        ("state", {"anything-but": "initializing"}, True),
        ("state", {"anything-but": "running"}, False),
        ("state", {"anything-but": ["stopped", "running"]}, False),
        ("x-limit", {"anything-but": 123}, True),
        ("x-limit", {"anything-but": [100, 301.8]}, False),
        ("state", {"anything-but": {"prefix": "init"}}, True),
        ("state", {"anything-but": {"prefix": ["init", "run"]}}, False),
        ("state", {"anything-but": {"suffix": "ing"}}, False),
        ("state", {"anything-but": {"equals-ignore-case": ["RUNNING", "x"]}}, False),
        ("path", {"anything-but": {"wildcard": "*/lib/*"}}, False),
        ("path", {"anything-but": {"wildcard": "*/bin/*"}}, True),
        ("absent", {"anything-but": "x"}, False),
        ("nothing", {"anything-but": "x"}, True),
        ("yes", {"anything-but": 1}, True),
        ("c-count", {"numeric": [">", 0, "<=", 5]}, True),
        ("c-count", {"numeric": ["<", 5]}, False),
        ("x-limit", {"numeric": ["=", 3.018e2]}, True),
        ("total", {"numeric": [">", 100]}, True),
        ("state", {"numeric": [">", 0]}, False),
        ("digits", {"numeric": [">", 0]}, False),
        ("yes", {"numeric": ["=", 1]}, False),
        ("source-ip", {"cidr": "10.0.0.0/24"}, True),
        ("source-ip", {"cidr": "10.0.1.0/24"}, False),
        ("v6", {"cidr": "2001:db8::/32"}, True),
        ("state", {"cidr": "10.0.0.0/24"}, False),
        ("c-count", {"exists": True}, True),
        ("absent", {"exists": True}, False),
        ("absent", {"exists": False}, True),
        ("c-count", {"exists": False}, False),
        ("nothing", {"exists": True}, True),
        ("below", {"exists": True}, False),  # works on leaves only
        ("below", {"exists": False}, True),
        ("nothing", None, True),
        ("absent", None, False),
        ("empty", "", True),
        ("nothing", "", False),
        ("one", 1.0, True),
        ("one", True, False),
        ("yes", 1, False),
        ("yes", True, True),
        ("tags", "b", True),
        ("tags", "c", True),
        ("tags", "d", False),
        ("none", {"exists": True}, False),
        ("none", "x", False),
    ],
)
def test_operator(field: str, condition: Any, *, wanted: bool) -> None:
    """Each operator does what the EventBridge guide says, on each JSON type."""
    assert on(field, condition) is wanted


def test_list_is_or() -> None:
    """One of the values and operators of a list is enough."""
    assert on("state", "stopped", {"prefix": "r"})
    assert on("absent", "stopped", {"exists": False})
    assert not on("state", "stopped", {"prefix": "x"})


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"type": ["state-change"], "data": {"state": ["running"]}}, True),
        ({"type": ["other"], "data": {"state": ["running"]}}, False),
        ({"region": [{"prefix": "us-"}], "tries": [3]}, True),
        ({"urgent": [True], "wisphops": [0]}, True),
        ({"time": [{"prefix": "2017-10-02"}]}, True),
        ({"dataschema": [{"exists": False}]}, True),
        ({"data": {"below": {"deep": [1]}}}, True),
        ({"data": {"state": {"deep": [{"exists": False}]}}}, True),
        ({"data": {"rows": {"id": [2], "kind": ["y"]}}}, True),
        ({"data": {"rows": {"id": [1], "kind": ["y"]}}}, False),  # of one element
        ({"$or": [{"type": ["other"]}, {"data": {"state": ["running"]}}]}, True),
        ({"$or": [{"type": ["other"]}, {"data": {"state": ["stopped"]}}]}, False),
        ({"source": ["x"], "$or": [{"type": ["state-change"]}, {"subject": ["y"]}]}, False),
        ({"data": {"$or": [{"state": ["x"]}, {"c-count": [5], "$or": [{"one": [1]}, {"one": [2]}]}]}}, True),
    ],
)
def test_structure(wanted: dict[str, Any], *, match: bool) -> None:
    """Names are joined by and, `$or` by or, at every depth, on attributes, extensions and data."""
    assert pattern.compile(wanted)(event(DETAIL)) is match


def test_all_patterns_must_match() -> None:
    """Several patterns are joined by and; none at all matches everything."""
    first, second = {"type": ["state-change"]}, {"data": {"state": ["running"]}}
    assert pattern.compile(first, second)(event(DETAIL))
    assert not pattern.compile(first, second)(event({"state": "stopped"}))
    assert pattern.compile()(event())


def test_data_is_parsed_only_where_it_is_asked_for() -> None:
    """A pattern on attributes never touches the data; one on data does not where an attribute excludes the event already."""
    broken = event()
    broken.data = msgspec.Raw(b"{broken")
    for attributes_only in ({"type": ["state-change"]}, {"$or": [{"type": ["state-change"]}, {"subject": ["x"]}]}):
        matcher = pattern.compile(attributes_only)
        assert "data" not in matcher.names
        assert matcher(broken)
    matcher = pattern.compile({"type": ["other"], "data": {"a": [1]}})
    assert "data" in matcher.names
    assert not matcher(broken)
    with pytest.raises(ValueError, match="JSON"):
        pattern.compile({"data": {"a": [1]}})(broken)


def test_event_without_data() -> None:
    """Without data every path below it is absent."""
    assert not pattern.compile({"data": {"a": ["x"]}})(event())
    assert pattern.compile({"data": {"a": [{"exists": False}]}})(event())
    assert pattern.compile({"data": ["x"]})(event("x"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "the pattern: is empty"),
        ({"type": "x"}, 'type: is "x"; write a list of values, ["x"]'),
        ({"type": []}, "type: is an empty list"),
        ({"data": {}}, "data: is empty"),
        ({"data": {"a": {"b": 1}}}, "data.a.b: is 1; write a list"),
        ({"data": {"a": [{"prefx": "x"}]}}, "data.a[0].prefx: is no operator; the operators are anything-but, cidr"),
        ({"data": {"a": ["x", {"prefix": 1}]}}, "data.a[1].prefix: is 1; write a string"),
        ({"data": {"a": [{"prefix": {"wildcard": "x"}}]}}, "data.a[0].prefix.wildcard: write a string or"),
        ({"data": {"a": [{"prefix": "a", "suffix": "b"}]}}, "data.a[0]: has 2 operators"),
        ({"data": {"a": [{"numeric": [">"]}]}}, "data.a[0].numeric: write comparisons"),
        ({"data": {"a": [{"numeric": ["=>", 1]}]}}, 'data.a[0].numeric[0]: is "=>"'),
        ({"data": {"a": [{"numeric": [">", "1"]}]}}, 'data.a[0].numeric[1]: is "1"; write a number'),
        ({"data": {"a": [{"exists": "yes"}]}}, "data.a[0].exists: write true or false"),
        ({"data": {"a": [{"cidr": "10.0.0.300/24"}]}}, "data.a[0].cidr:"),
        ({"data": {"a": [{"wildcard": "a**b"}]}}, "data.a[0].wildcard: two `*` in a row"),
        ({"data": {"a": [{"wildcard": "a\\b"}]}}, "data.a[0].wildcard: `\\b` is no escape"),
        ({"data": {"a": [{"anything-but": ["x", 1]}]}}, "data.a[0].anything-but: write a string"),
        ({"data": {"a": [{"anything-but": {"numeric": [">", 1]}}]}}, "data.a[0].anything-but.numeric: takes prefix"),
        ({"data": {"a": [["x"]]}}, "data.a[0]: is a list in a list"),
        ({"$or": [{"type": ["x"]}]}, "$or: write a list of two or more"),
        ({"$or": [{"type": ["x"]}, {"type": "x"}]}, "$or[1].type: is"),
        ({"detail-type": ["x"]}, "detail-type: is no CloudEvents attribute"),
    ],
)
def test_mistakes_are_named_with_their_path(wrong: dict[str, Any], message: str) -> None:
    """A wrong pattern is refused with the path of the mistake and what to write."""
    with pytest.raises(pattern.PatternError) as error:
        pattern.compile(wrong)
    assert str(error.value).startswith(message)


@given(st.text("ab*\\", max_size=8), st.text("ab*\\", max_size=8))
def test_wildcard_agrees_with_a_regular_expression(wildcard: str, value: str) -> None:
    """A wildcard matches exactly what the regular expression of the same meaning matches, or is refused."""
    try:
        matcher = pattern.compile({"subject": [{"wildcard": wildcard}]})
    except pattern.PatternError:
        assert re.search(r"\*\*|\\(?![*\\])", wildcard)
        return
    tokens = re.findall(r"\\[*\\]|.", wildcard)
    regex = "".join(".*" if token == "*" else re.escape(token[-1]) for token in tokens)
    target = event()
    target.subject = value
    assert matcher(target) is bool(re.fullmatch(regex, value, re.DOTALL))


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(
    ["data", "type", "a", "b", "prefix", "numeric", "exists", "$or", "anything-but", "cidr", "wildcard"]
)
patterns = st.dictionaries(
    names,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2), max_leaves=10
    ),
    max_size=2,
)


@given(patterns, documents)
def test_any_json_compiles_or_is_refused(wanted: dict[str, Any], data: Any) -> None:
    """Whatever JSON stands for a pattern, it is refused by PatternError or matches any event without an error."""
    try:
        matcher = pattern.compile(wanted)
    except pattern.PatternError:
        return
    assert matcher(event(data)) in (True, False)


@given(documents)
def test_exact_scalars_match_themselves(data: Any) -> None:
    """Every scalar matches itself, and `exists: false` is the complement of `exists: true`."""
    target = event({"a": data})
    if not isinstance(data, list | dict):
        assert pattern.compile({"data": {"a": [data]}})(target)
    present = pattern.compile({"data": {"a": [{"exists": True}]}})(target)
    assert pattern.compile({"data": {"a": [{"exists": False}]}})(target) is not present


SCALARS = [None, True, 0, 1.0, "", "a", "Ab"]
OPERATORS = [
    {"prefix": ""}, {"prefix": "a"}, {"suffix": "b"}, {"equals-ignore-case": "AB"}, {"prefix": {"equals-ignore-case": "A"}},
    {"anything-but": ["a"]}, {"exists": True}, {"exists": False}, {"numeric": [">", 0]},
]  # fmt: skip
values = st.sampled_from(SCALARS)
conditions = st.sampled_from([*SCALARS, *OPERATORS])
leaf = st.lists(conditions, min_size=1, max_size=2)
plain = st.dictionaries(
    st.sampled_from("ab"), leaf | st.dictionaries(st.sampled_from("ab"), leaf, min_size=1), min_size=1
)
content = plain | st.builds(lambda rest, one, other: rest | {"$or": [one, other]}, plain, plain, plain)
filters = st.lists(
    st.builds(lambda data: {"data": data}, content)
    | st.builds(
        lambda kind: {"type": [kind]}, st.sampled_from(["state-change", "x", {"prefix": "st"}, {"suffix": "x"}])
    ),
    max_size=2,
)
nested = st.dictionaries(st.sampled_from("ab"), values | st.lists(values, max_size=2))
alike = st.dictionaries(st.sampled_from("ab"), values | nested | st.lists(values | nested, max_size=3)) | values


def test_the_index_finds_each_condition_and_each_pair() -> None:
    """Whatever an event has in the field: a scalar, an array, an array in one, an object, nothing."""
    wanted: list[list[Any]] = [[one] for one in [*SCALARS, *OPERATORS]]
    wanted += [[one, other] for one in SCALARS + OPERATORS for other in SCALARS + OPERATORS]
    given_filters: list[dict[str, Any]] = [{"data": {"a": leaf}} for leaf in wanted]
    given_filters += [{"data": {"a": {"b": leaf}}} for leaf in wanted]
    given_filters += [{"data": {"$or": [{"a": leaf}, {"b": [7]}]}} for leaf in wanted]
    matchers = [pattern.compile(one) for one in given_filters]
    index = Index((number, matchers[number], [one]) for number, one in enumerate(given_filters))
    scalars = [*SCALARS, 1, False, "b", "AB", "xb", 7]
    held = [
        shape for one in scalars for shape in (one, [one], ["x", [one]], {"b": one}, [{"b": one}, {"b": [one, "x"]}])
    ]
    documents_held: list[Any] = [*({"a": one} for one in held), {"b": 7}, {}, [], None]
    for data in documents_held:
        target = event(data)
        assert sorted(index(target)) == [number for number, matcher in enumerate(matchers) if matcher(target)], data


@given(st.lists(filters, max_size=6), alike)
def test_the_index_tells_what_each_pattern_tells(several: list[list[dict[str, Any]]], data: Any) -> None:
    """Of any patterns and any event: the same ones match, and data that is no JSON is left to those that look at it."""
    entries = [(number, pattern.compile(*one), one) for number, one in enumerate(several)]
    index = Index(entries)
    target = event(data)
    assert sorted(index(target)) == [number for number, matcher, _ in entries if matcher(target)]
    target.data = msgspec.Raw(b"{no JSON")
    assert sorted(index(target)) == [
        number for number, matcher, _ in entries if fails(matcher, target) or matcher(target)
    ]


def fails(matcher: pattern.Matcher, target: Event) -> bool:
    """Whether the event can't be judged."""
    try:
        matcher(target)
    except ValueError:
        return True
    return False


def test_an_event_is_tried_by_the_few_that_it_could_match() -> None:
    """Of a thousand patterns on one type, each with a customer of its own, one is tried: the anchor is what the fewest share."""
    filters = [{"type": ["state-change"], "data": {"customer": [f"c{number}"]}} for number in range(1000)]
    tried = []

    class Spy(pattern.Matcher):
        def fits(self, document: Mapping[str, Any]) -> bool:
            tried.append(document)
            return super().fits(document)

    matchers = [pattern.compile(one) for one in filters]
    for matcher in matchers:
        matcher.__class__ = Spy
    index = Index([(number, matchers[number], [filters[number]]) for number in range(1000)])
    assert index(event({"customer": ["x", "c17"]})) == [17]
    assert index(event({"customer": "nobody"})) == []
    assert len(tried) == 1


@given(st.lists(filters, max_size=4), alike)
def test_long_data_is_judged_as_short_data_is(several: list[list[dict[str, Any]]], data: Any) -> None:
    """What no pattern names is left out of a long document, and no pattern can tell."""
    target = event(data)
    matchers = [pattern.compile(*one) for one in several]
    judged = [matcher(target) for matcher in matchers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "WHOLE_BYTES", 0)
        assert [matcher(target) for matcher in matchers] == judged
        entries = [(number, matchers[number], one) for number, one in enumerate(several)]
        assert sorted(Index(entries)(target)) == [number for number, matches in enumerate(judged) if matches]


BELOW = {"data": {"new": {"total": [{"numeric": [">", 100]}]}}}


def long(unit: str, *, below: bool = False) -> Event:
    """An event of 6,000,000 bytes of data: an array of one value, at the top or where the filter looks."""
    array = b"[" + b",".join([unit.encode()] * (5_900_000 // (len(unit.encode()) + 1))) + b"]"
    one = event()
    one.data = msgspec.Raw(b'{"new":{"total":' + array + b',"other":1}}' if below else array)
    return one


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("unit", ["[]", "{}", "0.5", "[[[[]]]]", '{"":0}', '[1.5,2,"é"]', '{"new":{"total":1}}'])
def test_too_many_values_are_refused_before_they_are_made(unit: str, below: bool) -> None:  # noqa: FBT001
    """To judge millions of values would stop all routes of a router for seconds."""
    with pytest.raises(TooComplex, match="filter on attributes"):
        pattern.compile(BELOW)(long(unit, below=below))


@pytest.mark.parametrize("unit", ["[]", "0.5", '{"a":[1,2]}'])
def test_values_that_no_filter_looks_at_are_no_hindrance(unit: str) -> None:
    """However many there are: they are skipped."""
    assert not pattern.compile({"data": {"new": {"other": [2]}}})(long(unit, below=True))
    assert pattern.compile({"data": {"new": {"other": [1]}}})(long(unit, below=True))
    assert pattern.compile({"type": ["state-change"]})(long(unit))


def test_marks_in_texts_are_not_counted() -> None:
    """A text may be full of commas, brackets and quotes, escaped or not."""
    text = '[{,"\\' * 400_000
    target = event({"new": {"text": text, "total": [99, 101], "end": "\\"}})
    assert pattern.compile({"data": {"new": [{"exists": False}]}})(target)
    assert pattern.compile({"data": {"new": {"text": [{"prefix": "[{,"}], "total": [{"numeric": [">", 100]}]}}})(target)


def test_an_array_costs_no_call_for_each_value() -> None:
    """Where a filter names something below, a value without names is told from its type (some calls are the memory management's)."""
    calls = 0

    def count(_frame: Any, what: str, _argument: Any) -> None:
        nonlocal calls
        calls += what == "call"

    def cost(data: Any, one: dict[str, Any]) -> int:
        nonlocal calls
        calls, target, matcher = 0, event(data), pattern.compile(one)
        sys.setprofile(count)
        try:
            assert not matcher(target)
        finally:
            sys.setprofile(None)
        return calls

    every: list[Any] = [1, "x", None, [], {}, [[[]]], [{}]]
    for value in every:
        assert cost([value] * 30_000, BELOW) < 2000, value
        assert cost([value] * 30_000, {"data": {"$or": [{"a": ["y"]}, {"b": [{"prefix": "y"}]}]}}) < 2000, value
    assert cost([1] * 50_000, {"data": [{"numeric": [">", 100]}]}) < 150_000


MANY: Any = [{"prefix": f"x{number}"} for number in range(900)]
EITHER: Any = [{"a": [{"exists": False}], "b": [number]} for number in range(200)]


@pytest.mark.parametrize(
    ("wanted", "data"),
    [
        ({"a": MANY}, {"a": ["y"] * 30_000}),
        ({"a": MANY}, {"a": [[["y"]]] * 30_000}),
        ({"a": [{"anything-but": {"prefix": [f"x{number}" for number in range(900)]}}]}, {"a": [1] * 30_000}),
        ({"a": [{"numeric": [">", -1] * 450 + ["<", 0]}]}, {"a": [1] * 30_000}),
        ({"a": [{"cidr": f"10.0.{number}.0/24"} for number in range(100)]}, {"a": ["y"] * 30_000}),
        ({"a": [{"wildcard": "*a" * 900}]}, {"a": ["aaa"] * 30_000}),
        ({"a": [{"anything-but": {"wildcard": ["*a" * 900]}}]}, {"a": ["aaa"] * 30_000}),
        ({"a": [{"equals-ignore-case": f"x{number}"} for number in range(900)]}, {"a": "y" * 1_000_000}),
        ({"$or": [{"a": [number]} for number in range(400)]}, {"a": ["y"] * 30_000}),
        ({"$or": [{"a": {"b": [number]}} for number in range(400)]}, {"a": ["y"] * 60_000}),
        ({"$or": [{"a": {"b": [number]}} for number in range(300)]}, {"a": [{"b": "y"}] * 15_000}),
        ({"rows": {"$or": EITHER}}, {"rows": [{"b": "y"}] * 15_000}),
    ],
    ids=[
        "values",
        "values in arrays",
        "anything but",
        "comparisons",
        "networks",
        "wildcards",
        "no wildcards",
        "a long text",
        "alternatives",
        "bare alternatives",
        "objects",
        "alternatives in objects",
    ],
)
def test_what_judging_takes_is_bounded(wanted: Any, data: Any) -> None:
    """All routes of a router wait meanwhile, so neither a pattern nor an event can hold it up, nor both; who shares a bus is handed it."""
    matcher, target = pattern.compile({"data": wanted}), event(data)
    with pytest.raises(TooComplex, match="would take more than"):
        matcher(target)
    other = pattern.compile({"type": ["other"]})
    handed = Index([(1, matcher, [{"data": wanted}]), (2, other, [{"type": ["other"]}])])(target)
    looked_up = wanted == {"a": MANY} or "equals-ignore-case" in str(wanted)
    assert handed == ([] if looked_up else [1]), "what can be looked up is told without a trial"


def test_looking_a_value_up_is_bounded_too() -> None:
    """Where texts of many lengths are looked up, all are handed an event with many values."""
    wanted = {"data": {"a": [{"prefix": "x" * length} for length in range(1, 500)]}}
    entries = [(number, pattern.compile(wanted), [wanted]) for number in range(3)]
    assert Index(entries)(event({"a": ["y"] * 30_000})) == [0, 1, 2]
    assert Index(entries)(event({"a": ["y"] * 30})) == []


def test_a_pattern_has_so_many_conditions() -> None:
    """Names and operators count; of a list's values there may be any number."""
    fits = {"data": {f"n{number}": ["x"] for number in range(CONDITIONS - 1)}}
    assert not pattern.compile(fits)(event({}))
    assert pattern.compile({"data": {"a": [f"x{number}" for number in range(30_000)]}})(event({"a": "x7"}))
    for long in ({"data": {"a": [{"prefix": "x"}] * CONDITIONS}}, {"data": fits["data"] | {"a": ["x"], "b": ["x"]}}):
        with pytest.raises(pattern.PatternError, match=r"the pattern: has more than 1000 names and operators"):
            pattern.compile(long)


def test_arrays_in_arrays_are_judged_however_deep() -> None:
    """As deep as JSON is read, one object or value at the end counts."""
    depth = 300
    deep: Any = {"a": 1}
    for _ in range(depth):
        deep = [deep, 0]
    assert pattern.compile({"data": {"a": [1]}})(event(deep))
    assert pattern.compile({"data": {"a": [{"exists": False}]}})(event(deep))
    assert not pattern.compile({"data": {"a": [2]}})(event(deep))
    assert Index([(1, pattern.compile({"data": {"a": [1]}}), [{"data": {"a": [1]}}])])(event(deep)) == [1]


def test_a_pattern_is_no_deeper_than_everybody_can_compile_and_match() -> None:
    """What is nested without end is refused by a sentence, in objects as in alternatives; 60 levels are taken."""

    def nested(levels: int) -> dict[str, Any]:
        below: Any = ["a"]
        for _ in range(levels):
            below = {"a": below}
        return {"data": below}

    assert pattern.compile(nested(60))
    with pytest.raises(pattern.PatternError, match="has more than 64 objects in one another"):
        pattern.compile(nested(100_000))
    alternatives: Any = {"data": ["a"]}
    for _ in range(10_000):
        alternatives = {"$or": [alternatives, {"id": ["a"]}]}
    with pytest.raises(pattern.PatternError, match="has more than 64 objects in one another"):
        pattern.compile(alternatives)


def test_a_pattern_that_is_too_large_is_not_compiled_to_its_end() -> None:
    """A megabyte of conditions is refused after the first thousand."""
    tried = 0

    class Counted(dict[str, Any]):
        def items(self) -> Any:
            nonlocal tried
            for item in super().items():
                tried += 1
                yield item

    with pytest.raises(pattern.PatternError, match="has more than 1000 names and operators"):
        pattern.compile({"data": Counted({f"k{n}": [{"prefix": "a"}] for n in range(50_000)})})
    assert tried <= 1000
