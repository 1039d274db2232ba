import os

import pytest

from conceptcaps.fingerprint import script_fingerprint


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
    before = script_fingerprint(script)
    far(script).write_text('"""Other."""\n# why\ndef f():\n  return (1)\n')
    os.utime(script, (0, 0))
    assert script_fingerprint(script) == before


def test_code_reached_through_another_module_counts(script):
    before = script_fingerprint(script)
    far(script).write_text("def f():\n    return 2\n")
    assert script_fingerprint(script) != before


def test_code_that_is_not_reached_does_not_count(script):
    before = script_fingerprint(script)
    (script.parent / "conceptcaps/unused.py").write_text("x = 2\n")
    assert script_fingerprint(script) == before
