"""Messages to a prompt, by the chat template of the model's folder. The only module that imports Jinja.

A template is a program that came with the file, so it is bounded: it runs in Jinja's immutable sandbox, for a limited
time, and no text that it makes on the way or at the end is longer than a limit. Filters and methods that make long
texts of short ones (`center`, `format`, …) are left out. What is available beside Jinja's own is what transformers
gives: `raise_exception`, `strftime_now`, `tojson` that escapes nothing, `break` and `continue`.
"""

from __future__ import annotations

import datetime
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from runtime.errors import ExtraMissingError, InputTextError
from runtime.format.manifest import ChatTemplate
from runtime.printing import shown

# A prompt of this many characters fills every model; templates take milliseconds.
MAX_CHARACTERS, MAX_SECONDS = 2**20, 2.0
ROLES = ("system", "developer", "user", "assistant", "tool")
# What would make a text of any length from a few characters.
_LEFT_OUT_FILTERS = ("center", "format", "indent", "wordwrap", "filesizeformat", "pprint", "urlize", "xmlattr", "batch")
_LEFT_OUT_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate")
_TOO_LONG = f"the chat template makes a text of more than {MAX_CHARACTERS} characters"


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages of one conversation.

    Raises:
        InputTextError: naming the first one that is no message.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise InputTextError(f"messages is {shown(messages)}", "a list of at least one message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise InputTextError(f"message {number} is {shown(message)}", 'an object with "role" and "content"')
        if message["role"] not in ROLES:
            raise InputTextError(
                f"message {number} has the role {shown(message['role'])}", f"one of {', '.join(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise InputTextError(f"the content of message {number} is {shown(message['content'])}", "a text")
    return [dict(message) for message in messages]


def render(chat: ChatTemplate, messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt for the assistant's answer.

    Raises:
        InputTextError: the template is wrong, refuses the messages, or goes beyond a bound.
        ExtraMissingError: the package jinja2 is not installed.
    """
    template = _compiled(chat.template)
    # `tools` and `documents` are none and not undefined: templates tell the two apart.
    values: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
    values |= {**chat.variables, "messages": [dict(message) for message in messages]}
    parts: list[str] = []
    size = 0
    try:
        with _deadline(time.monotonic() + MAX_SECONDS):
            for part in template.generate(values):
                size += len(part)
                if size > MAX_CHARACTERS:
                    raise _BoundError(_TOO_LONG)
                parts.append(part)
    # A template is a program, and can raise whatever a program can.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputTextError(
            f"the chat template does not take these messages: {reason}", "messages as the model was trained with"
        ) from error
    return "".join(parts)


class _BoundError(Exception):
    """A template goes beyond a bound."""


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> Any:
    """The template, of which the last few are kept."""
    try:
        environment = _environment()
    except ImportError:
        raise ExtraMissingError(
            "messages need the package jinja2, which is not installed", "", "pip install 'export-model[chat]'"
        ) from None
    try:
        return environment.from_string(text)
    # RecursionError: thousands of nested brackets; the rest are errors of syntax.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise InputTextError(f"the chat template cannot be read: {reason}", "a Jinja template") from error


def _environment() -> Any:
    import jinja2.compiler
    import jinja2.ext
    import jinja2.sandbox

    class Generator(jinja2.compiler.CodeGenerator):  # type: ignore[misc]
        """Joins texts by a method of the environment, which bounds them."""

        def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802
            self.write("environment.joined((")
            for argument in node.nodes:
                self.visit(argument, frame)
                self.write(", ")
            self.write("))")

    class Generation(jinja2.ext.Extension):  # type: ignore[misc]
        """`{% generation %}`, which tells trainers what the assistant says: its content, as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc]
        """The sandbox, with bounds on what operators, filters and calls make."""

        code_generator_class = Generator
        intercepted_binops = frozenset(["+", "*", "**", "%"])

        def joined(self, parts: Sequence[Any]) -> str:
            """What `~` makes."""
            return _bounded_join("", [str(part) for part in parts])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
            if operator == "+" and not numbers and len(left) + len(right) > MAX_CHARACTERS:
                raise _BoundError(_TOO_LONG)
            if operator in ("*", "**", "%") and not (numbers and abs(left) < 2**32 and abs(right) < 2**32):
                raise _BoundError(f"the chat template calculates with {operator} and more than small numbers")
            if operator == "**" and abs(right) > 64:
                raise _BoundError("the chat template calculates a large power")
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            text = isinstance(obj, str) and attr in _LEFT_OUT_METHODS
            return not text and super().is_safe_attribute(obj, attr, value)

        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
            owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
            if isinstance(owner, str) and name == "replace":
                return _bounded_replace(owner, *args, **kwargs)
            if isinstance(owner, str) and name == "join":
                return _bounded_join(owner, *args, **kwargs)
            return super().call(context, called, *args, **kwargs)

    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation])
    for name in _LEFT_OUT_FILTERS:
        made.filters.pop(name, None)
    made.filters["replace"] = _bounded_replace
    made.filters["join"] = _joined_filter
    made.filters["tojson"] = _to_json
    made.globals.pop("lipsum", None)
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(str(form)[:100])
    return made


def _bounded_join(between: str, parts: Any) -> str:
    found: list[str] = [str(part) for part in parts]
    between = str(between)
    if sum(map(len, found)) + len(between) * len(found) > MAX_CHARACTERS:
        raise _BoundError(_TOO_LONG)
    return between.join(found)


def _joined_filter(parts: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        parts = [part[attribute] for part in parts]
    return _bounded_join(str(d), parts)


def _bounded_replace(text: Any, old: Any, new: Any, count: int | None = -1) -> str:
    whole, before, after = str(text), str(old), str(new)
    if whole.count(before) * len(after) + len(whole) > MAX_CHARACTERS:
        raise _BoundError(_TOO_LONG)
    return whole.replace(before, after, -1 if count is None else count)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if isinstance(indent, (str, int)) and (len(indent) if isinstance(indent, str) else indent) > 16:
        raise _BoundError("the chat template indents by more than 16 characters")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: Any) -> None:
    raise InputTextError(str(message)[:200])


@contextmanager
def _deadline(end: float) -> Iterator[None]:
    """Raise _BoundError in this thread when a line of Python begins after `end`.

    A loop in a template is one of Python, and nothing else can interrupt it.
    """

    def watch(_frame: Any, _event: str, _argument: Any) -> Callable[..., Any]:
        if time.monotonic() > end:
            raise _BoundError(f"the chat template takes more than {MAX_SECONDS:g} s")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
