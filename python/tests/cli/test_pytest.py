"""``nameko test``: an alias of pytest."""

import pytest
from program import run


@pytest.fixture
def tests(tmp_path):
    tmp_path.joinpath("test_it.py").write_text(
        "def test_good():\n    assert True\n\ndef test_bad():\n    assert False\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["test_it.py"], 1, "1 failed, 1 passed"),
        (["-k", "good", "-v"], 0, "test_it.py::test_good PASSED"),
        (["missing.py"], 4, "file or directory not found"),
        (["--nonsense"], 4, "unrecognized arguments: --nonsense"),
    ],
)
def test_passes_arguments_and_exit_code_through(tests, arguments, code, expected):
    ended = run("test", *arguments, cwd=tests)
    assert ended.returncode == code
    assert expected in ended.stdout + ended.stderr
    assert "already imported" not in ended.stdout
