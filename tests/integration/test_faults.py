"""Every system call of import, clean and init that changes a file fails, one after another, as on a full or
a broken disk; and every message to libvirt, as if there was nobody any more."""

import errno
import os
import re
import tempfile

import pytest

import hypervisor
import scenarios

POINTS = 2  # of each scenario and group in a default run, each with one error; `long` tries all


class Fail:
    """Lets number `at` of the calls that `wanted` takes fail with `error`; 0: counts only."""

    def __init__(self, wanted, at=0, error=None):
        self.wanted, self.at, self.error = wanted, at, error
        self.count, self.call = 0, None

    def __call__(self, call):
        if not self.wanted(call):
            return None
        self.count += 1
        if self.count != self.at:
            return None
        self.call = call
        return self.error


def disturb(scenario, wanted, errors, judge, most):
    """Lets each of these calls, or `most` of them, fail once."""
    scenario.prepare()
    good = Fail(wanted)
    scenario.run(good, code=0)
    end = scenario.end()
    reached = 0
    for at in scenarios.spread(good.count, most):
        for error in errors if most is None else [errors[at % len(errors)]]:
            scenario.prepare()
            fail = Fail(wanted, at, error)
            result = scenario.run(fail)
            if fail.call is None and result.code == 0:
                continue  # a run need not take as many calls as the first one did
            reached += 1
            try:
                assert result.code in (0, 1, 6, 7, 9)
                scenario.check()
                judge(result, fail)
                if result.code == 0:
                    check_done(scenario, fail, end)
                scenario.again()
                assert scenario.end() == end
                scenario.check()
            except AssertionError as problem:
                raise AssertionError(f"{errno.errorcode[error]} at number {at} of {good.count}, "
                                     f"{fail.call}: {problem}\n{result}") from problem
    assert reached > 0


def check_done(scenario, fail, end):
    """It said so: then nothing is missing, and nothing is left over but the file that cannot be removed."""
    assert scenario.end() == end
    if not fail.call or not fail.call.target.startswith(tempfile.gettempdir()):
        assert os.listdir(tempfile.gettempdir()) == []


def last_line(result):
    return result.err.decode().splitlines()[-1]


def judge_file(result, fail):
    """The error says what it was about, and why it failed. What comes after everything is in place, and
    does not belong to it, is a warning at most."""
    assert fail.call, "it was not reached"
    why, target = os.strerror(fail.error), fail.call.target
    names = [target, os.path.dirname(target), re.sub(r"/\.([^/]+)\.[^./]{6}$", r"/\1", target)]
    if result.code == 0:
        if "/receipts" in target:
            assert "warning: receipt: " in result.err.decode() and why in result.err.decode()
        else:
            assert "keys-" in target
        return
    assert result.code == (6 if fail.error == errno.ENOSPC else 1)
    assert last_line(result).endswith(f": {why}")
    assert any(name in last_line(result) for name in names), f"it names none of {names}"


def judge_message(result, fail):
    """It says what to do. A farewell that is not heard does no harm."""
    if result.code == 0:
        return
    assert result.code == 7
    assert "systemctl status libvirtd" in last_line(result)
    assert "Success" not in result.err.decode() and "no reason" not in result.err.decode()


def is_file(call):
    return call.target.startswith("/")


def is_message(call):
    return call.target.startswith("socket:")


@pytest.mark.parametrize("most", [POINTS, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", scenarios.ALL)
def test_a_file_cannot_be_changed(scenario, kind, most):
    disturb(scenario(kind), is_file, (errno.ENOSPC, errno.EIO), judge_file, most)


@pytest.mark.parametrize("most", [POINTS, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", scenarios.ALL)
def test_a_message_is_not_sent(scenario, kind, most):
    disturb(scenario(kind), is_message, (errno.EPIPE, errno.ECONNRESET), judge_message, most)


def test_no_space_for_signatures(scenario):
    """GnuPG works in the temporary folder. That it cannot is not the signer's fault."""
    scenario = scenario(scenarios.Import)
    scenario.prepare()
    before = scenario.host.view()
    small = scenario.folder / "small"
    with hypervisor.tmpfs(small, "12k"):
        result = scenario.uvmirror(*scenario.command, env={"TMPDIR": small}, code=6)
        assert str(small) in last_line(result)
        assert os.listdir(small) == []
    assert scenario.host.view() == before
