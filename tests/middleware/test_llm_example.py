"""The example of a streamed completion does what it says."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.middleware.world import BYTES_MAX, World

EXAMPLE = Path(__file__).resolve().parents[2] / "clients" / "python" / "examples" / "llm_stream.py"
PROMPT = "Tell me of the sea."


@pytest.fixture(scope="module")
def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("llm_stream", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_answer_costs_what_it_came_to(
    example: Any, metered_world: World, tenant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompt and the words said are charged, and the rest of the budget comes back."""
    arguments = ["--target", metered_world.address, "--tenant", tenant, "--prompt", PROMPT]
    assert example.main(arguments) == 0
    assert capsys.readouterr().out == (
        f"{PROMPT} \ntokens-monthly: 10 of {BYTES_MAX} tokens used\n"
    )
    metered_world.client.record(tenant, "tokens", BYTES_MAX - 20)
    assert example.main(arguments) == 1
    assert capsys.readouterr().out.startswith("over budget by tokens-monthly, try again in ")
    metered_world.settles(tenant, BYTES_MAX - 10, "tokens")


def test_a_reader_who_has_had_enough_pays_for_what_was_said(
    example: Any, metered_world: World, tenant: str
) -> None:
    """Whoever stops reading after two words pays for the prompt and two words."""
    with example.model_api() as model:
        answer = example.complete(metered_world.client, model, tenant, PROMPT, 100)
        assert [next(answer), next(answer)] == ["Tell ", "me "]
        answer.close()
    metered_world.settles(tenant, 7, "tokens")


def test_a_model_that_says_nothing_costs_nothing(
    example: Any, metered_world: World, tenant: str
) -> None:
    """Where the model cannot be reached, the budget comes back whole."""
    with pytest.raises(OSError, match="refused"):
        list(example.complete(metered_world.client, "127.0.0.1:1", tenant, PROMPT, 100))
    metered_world.settles(tenant, 0, "tokens")
