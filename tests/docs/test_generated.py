"""No table of the documents is older than the code that it shows, and no name of the code is missing from them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from actors.config import PREFIX, Settings
from actors.law.audit import ACTIONS
from actors.law.model import DeadlineKind
from actors.protocol import codes, node_codes, order_codes
from tests.docs.generate import BLOCK, ROOT, documents, fresh
from tests.docs.reading import text_of, without_code
from tests.docs.tables import BLOCKS

NAMED = re.compile(rf"{PREFIX}[A-Z][A-Z_]*[A-Z](?![\w…])")  # a prefix, written with an ellipsis, is no variable
NAMES = {
    "docs/protocol.md": [
        *codes.CAUSES,
        *codes.EVENT_TYPES,
        *codes.ERRORS,
        *(row.name for row in codes.CLOSE_CODES.values()),
        *get_args(codes.NackCode),
        *get_args(codes.Directive),
        *get_args(codes.CommandKind),
        *get_args(codes.GapReason),
        *codes.STATUSES,
        *get_args(codes.Link),
    ],
    "docs/configuration.md": list(Settings.model_fields),
    "docs/operations.md": list(ACTIONS.values()),
    "docs/architecture.md": list(get_args(DeadlineKind)),
    "docs/diagrams/nodes.md": [
        *node_codes.ROLES,
        *node_codes.PRESENCE_REASONS,
        *node_codes.NODE_EVENT_TYPES,
        *node_codes.INVOCATION_STATES,
        *node_codes.INVOCATION_ERRORS,
        *node_codes.REPORTED_STATES,
        *node_codes.TASK_STATUSES,
        *node_codes.TASK_ACTIONS,
        *node_codes.UPLOAD_STATUSES,
        *node_codes.INTENT_STATES,
    ],
    "docs/diagrams/orders.md": [
        *order_codes.ORDER_STATUSES,
        *order_codes.BATCH_STATUSES,
        *order_codes.NOTICE_CAUSES,
    ],
    "docs/orders.md": list(order_codes.QUOTA_POLICIES),
}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_generated_block_is_stale(path: Path) -> None:
    text = text_of(path)
    assert fresh(text) == text, "run: python -m tests.docs.generate"


def test_every_block_stands_somewhere() -> None:
    used = {found["name"] for path in documents() for found in BLOCK.finditer(text_of(path))}
    assert used == set(BLOCKS)


def test_a_stale_block_is_noticed() -> None:
    old = "<!-- generated:causes -->\n| cause | means |\n<!-- /generated -->"
    assert fresh(old) != old


@pytest.mark.parametrize("document", NAMES)
def test_every_name_is_documented(document: str) -> None:
    text = text_of(ROOT / document)
    assert [name for name in NAMES[document] if f"`{name}`" not in text] == []


def test_every_variable_that_a_document_names_exists() -> None:
    from actors.config import did_you_mean, unknown_variables

    named = {word for path in documents() for word in NAMED.findall(text_of(path))}
    assert unknown_variables(dict.fromkeys(named, "x")) == []
    assert did_you_mean("GRACE", ["GRACE_S"], PREFIX) == "; did you mean HOLDFAST_GRACE_S?"


def test_the_example_of_a_configuration_file_is_valid(tmp_path: Path) -> None:
    from actors.config import load

    (example,) = re.findall(r"```toml\n(.*?)```", text_of(ROOT / "docs/configuration.md"), re.DOTALL)
    file = tmp_path / "holdfast.toml"
    file.write_text(example)
    settings = load({"data_dir": str(tmp_path)}, environ={})
    assert {settings.origin_of(name) for name in tomllib.loads(example)} == {str(file)}


def test_documents_name_no_machine_of_ours() -> None:
    """A path of the machine that a text was written on helps nobody."""
    for path in documents():
        assert not re.search(r"/(work|root|home)/\w", text_of(path)), path


def test_words_outside_code_are_plain() -> None:
    loud = re.compile(r"\b(blazing|seamless\w*|cutting-edge|world-class|effortless\w*|simply|powerful)\b", re.I)
    for path in documents():
        assert not loud.search(without_code(text_of(path))), path
