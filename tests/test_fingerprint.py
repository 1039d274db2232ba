import os

import pytest

from conceptcaps.fingerprint import module_fingerprint, script_modules


@pytest.fixture
def script(tmp_path):
    package = tmp_path / "conceptcaps"
    package.mkdir()
    (package / "near.py").write_text("from conceptcaps.far import f\n")
    (package / "far.py").write_text('"""Far."""\n\n\ndef f():\n    """Say one."""\n    return 1\n')
    (package / "unused.py").write_text("x = 1\n")
    path = tmp_path / "rule.py"
    path.write_text('"""Rule."""\n\nfrom conceptcaps import near\n\nnear.f()\n')
    return path


def far(script):
    return script.parent / "conceptcaps/far.py"


def test_comments_docstrings_formatting_and_times_do_not_count(script):
    before = script_modules(script)
    far(script).write_text('"""Other."""\n# why\ndef f():\n  return (1)\n')
    os.utime(script, (0, 0))
    assert script_modules(script) == before


def test_code_reached_through_another_module_counts_and_is_named(script):
    before = script_modules(script)
    assert set(before) == {"rule.py", "conceptcaps.near", "conceptcaps.far"}
    far(script).write_text("def f():\n    return 2\n")
    after = script_modules(script)
    assert {name for name in after if after[name] != before[name]} == {"conceptcaps.far"}


def test_code_that_is_not_reached_does_not_count(script):
    before = script_modules(script)
    (script.parent / "conceptcaps/unused.py").write_text("x = 2\n")
    assert script_modules(script) == before


def test_a_module_of_the_package_has_one_hash_of_all_that_it_reaches(script):
    near = script.parent / "conceptcaps/near.py"
    before = module_fingerprint(near)
    far(script).write_text("def f():\n    return 1\n")
    assert module_fingerprint(near) == before
    far(script).write_text("def f():\n    return 2\n")
    assert module_fingerprint(near) != before


@pytest.mark.parametrize("value", ["0", "False", "None", "''", "[]"])
def test_values_that_are_empty_are_told_apart(script, value):
    """Empty fields of a syntax tree are left out of its hash, empty values are not."""
    hashes = set()
    for text in (value, "1"):
        far(script).write_text(f"def f():\n    return {text}\n")
        hashes.add(script_modules(script)["conceptcaps.far"])
    far(script).write_text("def f():\n    return\n")
    hashes.add(script_modules(script)["conceptcaps.far"])
    assert len(hashes) == 3
