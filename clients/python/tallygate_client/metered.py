"""A decorator that charges calls of a function: plain, `async`, or yielding.

Guarantees that a refused call never begins, and that one which raises is not charged. Refuses to
know what functions do.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .metering.cost import Cost, Ending
from .metering.current import at_hand, current_cost
from .metering.rules import Question, Rules
from .metering.till import AsyncTill, Till

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .client import Client

__all__ = ["FunctionCall", "current_cost", "metered"]

F = TypeVar("F", bound=Callable[..., Any])
Amounts = Callable[[Any], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call as the rules see it: the function's name, and its arguments by theirs."""

    function: str
    arguments: Mapping[str, Any]

    def header(self, name: str) -> str | None:
        """Return an argument: a rule that is a name, as `tenant="org"`, is that of an argument."""
        value = self.arguments.get(name)
        return None if value is None else str(value)


def metered(
    client: Client | AsyncClient | Callable[[], Any],
    rules: Rules[FunctionCall],
    *,
    actual: Amounts | None = None,
    each: Amounts | None = None,
) -> Callable[[F], F]:
    """Charge each call of a function.

    Args:
        client: a `Client` for plain functions, an `AsyncClient` for `async` ones, or what makes it.
        rules: who pays, and what it costs, from the call's arguments.
        actual: what it came to, by meter, from the result.
        each: what each thing that it yields adds, by meter.

    The decorated function raises `QuotaExceeded` where it is refused, and what a call raises where
    there is no answer. It finds its cost by `current_cost()`, unless it yields.
    """

    def around(function: F) -> F:
        asking = _Asking(function, rules)
        if inspect.isasyncgenfunction(function):
            made: Any = _yielding_async(function, asking, AsyncTill(_any(client)), each)
        elif inspect.isgeneratorfunction(function):
            made = _yielding(function, asking, Till(_any(client)), each)
        elif inspect.iscoroutinefunction(function):
            made = _awaiting(function, asking, AsyncTill(_any(client)), actual)
        else:
            made = _calling(function, asking, Till(_any(client)), actual)
        wrapped: Any = functools.wraps(function)(made)
        return cast(F, wrapped)

    return around


class _Asking:
    """What to ask for a call of one function."""

    def __init__(self, function: Callable[..., Any], rules: Rules[FunctionCall]) -> None:
        self._signature = inspect.signature(function)
        self._name = function.__qualname__
        self._rules = rules

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question | None:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        call, rules = FunctionCall(self._name, bound.arguments), self._rules
        if rules.exempt is not None and rules.exempt(call):
            return None
        return rules.question(call, rules.tenant_of(call), rules.cost_of(call))


def _calling(
    function: Callable[..., Any], asking: _Asking, till: Till, actual: Amounts | None
) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        question = asking(args, kwargs)
        if question is None:
            return function(*args, **kwargs)
        cost, ending = till.open(question), Ending.FAILED
        try:
            with at_hand(cost):
                result = function(*args, **kwargs)
            ending = Ending.COMPLETE
            _set(cost, actual, result)
            return result
        finally:
            till.settle(cost, ending, charged=True)

    return called


def _awaiting(
    function: Callable[..., Any], asking: _Asking, till: AsyncTill, actual: Amounts | None
) -> Callable[..., Any]:
    async def called(*args: Any, **kwargs: Any) -> Any:
        question = asking(args, kwargs)
        if question is None:
            return await function(*args, **kwargs)
        cost, ending = await till.open(question), Ending.FAILED
        try:
            with at_hand(cost):
                result = await function(*args, **kwargs)
            ending = Ending.COMPLETE
            _set(cost, actual, result)
            return result
        finally:
            await till.settle(cost, ending, charged=True)

    return called


def _yielding(
    function: Callable[..., Any], asking: _Asking, till: Till, each: Amounts | None
) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Iterator[Any]:
        question = asking(args, kwargs)
        if question is None:
            yield from function(*args, **kwargs)
            return
        cost, ending = till.open(question), Ending.FAILED
        try:
            for found in function(*args, **kwargs):
                _add(cost, each, found)
                yield found
            ending = Ending.COMPLETE
        except GeneratorExit:
            # Whoever stops asking has had what was given till then.
            ending = Ending.LEFT
            raise
        finally:
            till.settle(cost, ending, charged=True)

    return called


def _yielding_async(
    function: Callable[..., Any], asking: _Asking, till: AsyncTill, each: Amounts | None
) -> Callable[..., Any]:
    async def called(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        question = asking(args, kwargs)
        if question is None:
            async for found in function(*args, **kwargs):
                yield found
            return
        cost, ending = await till.open(question), Ending.FAILED
        try:
            async for found in function(*args, **kwargs):
                _add(cost, each, found)
                yield found
            ending = Ending.COMPLETE
        except GeneratorExit:
            ending = Ending.LEFT
            raise
        finally:
            await till.settle(cost, ending, charged=True)

    return called


def _set(cost: Cost, actual: Amounts | None, result: Any) -> None:
    for meter, amount in (actual(result) if actual else {}).items():
        cost.set(meter, amount)


def _add(cost: Cost, each: Amounts | None, found: Any) -> None:
    for meter, amount in (each(found) if each else {}).items():
        cost.add(meter, amount)


def _any(client: Any) -> Any:
    return client
