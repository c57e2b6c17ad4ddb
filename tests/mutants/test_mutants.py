"""The tests, tested: each planted fault still applies, and each is noticed by exactly those tests that it names."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from tests.mutants import table
from tests.mutants.catalogue import CATALOGUE, Mutant
from tests.mutants.runner import AT_ONCE, CONTROL_LIMIT_S, LIMIT_S, ROOT, Bench, Verdict, mutate

Judge = Callable[[Mutant | None], Verdict]
NO_FAULT = None  # the control: all the tests of the catalogue pass in an untouched copy


@pytest.fixture(scope="session")
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Under xdist each worker plants what it is given, one at a time. Without, they run ahead of their tests, two at a
    time."""
    ahead = os.environ.get("PYTEST_XDIST_WORKER") is None
    bench = Bench(tmp_path_factory.mktemp("mutants"), AT_ONCE if ahead else 1)
    begun: dict[Mutant | None, Future[Verdict]] = {}
    if ahead:
        for item in request.session.items:
            params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            if "planted" in params:
                begun[params["planted"]] = bench.submit(params["planted"])

    def verdict(planted: Mutant | None) -> Verdict:
        future = begun[planted] if planted in begun else bench.submit(planted)
        return future.result()

    yield verdict
    bench.close()


@pytest.mark.timeout(2 * CONTROL_LIMIT_S + LIMIT_S)  # the first waits for the copies and, ahead of it, the control
@pytest.mark.parametrize("planted", [NO_FAULT, *CATALOGUE], ids=lambda m: m.slug if m else "no-fault-at-all")
def test_a_planted_fault_is_noticed_by_the_tests_that_it_names(planted: Mutant | None, judge: Judge) -> None:
    verdict = judge(planted)
    assert not verdict.why, f"{planted.name if planted else 'control'}: {verdict.why}\n{verdict.output}"


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda m: m.slug)
def test_a_planted_fault_still_applies_and_is_a_program(mutant: Mutant) -> None:
    """Whoever moves the code moves the mutant with it: it may not become a fault that nobody plants."""
    source = (ROOT / mutant.file).read_text()
    planted = mutate(mutant, source)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(source))


def test_every_test_that_a_fault_names_exists() -> None:
    for mutant in CATALOGUE:
        assert mutant.killers, mutant.name
        for killer in mutant.killers:
            path, _, function = killer.partition("::")
            names = {n.name for n in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(n, "name")}
            assert function in names, f"{mutant.name}: {killer}"


def test_the_catalogue_is_wide_and_has_no_doubles() -> None:
    assert len({m.slug for m in CATALOGUE}) == len({(m.file, m.old, m.new) for m in CATALOGUE}) == len(CATALOGUE) >= 30
    assert {m.breaks for m in CATALOGUE} == {f"G{n}" for n in range(1, 14)} | {"§4", "§7"}


def test_the_table_lists_the_catalogue() -> None:
    """If not: `python -m tests.mutants --write`."""
    document = table.DOCUMENT.read_text()
    assert table.written(document) == document
    rows = re.findall(r"^\| (.*?) \| `", document, re.M)
    assert [m.name for m in CATALOGUE] == [row for row in rows if row in {m.name for m in CATALOGUE}]
