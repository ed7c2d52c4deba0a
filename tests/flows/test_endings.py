import pytest

from flows.cli import app
from flows.endings import EXIT_FAILED, EXIT_USAGE, end_with_code
from flows.interruption import EXIT_INTERRUPTED, INTERRUPTED


def ended(command, capsys):
    """The exit code, and what was said."""
    with pytest.raises(SystemExit) as end:
        end_with_code(command)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--results", ".", "--annotations", "."), ".: Is a directory; a folder lies where a file belongs"),
        (("catalog", "list", "--dataset", "shop", "--store", "file"), "Not a directory; a file lies where"),
        (("predict", "a.jpg", "b.jpg"), "expected no further words, got b.jpg; options begin with --, globs"),
        (("status", "monday"), "got monday; options begin with --, globs are quoted. `tally status --help` tells"),
        (("catalog", "diff", "x"), "`tally catalog diff --help` tells what there is."),
        (("run", "--dataset", "shop", "--nope"), "Unknown option: --nope"),
        (("predict", "a.jpg", "--threshold", "2"), "threshold: expected 0 to 1, got 2"),
        (("predict", "a.jpg", "--review", "-1"), "review: expected 0 to 1, got -1"),
        (("predict", "a.jpg", "--workers", "-1"), "workers: expected 0 to 1024, got -1"),
        (("evaluate", "--results", "r", "--annotations", "a", "--threshold", "50"), "threshold: expected 0 to 1, got"),
        (("serve", "--port", "65536"), "port: expected 1 to 65535, got 65536"),
        (("inspect", "--port", "0"), "port: expected 1 to 65535, got 0"),
    ],
)
def test_end_with_code__wrong_commands(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, said = ended(lambda: app(arguments, exit_on_error=False, print_error=False), capsys)
    assert code == EXIT_USAGE
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("stage train was killed"), EXIT_FAILED, "failed: stage train was killed\n"),
        (ValueError("key: expected a, got b"), EXIT_USAGE, "error: key: expected a, got b\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, f"{INTERRUPTED}\n"),
    ],
)
def test_end_with_code__by_what_went_wrong(error, code, said, capsys):
    def fail():
        raise error

    assert ended(fail, capsys) == (code, said)


def test_end_with_code__tells_how_to_go_on_after_ctrl_c(monkeypatch, capsys):
    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.read_run", interrupt)
    command = ("status", "--run", "monday")
    code, said = ended(lambda: app(command, exit_on_error=False, print_error=False), capsys)
    assert (code, said) == (EXIT_INTERRUPTED, f"{INTERRUPTED}\n")


def test_end_with_code__leaves_what_ends_well_alone(capsys):
    end_with_code(lambda: 7)
    assert capsys.readouterr().err == ""
